"""A data set before any split is carved: readers of images, class ids, names and statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from ...errors import unknown_name
from ...files import files_fingerprint
from .decode import READING, decode_file
from .stream import Stream


class Reader(Protocol):
    """Decoded images by number."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image.Image:
        """The image. Errors: UnreadableImageError."""

    def where(self, index: int) -> str:
        """File, or split and row, for error messages."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A reader that tells its images from any others."""

    def fingerprint(self) -> str:
        """A hash of the images and their order, or of what changes with them."""


@dataclass(frozen=True)
class Split:
    """Images with two numberings. classes: (n,) the finest labels, the strata of every split, so that it does
    not depend on the label set asked for; labels: (n,) those of the label set asked for."""

    reader: Reader
    classes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Source:
    """A data set. `val` and `test` are None for a set without its own; a streamed one has streams.

    class_names: of the label set asked for. mean / std: per channel, of pixels in [0, 1]. origin: where it was found.
    hub: its id, where it was read from the Hub.
    """

    train: Split | Stream
    val: Split | None
    test: Split | Stream | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    hub: str | None = None


@dataclass(frozen=True)
class LabelSet:
    """Names, and the label of each class of the finest numbering."""

    names: tuple[str, ...]
    of_class: tuple[int, ...]


def label_set(sets: Mapping[str, LabelSet], asked: str, data_set: str) -> LabelSet:
    """The label set asked for. Errors: UnknownNameError with the data set's own label sets."""
    if asked not in sets:
        raise unknown_name(f"label set of {data_set}", asked, sets)
    return sets[asked]


class ArrayReader:
    """Images of an array in memory, (n, h, w) or (n, h, w, 3) uint8."""

    def __init__(self, pixels: np.ndarray, name: str) -> None:
        self.pixels, self.name = pixels, name

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def where(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()


class FileReader:
    """Image files by number, decoded to RGB."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image.Image:
        return decode_file(self.paths[index])

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def fingerprint(self) -> str:
        return f"{files_fingerprint(self.paths)} {READING}"
