"""Class folders of images (ImageFolder), plain or in tar files, through timm's readers.

`root` holds train/ and perhaps val/ and test/ (or train.tar ...), each with one folder a class; or it holds the class
folders themselves. Without test/, val/ is the test split, as on ImageNet; without either, `images.load_images` carves
one from the training images.

Label sets: `class`, and `superclass` where class folders lie in folders (super/class/x.png). Where the folders hold the
same files, each sorted in another way (kind/cat/1.png, colour/black/1.png), each of them is a label set.
"""

from __future__ import annotations

import copy
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...config import Data
from ...errors import ConfigError, DataError, first_line, some
from ...files import files_fingerprint
from .decode import READING, UnreadableImageError, decode
from .named_labels import NamedLabels, finest_of, source_of
from .source import Source

SYNONYMS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))


class _FolderReader:
    """Images of a class folder or tar file, decoded to RGB; each call opens what it needs in its own process."""

    def __init__(self, path: Path) -> None:
        from timm.data.readers import create_reader
        from timm.data.readers.img_extensions import get_img_extensions, set_img_extensions
        from torchvision.datasets.folder import IMG_EXTENSIONS

        self.path = path
        # timm alone would pass over every .tif, .webp and .bmp without a word; its list is for the whole process.
        before = get_img_extensions()
        try:
            set_img_extensions((*before, *IMG_EXTENSIONS))
            self._reader: Any = create_reader("", root=str(path))
        except (RuntimeError, AssertionError, ValueError, OSError, tarfile.TarError) as error:
            # timm's tar reader falls over an empty list of samples with a ValueError.
            raise DataError(f"no images in class folders found in {path}: {first_line(error)}") from None
        finally:
            set_img_extensions(before)
        self._tar_state = copy.deepcopy(getattr(self._reader, "tar_state", None))
        self._process = os.getpid()
        if self._tar_state is None:
            # Such as macOS's ._1.png, which is no image; `data.files` passes over them too.
            self._reader.samples = [one for one in self._reader.samples if not Path(one[0]).name.startswith(".")]
            if not self._reader.samples:
                raise DataError(f"no images in class folders found in {path}: all of their names begin with a dot")

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

    def folders(self) -> list[tuple[str, ...]]:
        """Names of the folders that each image lies in, the outermost first; of a tar file its class alone."""
        if self._tar_state is not None:
            names = self.names
            return [(names[label],) for label in self._reader.targets]
        start = len(str(self.path)) + 1
        return [tuple(file[start:].split(os.sep)[:-1]) for file, _ in self._reader.samples]

    def read(self, index: int) -> Image.Image:
        if self._tar_state is not None and os.getpid() != self._process:
            # A file opened before a fork shares its position with every other worker.
            self._reader.tar_state, self._process = copy.deepcopy(self._tar_state), os.getpid()
        try:
            file, _ = self._reader[index]
            with file:
                content = file.read()
        except (OSError, tarfile.TarError) as error:
            raise UnreadableImageError(f"{self.where(index)} cannot be read ({first_line(error)})") from None
        return decode(content, self.where(index))

    def where(self, index: int) -> str:
        name = self._reader.filename(index, absolute=True)
        return name if self._tar_state is None else f"{name} in {self.path}"

    def fingerprint(self) -> str:
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*.tar"))
        listed = map(self.where, range(len(self))) if self._tar_state is None else files
        return f"{files_fingerprint(listed)} {READING}"


class _Chosen:
    """Some images of a reader."""

    def __init__(self, reader: _FolderReader, indices: Sequence[int]) -> None:
        self.reader, self.indices = reader, indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image.Image:
        return self.reader.read(self.indices[index])

    def where(self, index: int) -> str:
        return self.reader.where(self.indices[index])

    def fingerprint(self) -> str:
        return f"{files_fingerprint(map(self.where, range(len(self))))} {READING}"


def load(cfg: Data) -> Source:
    """Errors: ConfigError without a root; DataError with the places looked at, or the mismatched classes;
    UnknownNameError with the label sets there are."""
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
    folders = train.folders()
    _refuse_too_high(train.path, folders)
    trees = _trees(train, folders)
    if cfg.labels in trees or (len(trees) > 1 and cfg.labels not in ("class", "superclass")):
        parts = {name: None if one is None else _by_tree(one, trees) for name, one in readers.items()}
        return source_of(parts, cfg.labels, str(root), f"The folders of {train.path} hold the same files.")
    if len(trees) > 1:
        raise DataError(
            f"the folders {some(trees)} of {train.path} hold the same files, each sorted in another way: say which one "
            f"with data.labels={trees[0]}, and for an evaluation with evals.linear_probe.labels={trees[1]}"
        )
    leaves: dict[str, set[tuple[str, ...]]] = {}
    for path in set(folders):
        leaves.setdefault(path[-1], set()).add(path)
    # A folder's own name, unless two folders share it.
    whole = any(len(same) > 1 for same in leaves.values())
    parts = {name: None if one is None else _by_folder(one, whole) for name, one in readers.items()}
    return source_of(parts, cfg.labels, str(root), "Folders in folders, as super/class/x.png, also have `superclass`.")


def _by_folder(reader: _FolderReader, whole: bool) -> NamedLabels:
    """The images of class folders, which may lie in folders of superclasses. whole: a class is called by its path."""
    folders = reader.folders()
    classes = ["/".join(path) if whole else path[-1] for path in folders]
    nested = {"superclass": [path[0] for path in folders]} if any(len(path) > 1 for path in folders) else {}
    return NamedLabels(reader, {"class": classes} | nested, classes, str(reader.path))


def _trees(reader: _FolderReader, folders: Sequence[tuple[str, ...]]) -> list[str]:
    """The folders that hold the same files, each in class folders of its own; empty where there are no two such.

    The same: most names are shared, each is there once, and those files are as long, which 1.png of two classes is not.
    """
    files: dict[str, dict[str, str]] = {}
    twice = set()
    for i, path in enumerate(folders):
        if len(path) > 1:
            place = reader.where(i)
            names = files.setdefault(path[0], {})
            if names.setdefault(Path(place).name, place) != place:
                twice.add(path[0])

    def same(one: dict[str, str], other: dict[str, str]) -> bool:
        shared = one.keys() & other.keys()
        if len(shared) < max(2, len(one) / 2, len(other) / 2):
            return False
        return all(os.path.getsize(one[name]) == os.path.getsize(other[name]) for name in shared)

    sets = {name: names for name, names in files.items() if name not in twice}
    return sorted(name for name in sets if any(same(sets[name], sets[other]) for other in sets if other != name))


def _by_tree(reader: _FolderReader, trees: Sequence[str]) -> NamedLabels:
    """The images of the first tree in the order of their names; every tree says a label of each.

    Errors: DataError for a file that a tree lacks, or has twice.
    """
    places: dict[str, dict[str, tuple[int, str]]] = {tree: {} for tree in trees}
    for i, path in enumerate(reader.folders()):
        if path[0] in places and len(path) > 1:
            name = Path(reader.where(i)).name
            if name in places[path[0]]:
                raise DataError(f"{reader.path / path[0]} has {name!r} twice: its files are told apart by their names")
            places[path[0]][name] = i, "/".join(path[1:])
    every = sorted(set().union(*places.values()))
    for tree, found in places.items():
        if lacking := [name for name in every if name not in found]:
            raise DataError(
                f"{reader.path / tree} lacks {some(lacking)}, which {', '.join(t for t in trees if t != tree)} has: "
                "each folder of labels holds the same files"
            )
    sets = {tree: [found[name][1] for name in every] for tree, found in places.items()}
    chosen = _Chosen(reader, [places[trees[0]][name][0] for name in every])
    return NamedLabels(chosen, sets, finest_of(sets), str(reader.path))


def _refuse_too_high(path: Path, folders: Sequence[tuple[str, ...]]) -> None:
    """Errors: DataError for a folder that holds the folder which is meant."""
    names = {name for synonyms in SYNONYMS for name in synonyms}
    for top in sorted({folder[0] for folder in folders if len(folder) > 1 and folder[1].lower() in names}):
        raise DataError(
            f"{path} is one folder too high: {top}/ in it holds {_listing(path / top)}; set data.root={path / top}"
        )
    tops = {folder[0] for folder in folders}
    if len(tops) == 1 and any(len(folder) > 1 for folder in folders):
        (top,) = tops
        raise DataError(
            f"{path} holds one folder, {top}/, and the class folders lie in that: {_listing(path / top)}; it is one "
            f"folder too high, use {path / top}"
        )


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


def _some(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _s(names: set[str]) -> str:
    return "s" if len(names) > 1 else ""


def _listing(root: Path) -> str:
    entries = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir()) if root.is_dir() else [root.name]
    return ", ".join(entries[:12]) + (" ..." if len(entries) > 12 else "") or "nothing"
