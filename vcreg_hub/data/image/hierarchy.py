"""Superclasses over the classes of a data set, from a file: a JSON object, superclass -> its classes.

    {"cat": ["tabby", "siamese"], "dog": ["beagle", "boxer", "pug"]}

A class is given by its name, which is its folder's in a data set of folders, or by its number in the data set's own
order. Classes that the file leaves out are left out of every part. The files beside this one are CIFAR-100's 20
superclasses, and the five balanced subsets of ImageNet of the `robustness` library (Engstrom et al. 2019) that Table 5
of the paper uses; there, a superclass has its classes of the lowest numbers, as many as the smallest superclass has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError, unknown_name
from .source import Fingerprinted, LabelSet, Reader, Source, Split, label_set
from .stream import Stream

_FOLDER = Path(__file__).parent / "hierarchies"
# How many classes the data set of each has: numbers would silently mean other classes in a part of ImageNet.
_CLASSES = {"cifar100": 100, **dict.fromkeys(("living_9", "mixed_10", "mixed_13", "geirhos_16", "big_12"), 1000)}


def superclasses(source: Source, name: str, labels: str) -> Source:
    """The part of a data set that a hierarchy lists, labelled by `superclass` or, in the hierarchy's order, by `class`.

    source: under its finest labels. name: one of the package's own hierarchies, or a file. Both label sets are of the
    same images, in the same order.
    Errors: ConfigError for a file that is absent or is no hierarchy, or a stream; UnknownNameError for a label set;
    DataError for a class that the data set does not have.
    """
    groups = _read(name)
    if name in _CLASSES and len(source.class_names) != _CLASSES[name]:
        raise DataError(
            f"data.hierarchy={name} is over {_CLASSES[name]:,} classes, {source.origin} has "
            f"{len(source.class_names):,}: give the whole data set, or a file of your own"
        )
    if isinstance(source.train, Stream) or isinstance(source.test, Stream):
        raise ConfigError(f"{source.origin} is streamed: data.hierarchy leaves classes out, which needs files at hand")
    members = [[_number(one, source, name) for one in group] for group in groups.values()]
    flat = [number for group in members for number in group]
    if len(set(flat)) != len(flat):
        twice = next(source.class_names[number] for number in flat if flat.count(number) > 1)
        raise ConfigError(f"data.hierarchy={name}: {twice} is listed twice; each class has one superclass")
    of_class = tuple(label for label, group in enumerate(members) for _ in group)
    sets = {
        "class": LabelSet(tuple(source.class_names[number] for number in flat), tuple(range(len(flat)))),
        "superclass": LabelSet(tuple(groups), of_class),
    }
    chosen = label_set(sets, labels, f"data.hierarchy={name}")
    place = np.full(len(source.class_names), -1)
    place[flat] = np.arange(len(flat))
    numbers = np.array(chosen.of_class)

    def listed(split: Split | None) -> Split | None:
        if split is None:
            return None
        kept = np.flatnonzero(place[split.classes] >= 0)
        classes = place[split.classes[kept]]
        part = _FingerprintedPart if isinstance(split.reader, Fingerprinted) else _Part
        return Split(part(split.reader, kept), classes, numbers[classes])

    train = listed(source.train)
    assert train is not None
    return replace(
        source, train=train, val=listed(source.val), test=listed(source.test), class_names=chosen.names
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """Some images of a reader."""

    reader: Reader
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image.Image:
        return self.reader.read(int(self.indices[index]))

    def where(self, index: int) -> str:
        return self.reader.where(int(self.indices[index]))


class _FingerprintedPart(_Part):
    """Some images of a reader that tells its images from any others."""

    def fingerprint(self) -> str:
        assert isinstance(self.reader, Fingerprinted)
        return hashlib.sha256(self.reader.fingerprint().encode() + self.indices.tobytes()).hexdigest()


def _read(name: str) -> Mapping[str, Sequence[int | str]]:
    path = _FOLDER / f"{name}.json" if name in _CLASSES else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"data.hierarchy={name} is no file and none of {', '.join(_CLASSES)}: give a JSON file of "
            '{"superclass": ["class", ...], ...}'
        )
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(groups, dict) or len(groups) < 2:
        raise ConfigError(f"{path} is a JSON object of two superclasses or more, each with a list of its classes")
    for superclass, group in groups.items():
        if not isinstance(group, list) or not group or not all(type(one) in (int, str) for one in group):
            raise ConfigError(f"{path}: {superclass} has a list of class names or numbers, got {group!r}")
    return groups


def _number(one: int | str, source: Source, name: str) -> int:
    if isinstance(one, str):
        if one not in source.class_names:
            raise DataError(
                f"data.hierarchy={name}: {unknown_name(f'class of {source.origin}', one, source.class_names)}"
            )
        return source.class_names.index(one)
    if not 0 <= one < len(source.class_names):
        raise DataError(
            f"data.hierarchy={name}: class {one} is not among the {len(source.class_names)} of {source.origin}, "
            f"0 to {len(source.class_names) - 1}"
        )
    return one
