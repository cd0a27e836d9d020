"""The set is what it says: motion alone separates the classes, and the layout is HMDB51's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.data.video import action_shapes
from vcreg_hub.data.video.action_shapes import CLASSES, MOTIONS, ActionShapes, _Motion, _render, make
from vcreg_hub.data.video.decode import decode_frames, measure, write_video
from vcreg_hub.errors import ConfigError, DataError

SMALL = ActionShapes(sources=9, clips_per_source=2, height=32, width=48)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shapes") / "set", SMALL)


def test_classes_come_in_opposites_so_that_backwards_is_another_class() -> None:
    motions = set(MOTIONS.values())
    assert all(tuple(-step for step in motion) in motions for motion in motions)
    motion = _Motion(x=3.5, y=20.25, angle=0.3, dx=1.5, dy=-0.75, turn=0.1)
    forwards = _render(SMALL, 4, motion, 20)
    backwards = _render(SMALL, 4, motion.reversed(20), 20)
    assert np.abs(forwards[::-1].astype(int) - backwards.astype(int)).max() <= 1  # rounding only
    assert np.abs(forwards[::-1].astype(int) - forwards.astype(int)).mean() > 2


def test_one_frame_says_nothing_about_the_class() -> None:
    """A sliding clip's frame equals a spinning clip's frame with the same centre and angle."""
    sliding = _render(SMALL, 2, _Motion(x=10, y=8, angle=1.0, dx=2, dy=0, turn=0), 12)
    for frame in (0, 5, 11):
        spinning = _render(SMALL, 2, _Motion(x=10 + 2 * frame, y=8, angle=1.0 - 0.2 * 3, dx=0, dy=0, turn=0.2), 12)
        assert np.array_equal(sliding[frame], spinning[3])


def test_the_shape_moves_the_way_its_class_says() -> None:
    """Independent of the renderer's own geometry: the shift that best aligns neighbouring frames where they
    differ."""
    for label, name in enumerate(CLASSES):
        right, down, turn = MOTIONS[name]
        if turn:
            continue
        found = np.zeros(2)
        for source in range(6):
            clip = action_shapes.draw_clip(dataclasses.replace(SMALL, min_frames=12), label, source, 0).astype(float)
            moving = clip - np.median(clip, axis=0)
            for first, second in zip(moving[:-2], moving[2:], strict=True):
                shifts = [(dx, dy) for dx in range(-6, 7) for dy in range(-6, 7)]
                match = [(np.roll(first, (dy, dx), (0, 1)) * second).sum() for dx, dy in shifts]
                found += shifts[int(np.argmax(match))]
        assert np.argmax(np.abs(found)) == (0 if right else 1)
        assert np.sign(found[0 if right else 1]) == right + down


def test_a_compound_set_has_other_motions_and_other_shapes(tmp_path: Path) -> None:
    compound = dataclasses.replace(SMALL, sources=4, clips_per_source=1, compound=True)
    motions = compound.motions
    assert len(set(motions.values())) == len(motions) == 12
    assert not set(motions.values()) & set(MOTIONS.values()) and not set(motions) & set(CLASSES)
    assert all(tuple(-step for step in motion) in motions.values() for motion in motions.values())
    still = _Motion(x=10, y=8, angle=1.0, dx=0, dy=0, turn=0)
    simple = dataclasses.replace(compound, compound=False)
    shapes = [_render(spec, source, still, 1) for spec in (simple, compound) for source in range(4)]
    assert all(np.abs(a.astype(int) - b).mean() > 5 for i, a in enumerate(shapes) for b in shapes[:i])
    found = make(tmp_path / "set", compound)
    assert sorted(path.name for path in (found / "videos").iterdir()) == sorted(motions)
    with pytest.raises(DataError, match="choose another folder"):
        make(tmp_path / "set", simple)


def test_layout_and_names(root: Path) -> None:
    names = []
    for name in CLASSES:
        clips = sorted(path.name for path in (root / "videos" / name).iterdir())
        assert len(clips) == 18
        names += clips
        for split in (1, 2, 3):
            lines = (root / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt").read_text().splitlines()
            assert all(line.endswith(" ") for line in lines)
            assert sorted(line.split(" ")[0] for line in lines) == clips
            flags = [int(line.split(" ")[1]) for line in lines]
            assert (flags.count(1), flags.count(2), flags.count(0)) == (10, 6, 2)
    assert len(set(names)) == len(names)
    assert all(any(mark in name for name in names) for mark in "[]#&;!()+~")
    assert any(name.startswith("-") for name in names) and not any(" " in name for name in names)


def test_splits_part_sources_and_differ() -> None:
    tests = [{s for s in range(20) if action_shapes._flag(ActionShapes(), s, split) == 2} for split in (1, 2, 3)]
    assert all(len(test) == 6 for test in tests) and len(set.union(*tests)) > 12
    for spec in (SMALL, ActionShapes(sources=4)):
        for split in (1, 2, 3):
            flags = {action_shapes._flag(spec, source, split) for source in range(spec.sources)}
            assert {1, 2} <= flags


def test_the_files_decode_to_what_was_drawn(root: Path) -> None:
    drawn = action_shapes.draw_clip(SMALL, 2, 5, 1)
    path = root / "videos" / "slide_right" / action_shapes._clip_name("slide_right", 5, 1)
    assert measure(path).frames == len(drawn)
    # in brightness, since the codec keeps colour at half the resolution of these few pixels
    grey = np.array([0.299, 0.587, 0.114])
    decoded = decode_frames(path, range(len(drawn))).numpy() @ grey
    distance = np.abs(decoded[:, None] - (drawn @ grey)[None]).mean(axis=(2, 3))
    assert (distance.argmin(axis=1) == np.arange(len(drawn))).all() and distance.diagonal().max() < 8


def test_seeded_and_repeatable(root: Path, tmp_path: Path) -> None:
    first = action_shapes.draw_clip(SMALL, 0, 0, 0)
    assert np.array_equal(first, action_shapes.draw_clip(SMALL, 0, 0, 0))
    other = action_shapes.draw_clip(dataclasses.replace(SMALL, seed=1), 0, 0, 0)
    assert first.shape != other.shape or not np.array_equal(first, other)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")}
    assert make(root, SMALL) == root
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")}


def test_another_set_or_other_files_in_the_folder_are_not_overwritten(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an action_shapes set of seed 0, not seed 1; choose another folder"):
        make(root, dataclasses.replace(SMALL, seed=1))
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        make(tmp_path, SMALL)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_an_interrupted_attempt_starts_over_and_nobody_s_videos_are_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "footage" / "videos" / "holiday.avi"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    with pytest.raises(DataError, match="not empty"):
        make(tmp_path / "footage", SMALL)
    assert theirs.read_bytes() == b"mine" and len(list((tmp_path / "footage").iterdir())) == 1

    written: list[Path] = []

    def stops(path: Path, frames: np.ndarray) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_video(path, frames)

    monkeypatch.setattr(action_shapes, "write_video", stops)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set", SMALL)
    monkeypatch.setattr(action_shapes, "write_video", write_video)
    assert files_below(make(tmp_path / "set", SMALL)) == files_below(make(tmp_path / "whole", SMALL))


def files_below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("wrong", [{"sources": 2}, {"height": 15}, {"width": 33}, {"min_frames": 9, "max_frames": 3}])
def test_impossible_sets_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ActionShapes(**wrong)
