"""Frame accuracy on files made with real codecs. Every picture carries its own number as a row of black and
white blocks, so a frame that is off by one cannot pass; pixels are also compared with a plain full
decoding."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vcreg_hub.data.video.decode import decode_frames, measure, write_video
from vcreg_hub.errors import DataError

BITS = 8


def numbered(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(count, height, width, 3): each frame shows its index in binary along the top and a drifting ramp
    below."""
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    block = width // BITS
    ramp = np.add.outer(np.arange(height), np.arange(width))
    for index in range(count):
        frames[index] = ((ramp + 3 * index) % 200 + 20)[..., None]
        for bit in range(BITS):
            frames[index, :32, bit * block : (bit + 1) * block] = 235 if index >> bit & 1 else 20
    return frames


def number_shown(picture: torch.Tensor) -> int:
    block = picture.shape[1] // BITS
    centres = picture[8:24, :, 0].float().reshape(16, BITS, block)[:, :, 4:-4].mean(dim=(0, 2))
    return sum(1 << bit for bit, value in enumerate(centres) if value > 128)


def full_decoding(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_variable_rate(path: Path, frames: np.ndarray) -> None:
    """H.264 in MP4 with B-frames and gaps between time stamps that grow."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "2", "g": "15"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stamp = 0
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp, stream.codec_context.time_base
            stamp += 20 + 7 * (index % 9)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "plain.avi": lambda path, frames: write_video(path, frames),
    "long_gop.avi": lambda path, frames: write_video(path, frames, gop=250),
    "b_frames.avi": lambda path, frames: write_video(path, frames, b_frames=2),
    "b_frames.mp4": lambda path, frames: write_video(path, frames, b_frames=2),
    "-variable [rate] #1;&!.mp4": write_variable_rate,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_frame_is_the_one_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, numbered(50))
    full = full_decoding(path)
    assert measure(path) == (50, 96, 128) and len(full) == 50
    for indices in ([0], [49], [17, 3, 3, 40], list(range(50)), list(range(11, 43, 2))):
        frames = decode_frames(path, indices)
        assert frames.dtype == torch.uint8 and frames.shape == (len(indices), 96, 128, 3)
        assert [number_shown(picture) for picture in frames] == indices
        assert all(np.array_equal(picture, full[i]) for picture, i in zip(frames, indices, strict=True))


def test_the_files_called_b_frames_have_some(tmp_path: Path) -> None:
    path = tmp_path / "b.avi"
    write_video(path, numbered(20), b_frames=2)
    with av.open(str(path)) as container:
        kinds = [frame.pict_type for frame in container.decode(video=0)]
    assert av.video.frame.PictureType.B in kinds


@pytest.mark.parametrize("length", [1, 2, 5, 15])
def test_very_short_videos(tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.avi"
    write_video(path, numbered(length))
    assert measure(path).frames == length
    assert [number_shown(p) for p in decode_frames(path, range(length))] == list(range(length))


def test_a_truncated_avi_counts_what_decodes_not_what_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    write_video(path, numbered(90))
    os.truncate(path, path.stat().st_size // 2)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 90  # the promise this test is about
    count = measure(path).frames
    assert 20 < count < 80 and count == len(full_decoding(path))
    assert number_shown(decode_frames(path, [count - 1])[0]) == count - 1
    with pytest.raises(DataError, match=rf"frame 89 was asked for, but only {count} decode"):
        decode_frames(path, [0, 89])


def test_damaged_packets_keep_count_and_decoding_in_step(tmp_path: Path) -> None:
    path = tmp_path / "damaged.avi"
    write_video(path, numbered(60))
    content = bytearray(path.read_bytes())
    start = content.index(b"movi")
    draws = np.random.default_rng(0)
    for position in draws.integers(start + 2000, len(content) - 4000, size=200):
        content[position] ^= 0xFF
    path.write_bytes(bytes(content))
    count = measure(path).frames
    everything = decode_frames(path, range(count))
    assert torch.equal(decode_frames(path, [count - 1, 7]), everything[[count - 1, 7]])


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "there is no such file"),
    "folder": (lambda path: path.mkdir(), "there is no such file"),
    "zero bytes": (lambda path: path.touch(), "0 bytes"),
    "web page": (lambda path: path.write_text("<html>404 not found</html>" * 40), "not a video"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(4000)), "not a video"),
    "audio only": (audio_only, "no video stream"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_video_is_a_data_error_that_names_it(tmp_path: Path, case: str) -> None:
    make, message = BROKEN[case]
    path = tmp_path / "clip [1].avi"
    make(path)
    for read in (measure, lambda p: decode_frames(p, [0])):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_header_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.avi"
    write_video(path, numbered(10))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(DataError):
        measure(path)


def test_a_playlist_under_a_false_name_opens_no_network_address(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError):
        measure(path)


def test_writing_refuses_other_arrays_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "x.avi", np.zeros((2, 32, 32, 3)))
    assert not list(tmp_path.iterdir())


def test_indices_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one index"):
        decode_frames(tmp_path / "x.avi", [])
