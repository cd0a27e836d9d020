"""Batches of images: random training views, and fixed views in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, default_collate

from ...config import Data, Train
from ...errors import ConfigError
from ..batches import (
    GroupedOrder,
    Key,
    Order,
    TrainLoader,
    batch_mixing,
    batches_of_epoch,
    in_order,
    part_of,
    share_of_batch,
    worker_processes,
)
from ..failures import Failures, marked_lost
from ..randomness import derive_seed, numpy_seed, torch_seed
from .decode import UnreadableImageError
from .stream import Stream, restart
from .transforms import Transform, test_transform, train_transform

if TYPE_CHECKING:
    from .module import ImageData, Images

# Draws within the class of an unreadable image before any image will do: a whole class may be unreadable.
_TRIES = 20


def train_loader(
    images: ImageData,
    data: Data,
    train: Train,
    failures: Failures | None = None,
    *,
    rank: int = 0,
    world: int = 1,
    views: int = 1,
) -> TrainLoader:
    """Training batches of one process of `world`, each of `train.batch_size / (world * train.accumulation)` images.

    views: augmented views of an image side by side, (b, views, c, h, w); one has no axis of its own.
    Label smoothing is left to the loss, which does it for mixed targets too. With `data.repeats` above one, images are
    drawn as by torchvision's RASampler: an epoch keeps its length but holds a part of the images, each several times.
    failures: gets the images that do not decode, by their places in `images.train`, which others replace; past its
    limit images are zeros, with which nobody should go on training.
    Errors: ConfigError when the batch size does not divide, is odd under mixup, or exceeds the images;
    UnreadableImageError at the first image that does not decode where `failures` is None, or when none is left.
    """
    size = share_of_batch(train, world)
    each_view = [train_transform(data, images.mean, images.std, v) for v in range(views)]
    collate = _Collate(batch_mixing(train, images.num_classes, size, views), (train.seed, rank))
    workers = worker_processes(data.workers)
    common: dict[str, Any] = dict(
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # so that starting workers takes no number from the run's own generator
    )
    if isinstance(images.train, Stream):
        if data.repeats > 1:
            raise ConfigError(f"data.repeats={data.repeats}: a streamed data set cannot repeat images within an epoch")
        opened = images.train.open(training=True, batch_size=size, workers=workers, seed=train.seed)
        if views > 1:
            raise ConfigError(f"the task takes {views} views of an image, a streamed data set gives one")
        if train.class_groups > 1:
            raise ConfigError(f"train.class_groups={train.class_groups}: a streamed data set shows all classes at once")
        order: Any = _StreamViews(opened, each_view[0], train.seed, rank)
        loader = DataLoader(order, batch_size=size, drop_last=True, **common)
        each = len(images.train) // world
    else:
        if train.class_groups > 1:
            order = GroupedOrder(images.train.labels, images.num_classes, data.repeats, train, rank, world)
        else:
            order = Order(images.train, data.repeats, train.seed, rank, world)
        batches = BatchSampler(order, size, drop_last=True)
        side = data.train_size or data.image_size
        samples = _TrainViews(images.train, each_view, failures, (images.in_chans, side, side))
        loader = DataLoader(samples, batch_sampler=batches, persistent_workers=workers > 0, **common)  # type: ignore[arg-type]
        each = len(order)
    return TrainLoader(loader, batches_of_epoch(each, size, train, world, "images"), train.seed, order)


def test_loader(
    images: ImageData, data: Data, split: str, batch_size: int, failures: Failures | None = None, first: int = 0
) -> DataLoader:
    """Every image of a split ("train", "val" or "test") once, under the test view: (images, class ids, indices).

    Not shared out among processes: accelerate's `prepare` does that. failures: counts the images that do not decode,
    which are zeros and have the label -1 minus the true one; first: the number there of the split's first image.
    Errors: UnknownNameError for another split; UnreadableImageError where `failures` is None.
    """
    chosen: Images | Stream = part_of({"train": images.train, "val": images.val, "test": images.test}, split)
    view = test_transform(data, images.mean, images.std)
    if isinstance(chosen, Stream):
        return in_order(_TestStream(chosen, view, worker_processes(data.workers)), batch_size, data.workers)
    shape = images.in_chans, data.image_size, data.image_size
    return in_order(_TestViews(chosen, view, failures, first, shape), batch_size, data.workers)


# Not a test, whatever pytest makes of its name.
test_loader.__test__ = False  # type: ignore[attr-defined]


class _TrainViews(Dataset):
    """Asked with a key and an image number; answers (tensor, label, key)."""

    def __init__(
        self, images: Images, views: Sequence[Transform], failures: Failures | None, shape: tuple[int, ...]
    ) -> None:
        self.images, self.views, self.failures, self.shape = images, views, failures, shape

    def __getitem__(self, item: tuple[Key, int]) -> tuple[Tensor, int, Key]:
        key, index = item
        image, label = self._read(key, index)
        if image is None:
            return torch.zeros(self.shape if len(self.views) == 1 else (len(self.views), *self.shape)), label, key
        if len(self.views) > 1:
            seen = [self._seen(image, view, (*key, number)) for number, view in enumerate(self.views)]
            return torch.stack(seen), label, key
        return self._seen(image, self.views[0], key), label, key

    def _read(self, key: Key, index: int) -> tuple[Image.Image | None, int]:
        """The image, or one of its class drawn in the place of an unreadable one; none past the limit."""
        failures, labels = self.failures, self.images.labels
        others = np.arange(len(labels))
        for attempt in itertools.count():
            if failures is not None and failures.too_many():
                return None, int(labels[index])
            try:
                return self.images[index]
            except UnreadableImageError as error:
                if failures is None:
                    raise
                failures.add(index, error, "another image of its class takes its place")
                if failures.none_left(others):
                    raise UnreadableImageError("no training image decodes") from error
                alike = np.flatnonzero(labels == labels[index]) if attempt < _TRIES else others
                # Its own draws, so that an image that is read has the same augmentation as ever.
                draws = torch.Generator().manual_seed(derive_seed(*key, attempt))
                index = int(alike[int(torch.randint(len(alike), (), generator=draws))])
        raise AssertionError("unreachable")

    @staticmethod
    def _seen(image: Image.Image, view: Transform, draws: tuple[int, ...]) -> Tensor:
        with torch_seed(*draws):
            return view(image)


class _StreamViews(IterableDataset):
    """The same of a stream, whose images have no place in the epoch but a number within their process."""

    def __init__(self, opened: Any, view: Transform, seed: int, rank: int) -> None:
        self.opened, self.view, self.seed, self.rank, self.epoch = opened, view, seed, rank, 0

    def __iter__(self) -> Iterator[tuple[Tensor, int, Key]]:
        for number, image, label in restart(self.opened, self.epoch):
            key = (self.seed, self.epoch, number)
            with torch_seed(*key, self.rank):
                yield self.view(image), label, key

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _TestViews(Dataset):
    def __init__(
        self, images: Images, view: Transform, failures: Failures | None, first: int, shape: tuple[int, ...]
    ) -> None:
        self.images, self.view, self.failures, self.first, self.shape = images, view, failures, first, shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        try:
            image, label = self.images[index]
        except UnreadableImageError as error:
            if self.failures is None:
                raise
            self.failures.add(self.first + index, error, "the image counts as wrong")
            return torch.zeros(self.shape), marked_lost(int(self.images.labels[index])), index
        return self.view(image), label, index


class _TestStream(IterableDataset):
    def __init__(self, stream: Stream, view: Transform, workers: int) -> None:
        self.opened, self.view = stream.open(training=False, workers=workers), view

    def __iter__(self) -> Iterator[tuple[Tensor, int, int]]:
        for number, image, label in restart(self.opened, 0):
            yield self.view(image), label, number


class _Collate:
    """Stacks items, then mixes the batch where a recipe asks for it."""

    def __init__(self, mixup: Mixup | None, salt: tuple[int, int]) -> None:
        self.mixup, self.salt = mixup, salt

    def __call__(self, items: Sequence[tuple[Tensor, int, Key]]) -> tuple[Tensor, Tensor]:
        images, labels = default_collate([item[:2] for item in items])
        if self.mixup is None:
            return images, labels
        with numpy_seed(*items[0][2], *self.salt):
            return self.mixup(images, labels)
