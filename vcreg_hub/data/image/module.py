"""Finds labelled images by name and splits them.

Adding a data set is a row of `IMAGE_SETS`, one of `_READERS`, and a function that returns a `Source`. Everything that
makes results comparable happens here, once: the test images are the data set's own where it has any, the validation
images are carved from the training images only, and the indices depend on the finest labels and `split_seed` alone, so
that a run on superclasses and a probe of the classes see the same images.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...config import Data, Train
from ...errors import ConfigError, DataError, counted
from ...files import JSON
from ..batches import TrainLoader
from ..datasets import IMAGE_SETS, ImageSet, find_image_set, folder_of
from ..failures import Failures, too_many_lost
from ..module import DataModule, Lost
from ..splits import carve, long_tailed, stratified
from . import cifar, digits, fashion_mnist, folder, hf, imagenet, listed, synthetic, table
from .batches import test_loader, train_loader
from .decode import UnreadableImageError
from .hierarchy import superclasses
from .source import Fingerprinted, Reader, Source, Split
from .stream import Stream
from .transforms import test_transform

_logger = logging.getLogger("vcreg_hub")
# Share of the training images that becomes the test split of a data set that has neither test nor validation images.
_TEST_FRACTION = 0.2

# A row each of `IMAGE_SETS`.
_READERS: dict[str, Callable[[Data], Source]] = {
    "cifar10": cifar.load,
    "cifar100": cifar.load,
    "csv": table.load,
    "digits": digits.load,
    "dtd": listed.load,
    "fashion_mnist": fashion_mnist.load,
    "fgvc_aircraft": listed.load,
    "flowers102": listed.load,
    "folder": folder.load,
    "food101": listed.load,
    "hf": hf.load,
    "imagenet": imagenet.load,
    "inaturalist18": listed.load,
    "oxford_pets": listed.load,
    "places205": listed.load,
    "stanford_cars": listed.load,
    "synthetic": synthetic.load,
}


class Images(Dataset):
    """(PIL image, int label) pairs: the `indices` of a reader. labels: (n,) int64, of these images."""

    def __init__(self, reader: Reader, indices: np.ndarray, labels: np.ndarray) -> None:
        self.reader, self.indices, self.labels = reader, indices, labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.reader.read(int(self.indices[index])), int(self.labels[index])

    def fingerprint(self) -> str | None:
        """A hash of the images and their order; None where the reader does not tell its images apart."""
        if not isinstance(self.reader, Fingerprinted):
            return None
        return hashlib.sha256(self.reader.fingerprint().encode() + self.indices.tobytes()).hexdigest()


@dataclass(frozen=True)
class ImageData:
    """The three splits of a data set under one label set.

    val: empty where nothing is held out. mean / std: as many as channels. origin: where the images were found.
    recoloured: whether they are shown in other channels than they have.
    `train` and `test` are a `Stream` for the streamed layouts of ImageNet.
    """

    name: str
    labels: str
    train: Images | Stream
    val: Images
    test: Images | Stream
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    recoloured: bool = False
    hub: str | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_chans(self) -> int:
        return len(self.mean)

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.origin}): {len(self.train)} training, {len(self.val)} validation and {len(self.test)} "
            f"test images, {self.num_classes} classes ({self.labels})"
        )


@dataclass(frozen=True)
class ImageModule(DataModule):
    """Images under the face of every data set. failures: the images this process could not read, numbered through
    the training, validation and test images; None where a single one ends the run."""

    sets: ImageData
    failures: Failures | None
    noun = "images"
    in_groups = True

    @classmethod
    def load(cls, cfg: Data) -> ImageModule:
        """Errors: those of `load_images`."""
        sets = load_images(cfg)
        counted_on = cfg.max_failed and not isinstance(sets.train, Stream)
        total = len(sets.train) + len(sets.val) + len(sets.test)
        return cls(cfg, sets, Failures(total, cfg.max_failed, cls.noun) if counted_on else None)

    @property
    def single_view(self) -> str:
        shown = "grey" if self.in_chans == 1 else "three equal channels"
        return f"single view, in {shown}" if self.sets.recoloured else "single view"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.in_chans, self.cfg.image_size, self.cfg.image_size

    def labels(self, split: str) -> np.ndarray | None:
        part = getattr(self.sets, split)
        return None if isinstance(part, Stream) else part.labels

    def where(self, split: str, number: int) -> str:
        part = getattr(self.sets, split)
        if isinstance(part, Stream):
            return super().where(split, number)
        return str(part.reader.where(int(part.indices[number])))

    def fingerprint(self, split: str) -> str | None:
        part = getattr(self.sets, split)
        samples = None if isinstance(part, Stream) else part.fingerprint()
        if samples is None:
            return None
        view = test_transform(self.cfg, self.mean, self.std)
        return hashlib.sha256(f"{samples} {view!r}".encode()).hexdigest()

    def train_batches(self, train: Train, rank: int, world: int, views: int = 1) -> TrainLoader:
        return train_loader(self.sets, self.cfg, train, self.failures, rank=rank, world=world, views=views)

    def eval_batches(self, split: str, batch_size: int) -> DataLoader:
        return test_loader(self.sets, self.cfg, split, batch_size, self.failures, self._first(split))

    def _first(self, split: str) -> int:
        """The number of a split's first image."""
        before = {"val": (self.sets.train,), "test": (self.sets.train, self.sets.val)}
        return sum(map(len, before.get(split, ())))

    def lost(self) -> Tensor | None:
        return None if self.failures is None else self.failures.flags

    def lost_paths(self, flags: Tensor) -> Lost:
        found: Lost = {}
        for split in ("train", "val", "test"):
            first = self._first(split)
            numbers = flags[first : first + self.size(split)].nonzero().flatten().tolist()
            if numbers:
                found[split] = [self._inside(self.where(split, number)) for number in numbers]
        return found

    def _inside(self, place: str) -> str:
        """A place without the folder that the data lie in, which is nobody else's business."""
        top = Path(self.sets.origin)
        if not top.exists():
            return place
        return place.replace(f"{top if top.is_dir() else top.parent}{os.sep}", "").replace(str(top), top.name)

    def refuse_lost(self, paths: Lost) -> None:
        if said := too_many_lost(paths, self.noun, "data.max_failed", self.cfg.max_failed):
            raise UnreadableImageError(said)

    def describe(self) -> JSON:
        return super().describe() | {
            "resize": self.cfg.resize,
            "interpolation": self.cfg.interpolation,
            "fit": self.cfg.fit,
            "hub": self.sets.hub,
        }


def load_images(cfg: Data) -> ImageData:
    """The images named by a recipe's `data`.

    Errors: UnknownNameError for a data set or label set that does not exist; ConfigError for values that do not go
    together; DataError when files are missing (it says where it looked), damaged, or not what they should be.
    """
    row = IMAGE_SETS[find_image_set(cfg.name)]
    asked = replace(cfg, root=folder_of(row)) if cfg.root is None else cfg
    whole = _READERS[row.name](asked if cfg.hierarchy is None else replace(asked, labels="class"))
    for name in ("train", "val", "test"):
        _check(getattr(whole, name), name, whole)
    source = whole if cfg.hierarchy is None else superclasses(whole, cfg.hierarchy, cfg.labels)
    channels = cfg.channels or len(source.mean)
    mean, std = cfg.mean or _recoloured(source.mean, channels), cfg.std or _recoloured(source.std, channels)
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise ConfigError(f"data.mean={mean} and data.std={std}: expected {channels} values each, std positive")
    recoloured = channels != len(source.mean)
    if recoloured and os.environ.get("RANK", "0") == "0":
        shown = "grey" if channels == 1 else "three equal channels"
        _logger.warning("%s has %s: its images are shown in %s", cfg.name, counted(len(source.mean), "channel"), shown)
    train, val, test = _splits(source, cfg)
    _check_sizes(whole, row, cfg)
    return ImageData(cfg.name, cfg.labels, train, val, test, source.class_names, mean, std, source.origin, recoloured,
                     whole.hub)  # fmt: skip


def _recoloured(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Means or deviations per channel of images shown with another number of channels.

    Grey is what ITU-R 601 makes of red, green and blue, whose mean is exact; its deviation is an estimate.
    """
    if len(values) == channels:
        return values
    return values * channels if channels == 3 else (sum(w * v for w, v in zip((0.299, 0.587, 0.114), values)),)


def _splits(source: Source, cfg: Data) -> tuple[Images | Stream, Images, Images | Stream]:
    if isinstance(source.train, Stream):
        if cfg.val_fraction or cfg.train_images is not None or cfg.imbalance is not None:
            raise ConfigError(
                f"{source.origin} is streamed: data.val_fraction must be 0, data.train_images and data.imbalance null"
            )
        empty = np.empty(0, dtype=np.int64)
        assert isinstance(source.test, Stream)
        return source.train, Images(_NoImages(), empty, empty), source.test
    assert not isinstance(source.test, Stream)
    kept = np.arange(len(source.train.classes))
    val, test = source.val, source.test
    if test is None:
        test, val = val, None
    if test is None:
        kept, held_out = carve(source.train.classes, _TEST_FRACTION, cfg.split_seed)
        tested = _images(source.train, held_out)
    else:
        tested = _images(test)
    if val is not None:
        held = _images(val)
    else:
        stays, goes = carve(source.train.classes[kept], cfg.val_fraction, cfg.split_seed)
        held, kept = _images(source.train, kept[goes]), kept[stays]
    if cfg.imbalance is not None:
        kept = kept[long_tailed(source.train.classes[kept], cfg.imbalance, cfg.split_seed, cfg.train_images)]
    elif cfg.train_images is not None:
        kept = kept[stratified(source.train.classes[kept], cfg.train_images, cfg.split_seed)]
    if not len(kept) or not len(tested):
        raise DataError(f"{source.origin}: {len(kept)} training and {len(tested)} test images are left; need both")
    return _images(source.train, kept), held, tested


class _NoImages:
    """The reader of an empty split."""

    def __len__(self) -> int:
        return 0

    def read(self, index: int) -> Image.Image:
        raise IndexError(index)

    def where(self, index: int) -> str:
        raise IndexError(index)


def _images(split: Split, indices: np.ndarray | None = None) -> Images:
    indices = np.arange(len(split.labels)) if indices is None else indices
    return Images(split.reader, indices, split.labels[indices])


def _check_sizes(source: Source, row: ImageSet, cfg: Data) -> None:
    """Errors: DataError where a data set holds other numbers of images or classes than its row says: results would not
    compare. Splits by other names are the user's own choice."""
    if (cfg.train_split, cfg.test_split) != ("train", "test"):
        return
    val, test = (source.val, source.test) if source.test is not None else (None, source.val)
    found = [
        (wanted, _length(part), f"images in its {name} part")
        for name, wanted, part in (("train", row.train, source.train), ("val", row.val, val), ("test", row.test, test))
    ]
    if cfg.labels == "class" or cfg.hierarchy is not None:
        found.append((row.classes, len(source.class_names), "classes"))
    for wanted, there, what in found:
        if wanted is not None and wanted != there:
            raise DataError(
                f"{row.name} has {wanted:,} {what}, but {source.origin} holds {there:,}: results would not compare. "
                f"Fetch {row.files or 'it again'}; `folder` reads a part of it as your own"
            )


def _length(part: Split | Stream | None) -> int:
    if part is None:
        return 0
    return len(part) if isinstance(part, Stream) else len(part.labels)


def _check(split: Split | Stream | None, name: str, source: Source) -> None:
    """Errors: DataError for labels out of range, or as many as there are no images."""
    if split is None or isinstance(split, Stream):
        return
    if not len(split.reader) == len(split.labels) == len(split.classes):
        raise DataError(f"{source.origin}, {name}: {len(split.reader)} images but {len(split.labels)} labels")
    low, high = (int(split.labels.min()), int(split.labels.max())) if len(split.labels) else (0, 0)
    if low < 0 or high >= len(source.class_names):
        raise DataError(
            f"{source.origin}, {name}: labels run from {low} to {high}, there are {len(source.class_names)} classes "
            f"(0 to {len(source.class_names) - 1})"
        )
