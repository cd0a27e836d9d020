"""Frames out of a video file, exact by construction: decode from the start and count.

Seeking by time stamp is off by one on AVI files with B-frames and a header's frame count is only a promise (a
truncated AVI still claims its full length and ends without an error), so neither is used. A frame's index
is its position in the sequence that decoding from the start yields; `measure` and `decode_frames`
share that sequence.

Frames are turned by the quarter turns that the file's rotation says, as players show them; a mirror image or another
angle is left as it is stored. A folder of images is a video too: its frames are the images in the order of the numbers
in their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import DataError, VCRegError
from ..image.decode import UnreadableImageError, decode_file

# A file that names other files (a playlist under a false extension) must not make the decoder open a
# network address.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
# Pixels of a frame: twice those of 8K video. A damaged header may claim any size, which would be allocated.
_MOST_PIXELS = 2**26
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class UnreadableVideoError(DataError):
    """A video without the frames asked for; the message names the file.

    A loader's worker process hands its exception over as a printed traceback and the main process builds a
    new one from that text: the last line, which is ours, is what a person needs.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


class _Measured(NamedTuple):
    """What a file holds: how many frames decode, the size of the first one in pixels as it is shown, how many frames
    the header promises (0 where it says nothing), and how many frames lie before the part asked for."""

    frames: int
    height: int
    width: int
    promised: int = 0
    first: int = 0


def measure(path: str | Path, start: float | None = None, end: float | None = None) -> _Measured:
    """Count the frames by decoding them all. start, end: of the part to count, in seconds from the first frame; the
    frame at `end` is no part of it. UnreadableVideoError when the file yields none."""
    frames = before = height = width = 0
    origin, last = None, 0.0
    with _opened(path) as (decoded, promised):
        for frame in decoded:
            if start is not None or end is not None:
                time = _seconds(frame, path)
                origin = time if origin is None else origin
                last = time - origin
            if end is not None and last >= end:
                break
            if start is not None and last < start:
                before += 1
                continue
            if not frames:
                height, width = _Converter()(frame).shape[:2]
            frames += 1
    if not frames and before:
        raise UnreadableVideoError(f"{path}: no frame from second {start:g} on; the last one is at {last:.2f}")
    if not frames:
        of = "" if end is None else f" before second {end:g}"
        raise UnreadableVideoError(f"{path}: no frame decodes{of} (the header promises {promised})")
    return _Measured(frames, height, width, promised if start is None and end is None else 0, before)


def decode_frames(path: str | Path, indices: Sequence[int], shown: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The frames at `indices` (any order, repeats allowed), uint8 (len(indices), h, w, 3) RGB.

    Every frame has the size of the first one asked for, also where the stream changes size on the way. shown: what is
    kept of a frame, made as soon as it is decoded, from uint8 (1, 3, h, w) with the channels innermost in memory; the
    result is then (len(indices), ...) of those.
    Raises UnreadableVideoError when the file cannot be read or ends before the largest index.
    """
    if not indices or min(indices) < 0:
        raise ValueError(f"expected at least one index, none negative; got {list(indices)}")
    wanted, last = set(indices), max(indices)
    kept: dict[int, Tensor] = {}
    count = 0
    with _opened(path) as (frames, _):
        to_rgb = _Converter()
        for count, frame in enumerate(frames, start=1):
            if count - 1 in wanted:
                picture = torch.from_numpy(to_rgb(frame))[None]
                kept[count - 1] = picture if shown is None else shown(picture.permute(0, 3, 1, 2))
            if count > last:
                break
    if count <= last:
        raise UnreadableVideoError(f"{path}: frame {last} was asked for, but only {count} decode")
    return torch.cat([kept[index] for index in indices])


def is_frames(folder: Path) -> bool:
    """Whether a folder holds the frames of a video as images."""
    return folder.is_dir() and any(name.lower().endswith(_PICTURES) for name in os.listdir(folder))


class _Converter:
    """Frames to RGB arrays (h, w, 3) of the first one's size, upright. One converter for a file: setting one up for
    each frame, as `frame.to_ndarray` does, takes longer than converting."""

    def __init__(self) -> None:
        self._reformatter: Any = None
        self._size: dict[str, int] = {}

    def __call__(self, frame: Any) -> np.ndarray:
        if isinstance(frame, Image.Image):
            self._size = self._size or {"width": frame.width, "height": frame.height}
            size = self._size["width"], self._size["height"]
            return np.array(frame if frame.size == size else frame.resize(size, Image.Resampling.BILINEAR))
        if self._reformatter is None:
            from av.video.reformatter import VideoReformatter

            self._reformatter = VideoReformatter()
        self._size = self._size or {"width": frame.width, "height": frame.height}
        picture = self._reformatter.reformat(frame, format="rgb24", **self._size).to_ndarray()
        turns = frame.rotation / 90  # counterclockwise
        return np.ascontiguousarray(np.rot90(picture, int(turns))) if turns and turns == int(turns) else picture


def _seconds(frame: Any, path: str | Path) -> float:
    """Time of a frame by its file's own clock. Errors: UnreadableVideoError."""
    time = getattr(frame, "time", None)
    if time is None:
        raise UnreadableVideoError(f"{path}: its frames have no times, so no part of it can be taken by seconds")
    return float(time)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Iterator[Any], int]]:
    """The frames of a video, and how many its header promises; what the library refuses is an UnreadableVideoError."""
    if os.path.isdir(path) and is_frames(Path(path)):
        names = sorted((name for name in os.listdir(path) if name.lower().endswith(_PICTURES)), key=_by_number)
        try:
            yield (decode_file(Path(path) / name) for name in names), 0
        except UnreadableImageError as error:
            raise UnreadableVideoError(f"{path}: {error}") from None
        return
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
        # Titles and authors are of no use here, in whatever encoding they are.
        with av.open(absolute, options=_OPEN_OPTIONS, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnreadableVideoError(f"{path}: the file has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableVideoError(f"{path}: no decoder is known for its video stream")
            _refuse_size(path, stream.codec_context)
            # One thread a decoder: parallelism comes from the loader's worker processes.
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            yield _frames(container, stream, path), stream.frames
    except VCRegError:  # some are ValueErrors
        raise
    except (av.FFmpegError, EOFError, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableVideoError(
            f"{path}: not a video that can be decoded ({type(error).__name__}: {reason})"
        ) from error


def _by_number(name: str) -> list[tuple[int, str]]:
    """
    >>> sorted(["10.jpg", "9.jpg"], key=_by_number)
    ['9.jpg', '10.jpg']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _refuse_size(path: str | Path, sized: Any) -> None:
    if sized.width * sized.height > _MOST_PIXELS:
        raise UnreadableVideoError(
            f"{path}: frames of {sized.width} x {sized.height} pixels, more than the {_MOST_PIXELS:,} that are read"
        )


def _frames(container: Any, stream: Any, path: str | Path) -> Iterator[Any]:
    """Every frame that decodes, in display order. A packet that does not decode is
    passed over, as players do; it is passed over in each reading alike, so indices stay the same."""
    import av

    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                _refuse_size(path, frame)
                yield frame
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
