"""Class folders of images (ImageFolder), plain or in tar files, through timm's readers.

`root` holds train/ and perhaps val/ and test/ (or train.tar ...), each with one folder a class; or it holds the class
folders themselves. Without test/, val/ is the test split, as on ImageNet; without either, `images.load_images` carves
one from the training images.
"""

from __future__ import annotations

import copy
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...config import Data
from ...errors import ConfigError, DataError
from ...files import files_fingerprint
from .source import LabelSet, Source, Split, decode, label_set

SYNONYMS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))


class _FolderReader:
    """Images of a class folder or tar file, decoded to RGB; each call opens what it needs in its own process."""

    def __init__(self, path: Path) -> None:
        from timm.data.readers import create_reader

        self.path = path
        try:
            self._reader: Any = create_reader("", root=str(path))
        except (RuntimeError, AssertionError, ValueError, OSError, tarfile.TarError) as error:
            # timm's tar reader falls over an empty list of samples with a ValueError.
            raise DataError(f"no images in class folders found in {path}: {_first_line(error)}") from None
        self._tar_state = copy.deepcopy(getattr(self._reader, "tar_state", None))
        self._process = os.getpid()

    def __del__(self) -> None:
        # timm's tar reader keeps its files open and leaves them to the garbage collector.
        for state in self._open_tars():
            if state.tf is not None:
                state.tf.close()

    def _open_tars(self) -> list[Any]:
        top = getattr(getattr(self, "_reader", None), "tar_state", None)
        states = [] if top is None else list(top.values()) if isinstance(top, dict) else [top]
        return [child for state in states for child in state.children.values()] + states

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        found = getattr(self._reader, "class_to_idx", None) or self._reader.class_name_to_idx
        return sorted(found, key=found.__getitem__)

    def labels(self) -> np.ndarray:
        """(n,) int64 ids into `names`."""
        if self._tar_state is not None:
            return np.asarray(self._reader.targets, dtype=np.int64)
        return np.array([label for _, label in self._reader.samples], dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        if self._tar_state is not None and os.getpid() != self._process:
            # A file opened before a fork shares its position with every other worker.
            self._reader.tar_state, self._process = copy.deepcopy(self._tar_state), os.getpid()
        file, _ = self._reader[index]
        with file:
            content = file.read()
        return decode(content, self.where(index))

    def where(self, index: int) -> str:
        name = self._reader.filename(index, absolute=True)
        return name if self._tar_state is None else f"{name} in {self.path}"

    def fingerprint(self) -> str:
        if self._tar_state is None:
            return files_fingerprint(map(self.where, range(len(self))))
        return files_fingerprint([self.path] if self.path.is_file() else sorted(self.path.rglob("*.tar")))


def load(cfg: Data) -> Source:
    """Errors: ConfigError without a root; DataError with the places looked at, or the mismatched classes."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    if cfg.root is None:
        raise ConfigError(f"data.name={cfg.name} needs data.root, the folder with the images: --set data.root=DIR")
    root = Path(cfg.root).expanduser()
    if not root.exists():
        raise DataError(f"no folder {root.absolute()}: set data.root to a folder with train/ or with class folders")
    paths = _find_splits(root, cfg.train_split, cfg.test_split)
    readers = {name: None if path is None else _FolderReader(path) for name, path in paths.items()}
    train = readers["train"]
    assert train is not None
    _refuse_strays(train)
    names = tuple(train.names)
    if len(names) < 2:
        raise DataError(f"{train.path}: expected two class folders or more, found only {_some(names)}")
    labels = label_set({"class": LabelSet(names, tuple(range(len(names))))}, cfg.labels, f"{root}")

    def split(reader: _FolderReader | None) -> Split | None:
        if reader is None:
            return None
        classes = _renumbered(reader, names, train.path)
        return Split(reader, classes, classes)

    known = split(train)
    assert known is not None
    return Source(known, split(readers["val"]), split(readers["test"]), labels.names,
                  IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, str(root))  # fmt: skip


def _find_splits(root: Path, train: str = "train", test: str = "test") -> dict[str, Path | None]:
    """Where each split lies: a folder or tar file of its name under `root`, or `root` itself for training.

    Errors: DataError when only some other split is there, or a split asked for by another name than its usual one is
    missing.
    """
    found = {
        "train": _search(root, train),
        "val": _search(root, "val") if test not in SYNONYMS[1] else None,
        "test": _search(root, test),
    }
    if found["train"] is None:
        if found["val"] or found["test"] or train != "train":
            raise DataError(f"no {train}/ or {train}.tar in {root.absolute()}, which holds: {_listing(root)}")
        found["train"] = root
    if found["test"] is None and test != "test":
        raise DataError(f"no {test}/ or {test}.tar in {root.absolute()}, which holds: {_listing(root)}")
    return found


def _search(root: Path, name: str) -> Path | None:
    if not root.is_dir():
        return None
    usual: Sequence[str] = next((names for names in SYNONYMS if name in names), (name,))
    for candidate in (name, *usual):
        for path in (root / candidate, root / f"{candidate}.tar"):
            if path.exists():
                return path
    return None


def _refuse_strays(reader: _FolderReader) -> None:
    """Errors: DataError for images outside class folders, and for class folders without an image."""
    names = set(reader.names)
    if "" in names:
        raise DataError(f"images lie directly in {reader.path}: expected one folder a class with its images inside")
    if not reader.path.is_dir():
        return
    folders = {p.name for p in reader.path.iterdir() if p.is_dir() and not p.name.startswith(".")}
    suspects = folders - names
    if suspects:  # they may hold the class folders; look at the files before complaining
        tops = {Path(reader.where(i)).relative_to(reader.path).parts[0] for i in range(len(reader))}
        suspects -= tops
    if suspects:
        raise DataError(f"no image in class folder{_s(suspects)} {_some(suspects)} of {reader.path}: fill or remove it")


def _renumbered(reader: _FolderReader, names: Sequence[str], train: Path) -> np.ndarray:
    """(n,) labels in the numbering of the training classes. Errors: DataError for classes that training lacks."""
    unknown = set(reader.names) - set(names)
    if unknown:
        raise DataError(
            f"{reader.path} has class{'es' if len(unknown) > 1 else ''} {_some(unknown)}, which {train} lacks "
            f"(it has {_some(names)})"
        )
    order = np.array([list(names).index(name) for name in reader.names], dtype=np.int64)
    return order[reader.labels()]


def _some(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _s(names: set[str]) -> str:
    return "s" if len(names) > 1 else ""


def _listing(root: Path) -> str:
    entries = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir()) if root.is_dir() else [root.name]
    return ", ".join(entries[:12]) + (" ..." if len(entries) > 12 else "") or "nothing"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
