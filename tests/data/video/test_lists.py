"""Videos of one's own in list files, with every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.video.own_videos import clip, load, paths

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
