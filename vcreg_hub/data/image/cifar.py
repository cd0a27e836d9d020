"""CIFAR-10 and CIFAR-100: 60,000 colour images, 32 x 32 (Krizhevsky, 2009), from the authors' Python batches.

A batch is a pickle, and a pickle may run any code. `_Batch` builds arrays, and what pickle itself makes of strings,
numbers and lists; whatever else a file asks for is refused before it is built.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...config import Data
from ...errors import DataError
from ..datasets import IMAGE_SETS, where_to_put
from . import hf
from .source import ArrayReader, LabelSet, Source, Split, label_set


@dataclass(frozen=True)
class _Layout:
    """names: label set -> its key in `meta`; keys: label set -> its key in a batch. mean / std: of the training images,
    per channel."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names: Mapping[str, str]
    keys: Mapping[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        {"class": "label_names"},
        {"class": "labels"},
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    "cifar100": _Layout(
        "cifar-100-python",
        ("train",),
        ("test",),
        "meta",
        {"class": "fine_label_names", "superclass": "coarse_label_names"},
        {"class": "fine_labels", "superclass": "coarse_labels"},
        (0.5071, 0.4866, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
}
_SHAPE = (3, 32, 32)


def load(cfg: Data) -> Source:
    """The images at `data.root`, a folder that holds the batches' folder or its archive, or either of them itself;
    without a root, those of the Hub.

    Errors: DataError for a file that is missing, damaged, or asks for more than arrays and strings.
    """
    layout = _LAYOUTS[cfg.name]
    names = {asked: LabelSet((), ()) for asked in layout.names}
    label_set(names, cfg.labels, cfg.name)  # a typo is found before anything is read
    if cfg.root is None:
        return hf.load_row(cfg, IMAGE_SETS[cfg.name], layout.mean, layout.std)
    files = _files(Path(cfg.root).expanduser(), cfg.name, layout)
    found = _unpickled(files, layout.meta).get(layout.names[cfg.labels])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError(f"{layout.meta} of {cfg.root} has no list {layout.names[cfg.labels]!r}: fetch it again")

    def split(parts: tuple[str, ...]) -> Split:
        read = [_read(files, part, layout) for part in parts]
        pixels = np.concatenate([pixels for pixels, _ in read])
        labels = {key: np.concatenate([numbers[key] for _, numbers in read]) for key in layout.keys}
        return Split(ArrayReader(pixels, f"{cfg.name}/{parts[0]}"), labels["class"], labels[cfg.labels])

    return Source(
        split(layout.train), None, split(layout.test), tuple(found), layout.mean, layout.std, str(cfg.root)
    )  # fmt: skip


_Files = Callable[[str], bytes]


def _files(root: Path, name: str, layout: _Layout) -> _Files:
    """Content by file name, of the folder or archive of a data set. Errors: DataError for neither."""
    archive = layout.folder.replace("-batches-py", "-python") + ".tar.gz"
    for folder in (root / layout.folder, root):
        if (folder / layout.meta).is_file():
            return lambda part: _content(folder / part)
    for packed in (root / archive, root):
        if packed.is_file():
            return _unpacked(packed, layout.folder)
    raise DataError(
        f"{name}: neither {layout.folder}/ nor {archive} is in {root.absolute()}. {where_to_put(IMAGE_SETS[name])}"
    )


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing: unpack the archive again")
    return path.read_bytes()


def _unpacked(packed: Path, folder: str) -> _Files:
    """The files of an archive, read in one go: a compressed one has no quick way to a file in its middle."""
    try:
        with tarfile.open(packed) as archive:
            members = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            content = {name.removeprefix("./"): file.read() for name, file in members.items() if file is not None}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{packed} is a damaged archive ({error}): fetch it again") from None

    def read(part: str) -> bytes:
        if f"{folder}/{part}" not in content:
            raise DataError(f"{packed} holds no {folder}/{part}: fetch it again")
        return content[f"{folder}/{part}"]

    return read


def _read(files: _Files, part: str, layout: _Layout) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images (n, 32, 32, 3) uint8 of a batch, and its labels (n,) int64 by label set."""
    batch = _unpickled(files, part)
    rows = batch.get("data")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
        told = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(f"{part} of {layout.folder}: 'data' is (n, 3072) bytes, got {told}: fetch it again")
    labels = {}
    for name, key in layout.keys.items():
        numbers = batch.get(key)
        if not isinstance(numbers, list) or len(numbers) != len(rows) or not all(type(n) is int for n in numbers):
            raise DataError(f"{part} of {layout.folder}: {key!r} is not one whole number an image: fetch it again")
        labels[name] = np.array(numbers, dtype=np.int64)
    return rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1), labels


def _unpickled(files: _Files, part: str) -> dict[str, Any]:
    content = files(part)
    try:
        found = _Batch(io.BytesIO(content), encoding="latin1").load()
    except _RefusedError as error:
        raise DataError(f"{part} asks for {error}, which is no array and no string: it is not read") from None
    except Exception as error:  # a damaged pickle raises whatever the step raises at which it is damaged
        raise DataError(f"{part} is damaged ({type(error).__name__}: {error}): fetch it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{part} holds a {type(found).__name__}, expected a dictionary: fetch it again")
    return found


class _RefusedError(Exception):
    """A pickle asks for something that is not built."""


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes an array's bytes as in the older pickle formats."""
    if encoding != "latin1":
        raise _RefusedError(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _numbers(*arguments: Any) -> np.dtype:
    """numpy's dtype, of numbers alone: one of objects would hold whatever came after it."""
    found = np.dtype(*arguments)
    if found.kind not in "biuf":
        raise _RefusedError(f"an array of {found}")
    return found


_EMPTY_ARRAY = np.empty(0).__reduce__()[0]  # numpy's own function, which its pickles name
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _EMPTY_ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _EMPTY_ARRAY,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _numbers,
    ("_codecs", "encode"): _latin1,
}


class _Batch(pickle.Unpickler):
    """Builds arrays of numbers, and what pickle needs no name for: strings, numbers, lists, dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"{module}.{name}")
        return _KNOWN[(module, name)]
