"""Label sets by name: each image has a label in each of them, such as its kind and its colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError, counted, some, unknown_name
from .source import Reader, Source, Split


@dataclass(frozen=True)
class NamedLabels:
    """Images and the names of their labels. sets: label set -> one name an image. finest: names that no label set
    tells further apart; the strata of every split, whatever the labels asked for. place: for error messages."""

    reader: Reader
    sets: Mapping[str, Sequence[str]]
    finest: Sequence[str]
    place: str


def source_of(parts: Mapping[str, NamedLabels | None], asked: str, origin: str, cure: str = "") -> Source:
    """A data set of parts "train", "val" and "test", under the label set asked for.

    cure: what the error of an unknown label set ends with.
    Errors: UnknownNameError with the label sets there are; DataError for a single class, and for a label of another
    part that no training image has.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    train = parts["train"]
    assert train is not None
    if asked not in train.sets:
        raise unknown_name(f"label set of {origin}", asked, train.sets, cure)
    names, finest = _ordered(train.sets[asked]), _ordered(train.finest)
    if len(names) < 2:
        what = "class folders" if asked == "class" else f"values of {asked!r}"
        raise DataError(f"{train.place}: expected two {what} or more, found only {some([repr(one) for one in names])}")

    def split(part: NamedLabels | None) -> Split | None:
        if part is None:
            return None
        if asked not in part.sets:
            raise DataError(f"{part.place} has no labels {asked!r}; it has {', '.join(part.sets)}")
        # A finest name that training lacks is a stratum of its own; its label is what has to be known.
        strata = {name: i for i, name in enumerate([*finest, *sorted(set(part.finest) - set(finest))])}
        classes = np.array([strata[name] for name in part.finest], dtype=np.int64)
        return Split(part.reader, classes, _numbered(part, asked, names, train.place))

    known = split(train)
    assert known is not None
    return Source(known, split(parts["val"]), split(parts["test"]), names,
                  IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, origin)  # fmt: skip


def finest_of(sets: Mapping[str, Sequence[str]]) -> list[str]:
    """One name an image that stands for its labels in all the sets together."""
    return ["\n".join(labels) for labels in zip(*(sets[name] for name in sorted(sets)), strict=True)]


def _ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Every name once, numbers in names by their value."""
    from timm.utils import natural_key

    return tuple(sorted(set(names), key=natural_key))


def _numbered(part: NamedLabels, asked: str, names: tuple[str, ...], train: str) -> np.ndarray:
    """(n,) labels in the numbering of the training labels."""
    number = {name: i for i, name in enumerate(names)}
    labels = part.sets[asked]
    if strange := sorted(set(labels) - set(names)):
        which = counted(len(strange), "class", "classes").partition(" ")[2]
        raise DataError(
            f"{part.place} has {which} {some([repr(one) for one in strange])}, which {train} lacks (it has "
            f"{some([repr(one) for one in names])})"
        )
    return np.array([number[label] for label in labels], dtype=np.int64)
