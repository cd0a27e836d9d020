"""Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28 (Xiao, Rasul and Vollgraf, 2017).

Found in `root` where one is given, else in the folder of Debian's package dataset-fashion-mnist, else on the Hub.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...config import Data
from ...errors import DataError
from ..datasets import FASHION_MNIST
from .source import ArrayReader, LabelSet, Source, Split, label_set

DEBIAN = Path(FASHION_MNIST)
HUB_ID = "zalando-datasets/fashion_mnist"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# The four kinds of thing: what is worn on the upper body, trousers, footwear, bags.
_TOPS, _TROUSERS, _FOOTWEAR, _BAG = range(4)
LABELS = {
    "class": LabelSet(CLASSES, tuple(range(10))),
    "superclass": LabelSet(
        ("tops", "trousers", "footwear", "bag"),
        (_TOPS, _TROUSERS, _TOPS, _TOPS, _TOPS, _FOOTWEAR, _TOPS, _FOOTWEAR, _BAG, _FOOTWEAR),
    ),
    "footwear": LabelSet(("other", "footwear"), (0, 0, 0, 0, 0, 1, 0, 1, 0, 1)),
}
# Over the 60,000 training images.
MEAN, STD = (0.2860,), (0.3530,)
_SPLITS = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def load(cfg: Data) -> Source:
    """Errors: DataError with a list of every place looked at."""
    labels = label_set(LABELS, cfg.labels, "fashion_mnist")
    place = Path(cfg.root) if cfg.root is not None else DEBIAN
    if cfg.root is None and not place.is_dir():
        return _from_hub(cfg, labels)
    parts = {split: _read(place, prefix) for split, prefix in _SPLITS.items()}

    def split(name: str) -> Split:
        pixels, classes = parts[name]
        return Split(ArrayReader(pixels, f"fashion_mnist/{name}"), classes, np.array(labels.of_class)[classes])

    return Source(split("train"), None, split("test"), labels.names, MEAN, STD, str(place))


def _read(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) uint8 and labels (n,) int64 of one split."""
    paths = [_find(folder, f"{prefix}-images-idx3-ubyte"), _find(folder, f"{prefix}-labels-idx1-ubyte")]
    images, labels = _read_idx(paths[0], 3), _read_idx(paths[1], 1)
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        raise DataError(f"{paths[0]} holds {images.shape} and {paths[1]} {labels.shape}: expected (n, 28, 28) and (n,)")
    if len(labels) and labels.max() >= len(CLASSES):
        raise DataError(f"{paths[1]}: labels run to {labels.max()}, expected 0 to {len(CLASSES) - 1}")
    return images, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(
        f"fashion_mnist: neither {name}.gz nor {name} is in {folder.absolute()}: set data.root to the folder with "
        f"the four IDX files, or leave it out and install Debian's package dataset-fashion-mnist"
    )


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
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


def _from_hub(cfg: Data, labels: LabelSet) -> Source:
    from . import hf

    try:
        source = hf.load(replace(cfg, name=f"hf:{HUB_ID}", labels="class"), mode="L")
    except DataError as error:
        raise DataError(
            f"fashion_mnist was not found. Looked in {DEBIAN} (Debian's package dataset-fashion-mnist) and on the Hub "
            f"({error}). Install the package, or set data.root to a folder with the four IDX files."
        ) from None

    assert isinstance(source.train, Split) and (source.test is None or isinstance(source.test, Split))

    def relabel(split: Split) -> Split:
        return replace(split, labels=np.array(labels.of_class)[split.classes])

    return replace(source, train=relabel(source.train), test=source.test and relabel(source.test),
                   class_names=labels.names, mean=MEAN, std=STD)  # fmt: skip
