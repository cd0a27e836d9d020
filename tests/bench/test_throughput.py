"""The benchmark measures what it says; its numbers depend on the machine and are not tested."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vcreg_hub.bench import throughput as bench
from vcreg_hub.bench.throughput import render, throughput
from vcreg_hub.cli import app, main
from vcreg_hub.data.video.action_shapes import ActionShapes
from vcreg_hub.data.video.decode import decode_frames, write_video
from vcreg_hub.data.video.decoders import DECODERS
from vcreg_hub.errors import UsageError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LIKE_HMDB51", ActionShapes(height=32, width=48, min_frames=20, max_frames=40))


def test_a_slower_decoder_is_reported_as_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path, indices: list[int]):
        time.sleep(0.05)
        return decode_frames(path, indices)

    monkeypatch.setitem(DECODERS, "torchcodec", slow)
    monkeypatch.setitem(DECODERS, "decord", lambda path, indices: decode_frames(path, indices)[:0])
    result = throughput(clips=8, rounds=3, size=16)
    rows = {row["decoder"]: row for row in result["rows"]}
    assert rows["torchcodec"]["of_pyav"] < 0.8 and rows["torchcodec"]["clips_per_second"] < 20
    assert rows["torchcodec"]["exact_files"] == result["files"] == 4
    assert rows["pyav"]["of_pyav"] == 1.0
    assert rows["decord"]["exact_files"] == 0, "refused on every file, so PyAV did its work"
    assert json.loads(json.dumps(result)) == result
    text = render(result)
    assert "| torchcodec | 0 |" in text and "4 of 4" in text and "0 of 4" in text


def test_workers_and_missing_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, indices: list[int]):
        raise ImportError("no module")

    monkeypatch.setitem(DECODERS, "decord", missing)
    result = throughput(decoders=("pyav", "decord"), workers=(1,), clips=4, rounds=1, size=16)
    by_name = {row["decoder"]: row for row in result["rows"]}
    assert "does not work here" in by_name["decord"]["missing"]
    assert by_name["pyav"]["workers"] == 1 and by_name["pyav"]["clips_per_second"] > 0
    assert "| decord | - | not here |" in render(result)


def test_the_command(tmp_path: Path) -> None:
    good, broken = tmp_path / "set" / "-a [1]#.avi", tmp_path / "set" / "broken.avi"
    good.parent.mkdir()
    write_video(good, np.zeros((12, 16, 32, 3), dtype=np.uint8))
    broken.write_bytes(b"")
    out = tmp_path / "speed.json"
    options = ["--decoder", "pyav", "--workers", "0", "--workers", "1", "--clips", "4", "--rounds", "2", "--size", "16"]
    command = ["bench", "throughput", "--folder", str(good.parent), "--out", str(out), *options]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "| pyav | 0 |" in shown.stdout and "| pyav | 1 |" in shown.stdout and "1 of 1" in shown.stdout
    assert "1 files do not decode, such as broken.avi" in shown.stdout
    result = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert result["env"]["device"] and result["libraries"]["av"] == version("av")
    assert [row["workers"] for row in result["rows"]] == [0, 1] and result["clips"] == 4 and result["rounds"] == 2
    assert json.loads(out.read_text()).keys() == result.keys()


@pytest.mark.parametrize("options", [["--decoder", "cv2"], ["--folder", "{tmp}"], ["--rounds", "0"]])
def test_refusals_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, options: list[str]) -> None:
    command = ["vcreg", "bench", "throughput", *(word.format(tmp=tmp_path) for word in options)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_nothing_that_decodes(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"x")
    with pytest.raises(UsageError, match="none of 1 videos decodes"):
        throughput(tmp_path)


def test_a_folder_without_videos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no videos"):
        throughput(tmp_path)
