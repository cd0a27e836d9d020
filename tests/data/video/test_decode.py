"""Frame accuracy on files made with real codecs. Every picture carries its own number as a row of black and
white blocks, so a frame that is off by one cannot pass; pixels are also compared with a plain full
decoding."""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from data.mutations import mutated, outcomes
from PIL import Image

from vcreg_hub.data.video import decode
from vcreg_hub.data.video.decode import UnreadableVideoError, decode_frames, measure, write_video
from vcreg_hub.data.video.folder import SUFFIXES
from vcreg_hub.data.video.transforms import resize_short
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
    assert measure(path)[:3] == (50, 96, 128) and len(full) == 50
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


# ---- what a container says besides its frames ----


def patched(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_metadata_that_is_not_utf8_costs_no_video(tmp_path: Path) -> None:
    path = tmp_path / "latin.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf_ au lait"
        stream = container.add_stream("mpeg4", rate=30, width=32, height=32, pix_fmt="yuv420p")
        for picture in numbered(4, 32, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    patched(path, b"caf_ au", b"caf\xe9 au")
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass  # what is passed over
    assert measure(path).frames == len(decode_frames(path, range(4))) == 4


def test_an_unknown_codec_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    write_video(path, numbered(5))
    patched(path, b"XVID", b"ZZZZ")
    for read in (measure, lambda p: decode_frames(p, [0])):
        with pytest.raises(UnreadableVideoError, match=r"odd\.avi: no decoder is known for its video stream"):
            read(path)


UNIT = 1 << 16
# A display matrix (a, b, c, d) of MP4, and how NumPy turns the stored picture to what players show.
ROTATIONS = {
    "phone held upright": ((0, UNIT, -UNIT, 0), -1),
    "phone upside down": ((0, -UNIT, UNIT, 0), 1),
    "camera upside down": ((-UNIT, 0, 0, -UNIT), 2),
    "not turned": ((UNIT, 0, 0, UNIT), 0),
    "half a right angle": ((46341, 46341, -46341, 46341), 0),
}


@pytest.mark.parametrize("case", ROTATIONS)
def test_frames_are_turned_as_the_file_says(tmp_path: Path, case: str) -> None:
    (a, b, c, d), turns = ROTATIONS[case]
    path = tmp_path / "clip.mp4"
    write_video(path, numbered(3, 64, 96))
    stored = full_decoding(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # past version, times, id, duration, layer and volume
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    shown = decode_frames(path, [0, 2]).numpy()
    assert np.array_equal(shown, np.stack([np.rot90(stored[i], turns) for i in (0, 2)]))
    assert measure(path)[:3] == (3, *shown.shape[1:3])


@pytest.mark.parametrize("name", ["clip.ts", "clip.mts", "clip.m2ts"])
def test_transport_streams_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25, width=128, height=96, pix_fmt="yuv420p")
        for picture in numbered(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert path.suffix in SUFFIXES
    assert measure(path) == (20, 96, 128, 0, 0), "its header promises nothing"
    assert [number_shown(p) for p in decode_frames(path, [0, 7, 19])] == [0, 7, 19]
    # Its clock does not begin at zero; seconds are counted from the first frame all the same.
    assert measure(path, 0.4, 0.6) == (5, 96, 128, 0, 10)


def test_a_part_is_taken_by_seconds(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, numbered(60), b_frames=2)  # 30 frames a second
    found = measure(path, 0.5, 1.0)
    assert (found.frames, found.first, found.promised) == (15, 15, 0)
    assert number_shown(decode_frames(path, [found.first])[0]) == 15
    assert measure(path, None, 0.5)[0::4] == (15, 0) and measure(path, 1.5)[0::4] == (15, 45)
    with pytest.raises(UnreadableVideoError, match=r"clip\.avi: no frame from second 9 on; the last one is at 1\.97"):
        measure(path, 9.0)


def test_a_folder_of_images_is_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    frames = numbered(12)
    for index, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{index + 1}.png")
    assert measure(folder)[:3] == (12, 96, 128)
    assert np.array_equal(decode_frames(folder, [9, 0, 11]), frames[[9, 0, 11]]), "10.png comes after 9.png"
    (folder / "4.png").write_bytes(b"no image")
    with pytest.raises(UnreadableVideoError, match=r"clip: .*4\.png does not decode as an image"):
        measure(folder)
    (folder / "4.png").unlink()
    with pytest.raises(UnreadableVideoError, match="have no times"):
        measure(folder, 0.5)


def test_frames_shrink_as_they_are_decoded_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, numbered(24, 96, 130))
    indices = [3, 20, 20, 11]
    for antialias in (True, False):
        for interpolation in ("bilinear", "bicubic", "nearest"):
            for short in (24, 97):
                shrink = partial(resize_short, short=short, interpolation=interpolation, antialias=antialias)
                whole = shrink(decode_frames(path, indices).permute(0, 3, 1, 2))
                assert torch.equal(decode_frames(path, indices, shrink), whole)


def test_one_frame_at_a_time_is_held_in_its_full_size(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, numbered(24))
    seen: list[weakref.ref[torch.Tensor]] = []

    def shrink(frame: torch.Tensor) -> torch.Tensor:
        seen.append(weakref.ref(frame))
        assert sum(one() is not None for one in seen) == 1
        return resize_short(frame, 24)

    assert decode_frames(path, range(24), shrink).shape == (24, 3, 24, 32) and len(seen) == 24


def test_a_header_that_claims_huge_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, numbered(3))
    monkeypatch.setattr(decode, "_MOST_PIXELS", 96 * 128 - 1)
    with pytest.raises(UnreadableVideoError, match=r"frames of 128 x 96 pixels, more than the 12,287 that are read"):
        measure(path)


def test_mutated_videos_are_read_or_refused(tmp_path: Path) -> None:
    """200 AVI and 100 MP4 files, half of the latter H.264, damaged by a seed; none may hang or raise anything else."""
    made = {"b_frames.avi": 120, "plain.avi": 80, "b_frames.mp4": 50, "-variable [rate] #1;&!.mp4": 50}
    videos = tmp_path / "mutated"
    videos.mkdir()
    for name, count in made.items():
        path, frames = tmp_path / name, numbered(8, 32, 48)
        WRITERS[name](path, frames)
        for seed in range(count):
            (videos / f"{seed:03}-{name[:6].strip()}{path.suffix}").write_bytes(mutated(path.read_bytes(), seed))
    found = outcomes(videos, "video.decode", "measure", "UnreadableVideoError")
    assert len(found) == 300 and set(found.values()) == {"read", "refused"}
