"""Image files in their authors' lists: Food-101, Cars, Aircraft, Pets, Flowers, DTD, iNaturalist 2018, Places205.

`torchvision.datasets` reads the lists of the first six. A `_Listing` is what a list says: paths, and their class ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...config import Data
from ...errors import DataError
from ..datasets import IMAGE_SETS, where_to_put
from . import hf
from .source import FileReader, LabelSet, Source, Split, label_set


@dataclass(frozen=True)
class _Listing:
    """paths: of the images. labels: (n,) int64 class ids."""

    paths: tuple[Path, ...]
    labels: np.ndarray


def load(cfg: Data) -> Source:
    """The images at `data.root`, in the layout that their row of `IMAGE_SETS` names; without a root the Hub's copy.

    Errors: DataError that says what to fetch and where to put it; UnknownNameError for a label set that is not there.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    row = IMAGE_SETS[cfg.name]
    label_set({asked: LabelSet((), ()) for asked in ("class", *_COARSER.get(cfg.name, ()))}, cfg.labels, cfg.name)
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if cfg.root is None:
        return hf.load_row(cfg, row, mean, std)
    root = Path(cfg.root).expanduser()
    try:
        parts, sets = _LISTS[cfg.name](root)
    except DataError:
        raise
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        told = " ".join(str(error).replace("You can use download=True to download it", "").split())
        raise DataError(
            f"{cfg.name} was not found in {root.absolute()} ({type(error).__name__}: {told}). {where_to_put(row)}"
        ) from None
    numbers = np.array(sets[cfg.labels].of_class, dtype=np.int64)

    def split(name: str) -> Split | None:
        if name not in parts:
            return None
        listing = parts[name]
        if not listing.paths[0].is_file():
            raise DataError(
                f"{cfg.name} in {root.absolute()} lists {listing.paths[0]}, which is not there. Fetch {row.files}"
            )
        return Split(FileReader(listing.paths), listing.labels, numbers[listing.labels])

    train = split("train")
    assert train is not None
    return Source(train, split("val"), split("test"), sets[cfg.labels].names, mean, std, str(root))


_Parts = tuple[Mapping[str, _Listing], Mapping[str, LabelSet]]


# ---- what torchvision reads ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Archive:
    """folder: of a data set below torchvision's root. parts: the arguments of torchvision's class for each part. files:
    where that keeps the images' paths; None for pairs of path and class id in `_samples`."""

    folder: str
    parts: Mapping[str, Mapping[str, Any]]
    files: str | None = "_image_files"


_TWO = {name: {"split": name} for name in ("train", "test")}
_THREE = {name: {"split": name} for name in ("train", "val", "test")}
_ARCHIVES = {
    "food101": _Archive("food-101", _TWO),
    "stanford_cars": _Archive("stanford_cars", _TWO, files=None),
    "fgvc_aircraft": _Archive("fgvc-aircraft-2013b", _THREE),
    "oxford_pets": _Archive("oxford-iiit-pet", {"train": {"split": "trainval"}, "test": {"split": "test"}}, "_images"),
    "flowers102": _Archive("flowers-102", _THREE),
    "dtd": _Archive("dtd", _THREE),
}


def _archive(name: str) -> Callable[[Path], _Parts]:
    def read(root: Path) -> _Parts:
        from torchvision import datasets

        archive, kind = _ARCHIVES[name], getattr(datasets, str(IMAGE_SETS[name].torchvision))
        # The data set's own folder is as good as the one that holds it. That of DTD holds one of the same name.
        inside = root.name == archive.folder and not (root / archive.folder / archive.folder).is_dir()
        place = root.parent if inside else root
        found = {part: kind(place, **arguments) for part, arguments in archive.parts.items()}
        names = {part: tuple(map(str, one.classes)) for part, one in found.items()}
        if len(set(names.values())) != 1:
            raise DataError(
                f"the parts of {name} in {root} list different classes: fetch {IMAGE_SETS[name].files} again"
            )
        parts = {}
        for part, one in found.items():
            pairs = (
                one._samples if archive.files is None else zip(getattr(one, archive.files), one._labels, strict=True)
            )
            parts[part] = _listing(pairs)
        return parts, {"class": _itself(names["train"])}

    return read


# ---- iNaturalist 2018 ----------------------------------------------------------------------------------------------


def _inaturalist18(root: Path) -> _Parts:
    """`train2018.json` and `val2018.json` beside the folder of the images. The finest classes are the species, the
    superclasses their 14 kinds."""
    parts: dict[str, _Listing] = {}
    for part, name in (("train", "train2018.json"), ("test", "val2018.json")):
        told = json.loads((root / name).read_text(encoding="utf-8"))
        species = sorted(told["categories"], key=lambda category: int(category["id"]))
        number = {category["id"]: i for i, category in enumerate(species)}
        label = {entry["image_id"]: number[entry["category_id"]] for entry in told["annotations"]}
        parts[part] = _listing((root / image["file_name"], label[image["id"]]) for image in told["images"])
        if part == "train":
            kinds = tuple(sorted({str(category["supercategory"]) for category in species}))
            of_class = tuple(kinds.index(str(category["supercategory"])) for category in species)
            names = tuple(str(category["name"]) for category in species)
    return parts, {"class": _itself(names), "superclass": LabelSet(kinds, of_class)}


# ---- Places205 -----------------------------------------------------------------------------------------------------


def _places205(root: Path) -> _Parts:
    """`train_places205.csv` and `val_places205.csv`, a path and a class id a line; the paths start from `root`, or from
    where the archive of the images unpacks them."""
    parts = {}
    named: dict[int, str] = {}
    for part, name in (("train", "train_places205.csv"), ("test", "val_places205.csv")):
        listed = next(
            (path for path in (root / name, root / "trainvalsplit_places205" / name) if path.is_file()), root / name
        )
        pairs = []
        for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
            path, _, label = line.strip().replace(",", " ").rpartition(" ")
            if not (path and label.isdecimal()):
                raise DataError(f"{listed}, line {number}: expected a path, a space and a class id, got {line!r}")
            pairs.append((path, int(label)))
            named.setdefault(int(label), _scene(path))
        parts[part] = _listing((_found(root, pairs[0][0] if pairs else "") / path, label) for path, label in pairs)
    if sorted(named) != list(range(len(named))):
        raise DataError(f"the class ids of Places205's lists in {root} run to {max(named)}, but {len(named)} are used")
    return parts, {"class": _itself(tuple(named[i] for i in range(len(named))))}


def _scene(path: str) -> str:
    """
    >>> _scene("data/vision/torralba/deeplearning/images256/a/apartment_building/outdoor/gsun_1.jpg")
    'apartment_building/outdoor'
    """
    folders = path.split("/")[:-1]
    first = next((i for i, part in enumerate(folders) if len(part) == 1), -1)
    return "/".join(folders[first + 1 :]) or path


def _found(root: Path, path: str) -> Path:
    """The folder that a list's paths start from."""
    for start in (root, root / "data/vision/torralba/deeplearning/images256", root / "images256"):
        if (start / path).is_file():
            return start
    return root


def _listing(pairs: Any) -> _Listing:
    listed = [(Path(path), int(label)) for path, label in pairs]
    if not listed:
        raise DataError("a list of its images is empty")
    return _Listing(tuple(path for path, _ in listed), np.array([label for _, label in listed], dtype=np.int64))


def _itself(names: tuple[str, ...]) -> LabelSet:
    return LabelSet(names, tuple(range(len(names))))


_COARSER = {"inaturalist18": ("superclass",)}
_LISTS: dict[str, Callable[[Path], _Parts]] = {
    **{name: _archive(name) for name in _ARCHIVES},
    "inaturalist18": _inaturalist18,
    "places205": _places205,
}
