"""Videos of one's own in list files, with every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.video.own_videos import clip, load, paths
from PIL import Image

from vcreg_hub.config import Data, Train, Video
from vcreg_hub.data.video.batches import video_test_loader, video_train_loader, video_val_loader
from vcreg_hub.data.video.decode import write_video
from vcreg_hub.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of a.avi to d.avi, without lists."""
    for name in "abcd":
        clip(tmp_path / "set" / f"{name}.avi")
    return tmp_path / "set"


def test_lists_with_spaces_in_names_and_class_names(tmp_path: Path) -> None:
    root = tmp_path / "set"
    first, second = clip(root / "clips" / "my first [1] clip.avi"), clip(tmp_path / "elsewhere" / "b.avi")
    clip(root / "c.avi")
    (root / "train.csv").write_text(f"c.avi 0\n{second} 1\n\n")
    (root / "val.csv").write_text("clips/my first [1] clip.avi 1\n")
    videos = load("video_list", root)
    assert videos.class_names == ("class_0", "class_1") and len(videos.train) == 2
    assert paths(videos, "test") == ["clips/my first [1] clip.avi"]
    clip(root / "d.avi")
    (root / "classes.txt").write_text("jump\nrun\nsit\n")
    (root / "train.csv").write_text((root / "train.csv").read_text() + "d.avi 2\n")
    assert load("video_list", root).class_names == ("jump", "run", "sit")
    assert first.is_file()


def test_a_byte_order_mark_is_no_part_of_the_first_name(root: Path) -> None:
    (root / "train.csv").write_text("a.avi 0\r\nb.avi 1\r\n", encoding="utf-8-sig")
    (root / "test.csv").write_text("c.avi 0\nd.avi 1\n", encoding="utf-8-sig")
    (root / "classes.txt").write_text("jump\nrun\n", encoding="utf-8-sig")
    videos = load("video_list", root)
    assert paths(videos, "train") == ["a.avi", "b.avi"] and videos.class_names == ("jump", "run")


def test_clips_of_two_lists_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "train.csv").write_text("a.avi 0\nb.avi 1\nc.avi 0\n")
    (root / "val.csv").write_text("c.avi 0\nd.avi 1\n")
    (root / "test.csv").write_text(f"./a.avi 0\n{root.absolute()}/b.avi 1\nd.avi 1\n")
    load("video_list", root)
    assert caplog.messages == [
        "video_list: 2 test clips also in the train list: a.avi, b.avi; the result is no measure of new clips",
        "video_list: 1 test clip also in the val list: d.avi; what is chosen by validation is chosen by test clips",
        "video_list: 1 val clip also in the train list: c.avi; validation tells little",
    ]


LINE = "a path, a space and a whole-number label, from 0"
GOOD = "a.avi 0\nb.avi 1\n"
# The training list, the test list, classes.txt, and what is said of them.
LISTS = {
    "absent": (None, None, None, "no such list"),
    "empty": ("\n", "c.avi 0\n", None, rf"train\.csv lists no video; expected on each line {LINE}"),
    "no label": ("a.avi\n", None, None, rf"train\.csv, line 1: expected {LINE}"),
    "a name": ("a.avi 0\nb.avi walk\n", None, None, rf"train\.csv, line 2: expected {LINE} .*classes\.txt"),
    "a comma": ("a.avi,0\n", None, None, f"line 1: expected {LINE}"),
    "a header": ("path label\na.avi 0\n", None, None, f"line 1: expected {LINE}"),
    "missing": ("x.avi 0\n", None, None, "there is no file"),
    "no test": (GOOD, None, None, r"neither test\.csv nor val\.csv"),
    "one class": ("a.avi 0\n", "b.avi 0\n", None, "expected two classes or more, found 1 class"),
    "label": (GOOD, "c.avi 7\n", None, r"test\.csv, line 1: .* label 7, but there are 2 classes \(0 to 1\)"),
    "gap": ("a.avi 2\nb.avi 4\n", "c.avi 2\n", None, "0 to 4 without gaps, but no training clip has 0, 1, 3$"),
    "huge": ("a.avi 0\nb.avi 20261122\n", "c.avi 0\n", None, r"no training clip has 1, 2, 3, 4, 5 \.\.\.$"),
    "named gap": ("a.avi 0\nb.avi 2\n", "c.avi 1\n", "x\ny\nz\n", r"no training clip has 1 \(y\)$"),
    "twice": (GOOD + "./a.avi 0\n", "c.avi 0\n", None, r"line 3: .*a\.avi is in .*line 1 already; remove one"),
    "two labels": (GOOD + "a.avi 1\n", "c.avi 0\n", None, r"line 3: .*a\.avi has label 1, but 0 in .*, line 1"),
    "two in two": (GOOD, "b.avi 0\n", None, r"test\.csv, line 1: .*b\.avi has label 0, but 1 in .*train\.csv, line 2"),
    "latin-1": ("\xe9.avi 0\n".encode("latin-1"), None, None, r"train\.csv is not UTF-8 text"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_are_wrong(root: Path, case: str) -> None:
    train, test, names, message = LISTS[case]
    for file, text in (("train.csv", train), ("test.csv", test), ("classes.txt", names)):
        if text is not None:
            (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        load("video_list", root)


# ---- tables with a header, as of Kinetics ----


def test_a_table_of_paths_names_and_seconds(root: Path) -> None:
    clip(root / "long.avi", 60)  # two seconds
    (root / "train.csv").write_text("path,label,start,end\na.avi,run,,\nlong.avi,jump,0.5,1\nlong.avi,jump,1,1.5\n")
    (root / "test.csv").write_text('label,path\njump,b.avi\nrun,"c.avi"\n')
    videos = load("video_list", root)
    assert videos.class_names == ("jump", "run")
    found = [(c.path, c.label, c.frames, c.first, c.start, c.end) for c in videos.index.clips]
    assert found == [
        ("a.avi", 1, 3, 0, None, None),
        ("long.avi", 0, 15, 15, 0.5, 1.0),
        ("long.avi", 0, 15, 30, 1.0, 1.5),
        ("b.avi", 0, 3, 0, None, None),
        ("c.avi", 1, 3, 0, None, None),
    ]
    (root / "classes.txt").write_text("run\njump\n")
    assert load("video_list", root).class_names == ("run", "jump")


def test_the_frames_of_a_part_are_those_of_its_seconds(root: Path) -> None:
    shades = np.arange(0, 240, 4, dtype=np.uint8)
    write_video(root / "bright.avi", np.repeat(shades, 16 * 16 * 3).reshape(60, 16, 16, 3))
    (root / "train.csv").write_text("path,label,start,end\nbright.avi,late,1.5,2\na.avi,other,,\n")
    (root / "test.csv").write_text("path,label,start,end\nbright.avi,late,1.2,1.3\nb.avi,other,,\n")
    plain = {"image_size": 16, "crop": "none", "hflip": 0.0, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    videos, video = load("video_list", root, **plain), Video(frames=2, stride=1, clips=2, crops=1)
    data = Data("video_list", str(root), workers=0, **plain)
    items = list(video_test_loader(videos, data, video))
    shown = next(item.frames for item in items if not item.label).float().mean((1, 2, 3))
    assert ((shown > 4 * 36 - 6) & (shown < 4 * 39 + 6)).all(), "frames 36 to 38 of 60"
    clips, labels, _ = next(iter(video_val_loader(videos, data, video, 2, "train")))
    middle = clips[labels == 0].mean((0, 2, 3, 4))
    assert ((middle > 4 * 45 - 6) & (middle < 4 * 60)).all()
    for clips, labels in video_train_loader(videos, data, Train(batch_size=2), video):
        drawn = clips[labels == 0].mean((0, 2, 3, 4))
        assert ((drawn > 4 * 45 - 6) & (drawn < 4 * 60)).all()


def test_a_kinetics_list_finds_trimmed_and_whole_files_and_folders_of_frames(root: Path) -> None:
    clip(root / "riding a bike" / "-0aB_c_000003_000013.avi")
    clip(root / "abseiling" / "xYz.avi", 60)
    for number in range(4):
        path = root / "videos" / "frm_000000_000010" / f"img_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    (root / "train.csv").write_text(header + "riding a bike,-0aB_c,3,13,train,0\nabseiling,xYz,1,2,train,0\n")
    (root / "val.csv").write_text(header + "abseiling,frm,0,10,val,0\n")
    videos = load("video_list", root)
    assert videos.class_names == ("abseiling", "riding a bike")
    assert [(c.path, c.frames, c.first) for c in videos.index.clips] == [
        ("riding a bike/-0aB_c_000003_000013.avi", 3, 0),
        ("abseiling/xYz.avi", 30, 30),
        ("videos/frm_000000_000010", 4, 0),
    ]


def test_folders_of_frames_in_plain_lists(root: Path) -> None:
    for number in range(3):
        path = root / "my frames" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)
    (root / "train.csv").write_text("my frames 0\nb.avi 1\n")
    (root / "test.csv").write_text("c.avi 0\n")
    assert [c.frames for c in load("video_list", root).index.clips] == [3, 3, 3]
    Image.new("RGB", (16, 16)).save(path.parent / "3.png")
    assert load("video_list", root).index.clips[0].frames == 4, "a changed folder is looked at again"


TABLES = {
    "cells": ("path,label\na.avi,x,7\n", r"train\.csv, line 2: 3 values for 2 columns"),
    "no label": ("path,label\na.avi,\n", r"line 2: it has no label"),
    "no seconds": (
        "path,label,start\na.avi,x,soon\n",
        r"line 2: expected start in seconds, 0 or more, .*, got 'soon'",
    ),
    "negative": ("path,label,end\na.avi,x,-1\n", r"line 2: expected end in seconds"),
    "backwards": ("path,label,start,end\na.avi,x,3,2\n", r"line 2: the clip starts at second 3 and ends at second 2"),
    "absent": ("path,label\nz.avi,x\n", r"line 2: there is no file .*z\.avi, nor a folder of frames"),
    "kinetics": (
        "label,youtube_id,time_start,time_end\nx,Q,1,2\n",
        r"line 2: there is no video Q_000001_000002 or Q",
    ),
    "other": (
        "path,label\na.avi,x\nb.avi,y\n",
        r"test\.csv, line 2: .*c\.avi has label 'z', which the training list",
    ),
    "twice": ("path,label,start\na.avi,x,1\na.avi,y,1\n", r"line 3: .*a\.avi has label y, but x in"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_wrong(root: Path, case: str) -> None:
    train, message = TABLES[case]
    (root / "train.csv").write_text(train)
    (root / "test.csv").write_text("path,label\nc.avi,z\n")
    with pytest.raises(DataError, match=message):
        load("video_list", root)


def test_a_part_without_a_frame_is_left_out_by_name(root: Path) -> None:
    (root / "train.csv").write_text("path,label,start\na.avi,x,\nb.avi,y,\nc.avi,y,5\n")
    (root / "test.csv").write_text("path,label\nd.avi,x\n")
    videos = load("video_list", root)
    assert [c.error.split(": ")[1] for c in videos.left_out] == ["no frame from second 5 on; the last one is at 0.07"]
    assert len(videos.train) == 2
