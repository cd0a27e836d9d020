"""Videos of one's own in class folders, with every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.video.own_videos import clip, load, paths
from PIL import Image

from vcreg_hub.data.video import folder as video_folder
from vcreg_hub.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fill(folder: Path, **counts: int) -> None:
    for name, count in counts.items():
        for i in range(count):
            clip(folder / name / f"{i}.avi")


def test_class_folders_alone_give_every_fifth_file_to_the_test(tmp_path: Path) -> None:
    root = tmp_path / "my [videos]"
    for name in ("run", "walk #1"):
        for i in range(6):
            clip(root / name / f"{i}.avi", 3 + i)
    (root / "run" / "notes.txt").write_text("not a video")
    (root / ".hidden").mkdir()
    videos = load("video_folder", root)
    assert videos.class_names == ("run", "walk #1")
    assert paths(videos, "test") == ["run/4.avi", "walk #1/4.avi"]
    assert len(videos.train) == 10 and not len(videos.val)
    assert {c.path: c.frames for c in videos.index.clips}["run/5.avi"] == 8
    held = load("video_folder", root, val_fraction=0.3)
    assert len(held.val) == 2 and len(held.train) == 8 and paths(held, "test") == paths(videos, "test")


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("a", "b"):
            for i in range(count):
                clip(tmp_path / "set" / part / name / f"{i}.mp4")
    videos = load("video_folder", tmp_path / "set", val_fraction=0.5)
    assert [len(videos.train), len(videos.val), len(videos.test)] == [6, 4, 2]
    assert paths(videos, "val")[0] == "val/a/0.mp4"


def test_without_test_the_validation_folder_is_the_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "set" / "train", a=1, b=1, c=1)
    fill(tmp_path / "set" / "val", a=1)
    videos = load("video_folder", tmp_path / "set")
    assert paths(videos, "test") == ["val/a/0.avi"] and not len(videos.val)
    assert caplog.messages == [
        "video_folder: no test clip of 2 classes: b, c; mean_per_class is the mean over the others"
    ]
    assert "1 test clip, 3 classes; 0 clips of the whole set do not decode" in str(videos)
    caplog.clear()
    monkeypatch.setenv("RANK", "1")
    load("video_folder", tmp_path / "set")
    assert not caplog.messages, "one process speaks for all"


def test_files_are_measured_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    fill(root, a=5, b=5)
    calls = []
    measured = video_folder.measured
    monkeypatch.setattr(video_folder, "measured", lambda *a: calls.append(1) or measured(*a))
    load("video_folder", root)
    load("video_folder", root)
    assert len(calls) == 1
    clip(root / "a" / "0.avi", 9)
    assert load("video_folder", root).index.clips[0].frames == 9 and len(calls) == 2


def test_clips_that_do_not_decode_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "set"
    fill(root, a=6, b=6)
    (root / "a" / "1.avi").write_bytes(b"")
    (root / "b" / "2.avi").write_bytes(b"not a video")
    (root / "b" / "4.avi").write_bytes(b"of the test part, where it counts as wrong")
    videos = load("video_folder", root)
    assert [c.path for c in videos.left_out] == ["a/1.avi", "b/2.avi"] and len(videos.train) == 8
    assert caplog.messages == ["video_folder: 2 clips do not decode, not used to train and validate: a/1.avi, b/2.avi"]
    with pytest.raises(DataError, match=r"2 training clips do not decode, video.max_failed is 1: .*a/1\.avi"):
        load("video_folder", root, max_failed=1)
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no training clip is left of b; 5 clips do not decode: .*b/0\.avi: .*0 bytes"):
        load("video_folder", root)


FOLDERS = {
    "absent": (lambda root: None, "no such folder"),
    "empty": (lambda root: root.mkdir(), "no class folders with videos"),
    "flat": (lambda root: clip(root / "a.avi"), "no class folders with videos"),
    "all deeper": (lambda root: fill(root, **{"a/x": 1, "b/x": 1}), "no class folders .* of a, b lie deeper"),
    "one deeper": (
        lambda root: fill(root, **{"a/sub": 2, "b": 5, "c": 5}),
        "no videos in the class folder a .* those of a lie deeper: move them up",
    ),
    "two empty": (
        lambda root: [fill(root, b=5, d=5), (root / "a").mkdir(), (root / "c").mkdir()],
        "no videos in 2 class folders: a, c .* fill or remove",
    ),
    "empty in test": (
        lambda root: [fill(root / "train", a=1, b=1), fill(root / "test", a=1), (root / "test" / "b").mkdir()],
        "test: no videos in the class folder b",
    ),
    "stray": (lambda root: [fill(root, a=5, b=5), clip(root / "x.avi")], "1 video outside the class folders.* x.avi"),
    "one class": (lambda root: fill(root, a=5), "expected two classes or more, found 1 class: a"),
    "no train": (lambda root: clip(root / "test" / "a" / "0.avi"), "no train/"),
    "strange": (
        lambda root: [fill(root / "train", a=1), fill(root / "test", b=1)],
        "no training videos of b",
    ),
    "few files": (lambda root: fill(root, a=3, b=4), "no test clip: .* every fifth file .* train/ and test/"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_wrong(tmp_path: Path, case: str) -> None:
    make, message = FOLDERS[case]
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        load("video_folder", tmp_path / "set")


@pytest.mark.parametrize("name", ["video_folder", "video_list"])
def test_a_root_is_needed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        load(name, None)


def test_folders_of_frames_are_clips_of_their_class(tmp_path: Path) -> None:
    for name in ("run", "walk"):
        for number in range(5):
            for frame in range(number + 2):
                path = tmp_path / "set" / name / f"clip {number}" / f"{frame}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (9, 9, 9)).save(path)
    clip(tmp_path / "set" / "walk" / "z.avi")
    videos = load("video_folder", tmp_path / "set")
    assert {c.path: c.frames for c in videos.index.clips if c.path.startswith("run")} == {
        f"run/clip {number}": number + 2 for number in range(5)
    }
    assert paths(videos, "test") == ["run/clip 4", "walk/clip 4"] and len(videos.train) == 9
