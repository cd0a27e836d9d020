"""Videos of one's own: class folders and list files, with every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.config import Data, Video
from vcreg_hub.data import video_folder
from vcreg_hub.data.video_file import write_video
from vcreg_hub.data.videos import load_videos
from vcreg_hub.errors import ConfigError, DataError

VIDEO = Video(frames=2, stride=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def clip(path: Path, length: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.full((length, 16, 16, 3), 100, dtype=np.uint8))
    return path


def load(name: str, root: Path | None, **changes: object):
    return load_videos(Data(name, root=None if root is None else str(root), workers=0, **changes), VIDEO)


def names(videos, part: str) -> list[str]:
    return sorted(videos.index.clips[n].path for n in getattr(videos, part).numbers)


def test_class_folders_alone_give_every_fifth_file_to_the_test(tmp_path: Path) -> None:
    root = tmp_path / "my [videos]"
    for name in ("run", "walk #1"):
        for i in range(6):
            clip(root / name / f"{i}.avi", 3 + i)
    (root / "run" / "notes.txt").write_text("not a video")
    (root / ".hidden").mkdir()
    videos = load("video_folder", root)
    assert videos.class_names == ("run", "walk #1")
    assert names(videos, "test") == ["run/4.avi", "walk #1/4.avi"]
    assert len(videos.train) == 10 and not len(videos.val)
    assert {c.path: c.frames for c in videos.index.clips}["run/5.avi"] == 8
    held = load("video_folder", root, val_fraction=0.3)
    assert len(held.val) == 2 and len(held.train) == 8 and names(held, "test") == names(videos, "test")


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("a", "b"):
            for i in range(count):
                clip(tmp_path / "set" / part / name / f"{i}.mp4")
    videos = load("video_folder", tmp_path / "set", val_fraction=0.5)
    assert [len(videos.train), len(videos.val), len(videos.test)] == [6, 4, 2]
    assert names(videos, "val")[0] == "val/a/0.mp4"


def test_without_test_the_validation_folder_is_the_test(tmp_path: Path) -> None:
    for part in ("train", "val"):
        clip(tmp_path / "set" / part / "a" / "0.avi")
    videos = load("video_folder", tmp_path / "set")
    assert names(videos, "test") == ["val/a/0.avi"] and not len(videos.val)


def test_lists_with_spaces_in_names_and_class_names(tmp_path: Path) -> None:
    root = tmp_path / "set"
    first, second = clip(root / "clips" / "my first [1] clip.avi"), clip(tmp_path / "elsewhere" / "b.avi")
    (root / "train.csv").write_text(f"clips/my first [1] clip.avi 0\n{second} 1\n\n")
    (root / "val.csv").write_text(f"{first} 1\n")
    videos = load("video_list", root)
    assert videos.class_names == ("class_0", "class_1") and len(videos.train) == 2
    assert names(videos, "test") == ["clips/my first [1] clip.avi"]
    (root / "classes.txt").write_text("jump\nrun\nsit\n")
    (root / "train.csv").write_text((root / "train.csv").read_text() + f"{first} 2\n")
    assert load("video_list", root).class_names == ("jump", "run", "sit")


def test_files_are_measured_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    for i in range(5):
        clip(root / "a" / f"{i}.avi")
    calls = []
    measured = video_folder.measured
    monkeypatch.setattr(video_folder, "measured", lambda *a: calls.append(1) or measured(*a))
    load("video_folder", root)
    load("video_folder", root)
    assert len(calls) == 1
    clip(root / "a" / "0.avi", 9)
    assert load("video_folder", root).index.clips[0].frames == 9 and len(calls) == 2


def _lists(root: Path, train: str, test: str = "") -> None:
    clip(root / "a.avi")
    (root / "train.csv").write_text(train)
    if test:
        (root / "test.csv").write_text(test)


FOLDERS = {
    "absent": (lambda root: None, "no such folder"),
    "empty": (lambda root: root.mkdir(), "no class folders with videos"),
    "flat": (lambda root: clip(root / "a.avi"), "no class folders with videos"),
    "no train": (lambda root: clip(root / "test" / "a" / "0.avi"), "no train/"),
    "strange": (
        lambda root: [clip(root / "train" / "a" / "0.avi"), clip(root / "test" / "b" / "0.avi")],
        "no training videos of b",
    ),
    "one file": (lambda root: clip(root / "a" / "0.avi"), "there is no test clip"),
}
LISTS = {
    "absent": (lambda root: root.mkdir(), "no such list"),
    "no label": (lambda root: _lists(root, "a.avi\n"), r"train\.csv, line 1"),
    "no number": (lambda root: _lists(root, "a.avi 0\na.avi walk\n"), r"train\.csv, line 2"),
    "missing": (lambda root: _lists(root, "b.avi 0\n"), "there is no file"),
    "no test": (lambda root: _lists(root, "a.avi 0\n"), r"neither test\.csv nor val\.csv"),
    "label": (lambda root: _lists(root, "a.avi 0\n", "a.avi 7\n"), "has label 7, but there are 1 classes"),
    "gap": (lambda root: _lists(root, "a.avi 2\n", "a.avi 2\n"), "no training clip is left of class_0, class_1"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_wrong(tmp_path: Path, case: str) -> None:
    make, message = FOLDERS[case]
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        load("video_folder", tmp_path / "set")


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_are_wrong(tmp_path: Path, case: str) -> None:
    make, message = LISTS[case]
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        load("video_list", tmp_path / "set")


@pytest.mark.parametrize("name", ["video_folder", "video_list"])
def test_a_root_is_needed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        load(name, None)
