"""The IDX files of MNIST and its relatives, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ...errors import DataError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of a file of unsigned bytes, of exactly `dimensions` axes.

    Layout: two zero bytes, a type byte, the number of axes, each axis as a big-endian uint32, then the values.
    Errors: DataError that names the file when it is damaged, of another kind, or longer or shorter than it says.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file ({error}): fetch it again") from None
    wanted = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if raw[:4] != wanted:
        raise DataError(f"{path} is not an IDX file of {dimensions} axes: starts with {raw[:4]!r}, expected {wanted!r}")
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], ">u4"))
    if len(shape) != dimensions or len(raw) - start != math.prod(shape):
        raise DataError(
            f"{path} says it holds {'x'.join(map(str, shape))} values, not {max(len(raw) - start, 0)}: fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
