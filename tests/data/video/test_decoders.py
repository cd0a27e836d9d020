"""A decoder is used for the files on which it is right, and only for those."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from data.video.test_decode import number_shown, numbered

from vcreg_hub.data.video import decoders as video_decoders
from vcreg_hub.data.video.decode import UnreadableVideoError, decode_frames, write_video
from vcreg_hub.data.video.decoders import DECODERS, Decoder, _is_exact
from vcreg_hub.errors import ConfigError, UnknownNameError

WRONG = {
    "one off": lambda path, indices: decode_frames(path, [max(i - 1, 0) for i in indices]),
    "last wrong": lambda path, indices: torch.cat([decode_frames(path, indices[:-1]), decode_frames(path, [0])]),
    "wrong after a jump": lambda path, indices: decode_frames(path, [max(i - (indices[0] > 2), 0) for i in indices]),
    "too few": lambda path, indices: decode_frames(path, indices)[:-1],
    "raising": lambda path, indices: (_ for _ in ()).throw(RuntimeError("no more frames")),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "clip [1].avi"
    write_video(path, numbered(30))
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A decoder under the name of torchcodec that is exact, and the paths it was asked for."""
    asked: list[Path] = []

    def exact(path: Path, indices: list[int]) -> torch.Tensor:
        asked.append(Path(path))
        return decode_frames(path, indices)

    monkeypatch.setitem(DECODERS, "torchcodec", exact)
    return asked


def test_an_exact_decoder_is_tested_once_and_then_used(path: Path, calls: list[Path]) -> None:
    decode = Decoder("torchcodec")
    calls.clear()
    for _ in range(3):
        assert [number_shown(frame) for frame in decode(path, [7, 3])] == [7, 3]
    assert calls == [path] * (16 + 3) and decode.exact == {str(path)} and not decode.refused


def test_a_file_that_changes_after_its_test_is_read_as_it_is_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(path: Path, indices: list[int]) -> torch.Tensor:
        try:
            return decode_frames(path, indices)
        except UnreadableVideoError:
            raise RuntimeError("an error of another library") from None

    monkeypatch.setitem(DECODERS, "torchcodec", foreign)
    decode = Decoder("torchcodec")
    assert [number_shown(frame) for frame in decode(path, [7, 3])] == [7, 3]
    write_video(path, numbered(5))
    with pytest.raises(UnreadableVideoError, match="frame 7 was asked for, but only 5 decode"):
        decode(path, [7, 3])
    path.unlink()
    with pytest.raises(UnreadableVideoError, match="no such file"):
        decode(path, [3])


def test_small_differences_of_colour_are_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounding = lambda p, i: decode_frames(p, i).int().add(1).clamp(0, 255).byte()  # noqa: E731
    monkeypatch.setitem(DECODERS, "torchcodec", rounding)
    assert _is_exact(path, "torchcodec")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_decoder_is_refused_for_that_file(path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(video_decoders, "_check_works", lambda name: None)
    monkeypatch.setitem(DECODERS, "decord", WRONG[case])
    decode = Decoder("decord")
    assert [number_shown(frame) for frame in decode(path, [3, 12, 29])] == [3, 12, 29]
    assert decode.refused == {str(path)}


def test_a_broken_file_is_an_error_with_any_decoder(tmp_path: Path, calls: list[Path]) -> None:
    (tmp_path / "x.avi").write_bytes(b"")
    with pytest.raises(UnreadableVideoError, match="0 bytes"):
        Decoder("torchcodec")(tmp_path / "x.avi", [0])


def test_a_decoder_that_is_not_there_or_has_no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ConfigError, match=r"video\.decoder=decord does not work here; it needs decord2"):
        Decoder("decord")
    monkeypatch.setitem(DECODERS, "torchcodec", WRONG["raising"])
    with pytest.raises(ConfigError, match=r"FFmpeg's libraries .*\[decoders\]'\): no more frames"):
        Decoder("torchcodec")
    with pytest.raises(UnknownNameError, match="pyav"):
        Decoder("opencv")


@pytest.mark.parametrize("name", ["torchcodec", "decord"])
def test_the_real_libraries_where_installed(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    try:
        decode = Decoder(name)
    except ConfigError as error:
        pytest.skip(str(error))
    for b_frames in (0, 2):
        path = tmp_path / f"{b_frames}.avi"
        write_video(path, numbered(50), b_frames=b_frames)
        for start in range(0, 40, 3):
            run = list(range(start, start + 10, 2))
            assert [number_shown(frame) for frame in decode(path, run)] == run
    assert "0.avi" in str(decode.exact), "used at least where it is easy"
