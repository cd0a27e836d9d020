"""Counting frames: what the journal of an interrupted count is believed, and when it is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.data.video import index
from vcreg_hub.data.video.decode import measure, write_video
from vcreg_hub.data.video.index import Clip, measured

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
    monkeypatch.setattr(index, "measure", lambda path: (seen.append(path.name), measure(path))[1])
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
