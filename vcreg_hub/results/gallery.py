"""A report's view of networks: their blocks, features, neighbours and mistakes, on samples common to all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A value of one block. labels: the label set that it is told by, "" for none. split: of the samples."""

    metric: str
    block: str
    labels: str
    split: str
    value: float


@dataclass(frozen=True)
class Sprite:
    """Small pictures of samples in one image. image: a data URI. size: of a picture, in pixels. columns: in a row."""

    image: str
    size: int
    columns: int


@dataclass(frozen=True)
class Portrait:
    """The features of one run's network on samples that all portraits of a gallery share.

    points: in two dimensions. labels, answers: class numbers, the true ones and the network's. neighbours: places of a
    sample and of those nearest to it. mistakes: places, the surest first. spectrum: singular values, descending.
    """

    group: str
    readings: tuple[Reading, ...]
    spectrum: tuple[float, ...]
    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    answers: tuple[int, ...]
    neighbours: tuple[tuple[int, ...], ...]
    mistakes: tuple[int, ...]
    label: str = ""


@dataclass(frozen=True)
class Similarity:
    """CKA of every two blocks of two networks. rows, columns: ids of the two groups, later their labels."""

    rows: str
    columns: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Gallery:
    """What is shown of the networks of one comparison. notes: why something is not shown."""

    classes: tuple[str, ...] = ()
    split: str = "test"
    sprite: Sprite | None = None
    portraits: tuple[Portrait, ...] = ()
    similarity: tuple[Similarity, ...] = ()
    notes: tuple[str, ...] = ()
