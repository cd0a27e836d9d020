"""Frames out of a video file, exact by construction: decode from the start and count.

Seeking by time stamp is off by one on AVI files with B-frames and a header's frame count is only a promise (a
truncated AVI still claims its full length and ends without an error), so neither is used. A frame's index
is its position in the sequence that decoding from the start yields; `measure` and `decode_frames`
share that sequence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError, VCRegError

# A file that names other files (a playlist under a false extension) must not make the decoder open a
# network address.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}


class UnreadableVideoError(DataError):
    """A video without the frames asked for; the message names the file.

    A loader's worker process hands its exception over as a printed traceback and the main process builds a
    new one from that text: the last line, which is ours, is what a person needs.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


class _Measured(NamedTuple):
    """What a file holds: how many frames decode, and the size of the first one in pixels."""

    frames: int
    height: int
    width: int


def measure(path: str | Path) -> _Measured:
    """Count the frames by decoding them all. UnreadableVideoError when the file yields none."""
    with _opened(path) as (container, stream):
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is None:
            raise UnreadableVideoError(f"{path}: no frame decodes (the header promises {stream.frames})")
        return _Measured(1 + sum(1 for _ in frames), first.height, first.width)


def decode_frames(path: str | Path, indices: Sequence[int]) -> Tensor:
    """The frames at `indices` (any order, repeats allowed), uint8 (len(indices), h, w, 3) RGB.

    Every frame has the size of the first one asked for, also where the stream changes size on the way.
    Raises UnreadableVideoError when the file cannot be read or ends before the largest index.
    """
    if not indices or min(indices) < 0:
        raise ValueError(f"expected at least one index, none negative; got {list(indices)}")
    wanted, last = set(indices), max(indices)
    pictures: dict[int, np.ndarray] = {}
    count = 0
    with _opened(path) as (container, stream):
        to_rgb = _Converter()
        for count, frame in enumerate(_frames(container, stream), start=1):
            if count - 1 in wanted:
                pictures[count - 1] = to_rgb(frame)
            if count > last:
                break
    if count <= last:
        raise UnreadableVideoError(f"{path}: frame {last} was asked for, but only {count} decode")
    return torch.from_numpy(np.stack([pictures[index] for index in indices]))


class _Converter:
    """Frames to RGB arrays (h, w, 3) of the first one's size. One converter for a file: setting one up for
    each frame, as `frame.to_ndarray` does, takes longer than converting."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._size: dict[str, int] = {}

    def __call__(self, frame: Any) -> np.ndarray:
        self._size = self._size or {"width": frame.width, "height": frame.height}
        return self._reformatter.reformat(frame, format="rgb24", **self._size).to_ndarray()


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; what the library refuses is an UnreadableVideoError."""
    try:
        import av
    except ImportError as error:
        raise VCRegError("decoding video needs PyAV: pip install 'vcreg_hub[video]'") from error

    # An absolute path, so that a name such as "a:b.avi" is not taken for a protocol.
    absolute = os.path.abspath(path)
    if not os.path.isfile(absolute):
        raise UnreadableVideoError(f"{path}: there is no such file")
    if os.path.getsize(absolute) == 0:
        raise UnreadableVideoError(f"{path}: the file is empty (0 bytes)")
    try:
        with av.open(absolute, options=_OPEN_OPTIONS) as container:
            if not container.streams.video:
                raise UnreadableVideoError(f"{path}: the file has no video stream")
            stream = container.streams.video[0]
            # One thread a decoder: parallelism comes from the loader's worker processes.
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise UnreadableVideoError(
            f"{path}: not a video that can be decoded ({type(error).__name__}: {error})"
        ) from error


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame that decodes, in display order. A packet that does not decode is passed over, as players
    do; it is passed over in each reading alike, so indices stay the same."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def write_video(
    path: str | Path,
    frames: np.ndarray,
    *,
    fps: int = 30,
    gop: int = 12,
    b_frames: int = 0,
    bit_rate: int = 800_000,
) -> None:
    """Write uint8 (t, h, w, 3) RGB frames as MPEG-4 (XVID), the kind of file HMDB51 holds; the container
    follows the suffix. Written under another name first, so that no half-made clip is left behind.

    gop: frames from one keyframe to the next. b_frames: at most this many B-frames between reference frames.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 frames of shape (t, h, w, 3), got {frames.dtype} {frames.shape}")
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with av.open(os.path.abspath(partial), "w") as container:
            stream = container.add_stream("mpeg4", rate=fps)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = bit_rate
            stream.codec_context.gop_size = gop
            stream.codec_context.max_b_frames = b_frames
            if path.suffix == ".avi":
                stream.codec_context.codec_tag = "XVID"
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
