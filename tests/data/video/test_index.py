"""Counting frames: what the journal of an interrupted count is believed, and when it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.data.video import index
from vcreg_hub.data.video.decode import measure, write_video
from vcreg_hub.data.video.index import Clip, VideoIndex, measured, read_index, write_index

NAMES = ("-a [1].avi", "b#&;.avi", "broken.avi", "d.avi")


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    for length, name in enumerate(NAMES, start=3):
        write_video(tmp_path / name, np.zeros((length, 16, 32, 3), dtype=np.uint8))
    (tmp_path / "broken.avi").write_bytes(b"")
    return [Clip(name, 0, name, (1,)) for name in NAMES]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(index, "measure", lambda path, *part: (seen.append(path.name), measure(path, *part))[1])
    return seen


@pytest.mark.parametrize("workers", [0, 2, 1000])
def test_counts_in_order_with_progress(tmp_path: Path, clips: list[Clip], workers: int) -> None:
    told: list[tuple[int, int]] = []
    found = measured(tmp_path, clips, workers, tmp_path / "journal", lambda *now: told.append(now))
    assert [clip.path for clip in found] == list(NAMES)
    assert [(clip.frames, clip.height, clip.width) for clip in found] == [
        (3, 16, 32),
        (4, 16, 32),
        (0, 0, 0),
        (6, 16, 32),
    ]
    assert "0 bytes" in found[2].error and not any(clip.error for clip in found[:2])
    assert told == [(done, 4) for done in range(5)]
    assert found == measured(tmp_path, clips)


def test_a_journal_is_believed_for_unchanged_files_only(tmp_path: Path, clips: list[Clip], decoded: list[str]) -> None:
    journal = tmp_path / "journal"
    first = measured(tmp_path, clips, 0, journal)
    assert decoded == list(NAMES)
    with journal.open("a") as file:
        file.write('["d.avi", 12')  # a kill in the middle of a line
    told: list[tuple[int, int]] = []
    assert measured(tmp_path, clips, 0, journal, lambda *now: told.append(now)) == first
    assert decoded == list(NAMES) and told == [(4, 4)]
    write_video(tmp_path / "broken.avi", np.zeros((9, 16, 32, 3), dtype=np.uint8))
    (tmp_path / "d.avi").unlink()
    found = measured(tmp_path, clips, 0, journal)
    assert decoded[4:] == ["broken.avi", "d.avi"]
    assert found[2].frames == 9 and not found[2].error and "no such file" in found[3].error
    write_video(tmp_path / "d.avi", np.zeros((6, 16, 32, 3), dtype=np.uint8))
    assert measured(tmp_path, clips, 0, journal)[3].frames == 6


def test_another_pyav_counts_anew(tmp_path: Path, clips: list[Clip], decoded: list[str]) -> None:
    journal = tmp_path / "journal"
    measured(tmp_path, clips, 0, journal)
    lines = journal.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"av": "0.0"})
    journal.write_text("\n".join(lines) + "\n")
    measured(tmp_path, clips, 0, journal)
    assert decoded == list(NAMES) * 2


def test_clips_with_fewer_frames_than_their_headers_say_are_counted_and_reported(tmp_path: Path) -> None:
    for length, name in ((40, "whole.avi"), (60, "short.avi"), (60, "shorter.avi")):
        write_video(tmp_path / name, np.random.RandomState(0).randint(0, 255, (length, 32, 32, 3)).astype(np.uint8))
    for name, kept in (("short.avi", 0.9), ("shorter.avi", 0.5)):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    clips = [Clip(name, 0, name, (1,)) for name in ("whole.avi", "short.avi", "shorter.avi")]
    found = VideoIndex("mine", tmp_path, ("a",), measured(tmp_path, clips, 0, tmp_path / "journal"), {})
    assert [clip.promised for clip in found.clips] == [40, 60, 60]
    assert [clip.path for clip in found.cut_short()] == ["short.avi", "shorter.avi"]
    frames = found.clips[2].frames
    line = "with fewer frames than the header says: 2 clips, the shortest by its header shorter.avi"
    assert f"{line} ({frames} of 60)" in found.summary() and 0 < frames < 40
    assert measured(tmp_path, clips, 0, tmp_path / "journal") == found.clips, "the journal keeps it"
    write_index(tmp_path, found)
    assert read_index(tmp_path).clips == found.clips


def test_an_index_of_before_is_read(tmp_path: Path, clips: list[Clip]) -> None:
    """Without what headers promise, and parts of files."""
    from pyarrow import parquet

    found = VideoIndex("mine", tmp_path, ("a",), measured(tmp_path, clips), {})
    write_index(tmp_path, found)
    table = parquet.read_table(tmp_path / index.INDEX)
    parquet.write_table(table.drop_columns(["promised", "start", "end", "first"]), tmp_path / index.INDEX)
    assert read_index(tmp_path).clips == tuple(replace(clip, promised=0) for clip in found.clips)
