"""Other decoders beside PyAV, used for a file only after they gave its frames exactly.

torchcodec is faster on plain AVI files, decord2 on some; both have been seen to return neighbouring frames,
or none, on files with B-frames. So the first time a process meets a file it decodes it with both, and a
file on which they differ is read with PyAV from then on. PyAV decoding from the start is the definition of
which frame is which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, first_line, unknown_name
from .decode import decode_frames, measure, write_video

# Mean difference, in levels of 255, up to which two decoders' pictures count as the same: they may round
# the conversion from YUV differently.
TOLERANCE = 2.0
# How many short runs of frames are compared, spread over the file: a decoder that is right from the start
# on may be wrong after it has jumped.
_RUNS = 16


def _torchcodec(path: str | Path, indices: Sequence[int]) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return decoder.get_frames_at(list(indices)).data


def _decord(path: str | Path, indices: Sequence[int]) -> Tensor:
    from decord import VideoReader

    return torch.from_numpy(VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy())


DECODERS: dict[str, Callable[[str | Path, Sequence[int]], Tensor]] = {
    "pyav": decode_frames,
    "torchcodec": _torchcodec,
    "decord": _decord,
}


class Decoder:
    """`decode_frames` by way of another, equally exact library. `refused`: files this process reads
    with PyAV.

    Errors: UnknownNameError; ConfigError when the library is not installed or cannot decode anything here.
    """

    def __init__(self, name: str = "pyav") -> None:
        if name not in DECODERS:
            raise unknown_name("video decoder", name, DECODERS)
        self.name = name
        self.exact: set[str] = set()
        self.refused: set[str] = set()
        if name != "pyav":
            _check_works(name)

    def __call__(
        self, path: str | Path, indices: Sequence[int], shown: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """uint8 (len(indices), h, w, 3); shown: see `decode_frames`, of the other libraries once all frames are there.
        Errors: UnreadableVideoError."""
        if self.name == "pyav" or Path(path).is_dir():
            return decode_frames(path, indices, shown)
        if str(path) not in self.exact | self.refused:
            (self.exact if _is_exact(path, self.name) else self.refused).add(str(path))
        if str(path) in self.exact:
            try:
                frames = DECODERS[self.name](path, indices)
                return frames if shown is None else torch.cat([shown(f[None].permute(0, 3, 1, 2)) for f in frames])
            except Exception:  # the file has changed since: PyAV says whether it can be read, in our own words
                self.exact.discard(str(path))
                self.refused.add(str(path))
        return decode_frames(path, indices, shown)


def _is_exact(path: str | Path, name: str) -> bool:
    """Whether a decoder gives the frames of this file that decoding from the start gives.
    UnreadableVideoError when PyAV cannot read it either."""
    length = measure(path).frames
    for start in sorted({int(i) for i in np.linspace(0, length - 1, _RUNS)}):
        indices = list(range(start, min(start + 8, length), 2))
        wanted = decode_frames(path, indices)
        try:
            found = DECODERS[name](path, indices)
        except Exception:  # whatever a foreign library raises, it did not give the frames
            return False
        if found.shape != wanted.shape:
            return False
        difference = (found.int() - wanted.int()).abs().flatten(1).float().mean(1)
        if (difference > TOLERANCE).any():
            return False
    return True


def _check_works(name: str) -> None:
    """torchcodec imports without FFmpeg and fails at the first file, so decoding one is the only way to
    know."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.avi"
        write_video(path, np.zeros((4, 64, 64, 3), dtype=np.uint8))  # decord2 fails on a width of 32
        try:
            DECODERS[name](path, [0, 1])
        except Exception as error:  # a foreign library's own kinds, a missing module or a shared object
            first = first_line(error)
            needs = {"torchcodec": "torchcodec and FFmpeg's libraries", "decord": "decord2"}[name]
            cure = "pip install 'vcreg_hub[decoders]'"
            raise ConfigError(f"video.decoder={name} does not work here; it needs {needs} ({cure}): {first}") from error
