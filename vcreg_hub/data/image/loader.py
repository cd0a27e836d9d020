"""Batches. Training: timm's repeated-augmentation sampler and mixup on torch's DataLoader, replayable; test: in order.

timm's `create_loader` is not used whole because it brings timm's own views, and because its samplers take no seed and
its workers' random streams cannot be replayed. Here everything random of an epoch is a function of (seed, epoch, place
in the epoch): a resumed run repeats an epoch exactly, whatever the number of workers, and P processes see in each step
the same images, with the same augmentation, as one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from timm.data import Mixup
from timm.data.distributed_sampler import RepeatAugSampler
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    default_collate,
)

from ...config import Data, Train
from ...errors import ConfigError, UnknownNameError
from ..randomness import mixed, numpy_drawn_from, torch_drawn_from
from .images import ImageData, Images
from .stream import Stream, restart
from .transforms import View, test_view, train_view

# What an item's randomness hangs on: (seed, epoch, place in the epoch over all processes).
Key = tuple[int, int, int]


class TrainLoader:
    """This process's micro-batches of an epoch: images (b, c, h, w) float32 and targets, (b,) int64 class ids, or
    (b, classes) probabilities after mixup.

    `len` is the number of micro-batches; whole optimizer steps only, the rest of the images is left out. Call
    `set_epoch` before each epoch; iterating twice without it gives the same batches.
    """

    def __init__(self, loader: DataLoader, batches: int, seed: int, order: Any) -> None:
        self._loader, self._batches, self._seed, self._order = loader, batches, seed, order
        self.set_epoch(0)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A stream's workers shuffle by the seed that torch gives them from this generator.
        self._loader.generator.manual_seed(mixed(self._seed, self._epoch))  # type: ignore[union-attr]
        yield from islice(iter(self._loader), self._batches)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order.set_epoch(epoch)


def train_loader(images: ImageData, data: Data, train: Train, *, rank: int = 0, world: int = 1) -> TrainLoader:
    """Training batches of one process of `world`, each of `train.batch_size / (world * train.accumulation)` images.

    Label smoothing is left to the loss, which does it for mixed targets too. With `data.repeats` above one, images are
    drawn as by torchvision's RASampler: an epoch keeps its length but holds a part of the images, each several times.
    Errors: ConfigError when the batch size does not divide, is odd under mixup, or exceeds the images.
    """
    size, remainder = divmod(train.batch_size, world * train.accumulation)
    if remainder or size == 0:
        raise ConfigError(
            f"train.batch_size={train.batch_size} does not divide into {world} processes x {train.accumulation} "
            "accumulation steps"
        )
    view = train_view(data, images.mean, images.std)
    collate = _Collate(batch_mixing(train, images.num_classes, size), (train.seed, rank))
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
        order: Any = _StreamViews(opened, view, train.seed, rank)
        loader = DataLoader(order, batch_size=size, drop_last=True, **common)
        each = len(images.train) // world
    else:
        order = Order(images.train, data.repeats, train.seed, rank, world)
        batches = torch.utils.data.BatchSampler(order, size, drop_last=True)
        views = _TrainViews(images.train, view)
        loader = DataLoader(views, batch_sampler=batches, persistent_workers=workers > 0, **common)  # type: ignore[arg-type]
        each = len(order)
    steps = each // (size * train.accumulation)
    if steps == 0:
        raise ConfigError(
            f"an epoch has {each * world} images, fewer than one step of train.batch_size={train.batch_size}: lower it"
        )
    return TrainLoader(loader, steps * train.accumulation, train.seed, order)


def test_loader(images: ImageData, data: Data, split: str, batch_size: int) -> DataLoader:
    """Every image of a split ("train", "val" or "test") once, under the test view: (images, class ids, indices).

    Not shared out among processes: accelerate's `prepare` does that. Errors: UnknownNameError for another split.
    """
    if split not in ("train", "val", "test"):
        raise UnknownNameError(f"unknown split {split!r}; known: train, val, test")
    chosen: Images | Stream = getattr(images, split)
    view = test_view(data, images.mean, images.std)
    workers = worker_processes(data.workers)
    views: Dataset = _TestViews(chosen, view) if isinstance(chosen, Images) else _TestStream(chosen, view, workers)
    return DataLoader(
        views,
        batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


# Not a test, whatever pytest makes of its name.
test_loader.__test__ = False  # type: ignore[attr-defined]


class Order(Sampler):
    """The keys and image numbers of this process's epoch, shuffled anew for each (seed, epoch).

    The drawing is done by torch's DistributedSampler, or timm's RepeatAugSampler for repeats. Neither takes what it is
    told for granted: the first adds its seed to the epoch, the second has no seed, so both get a mixed number as epoch.
    """

    def __init__(self, images: Dataset, repeats: int, seed: int, rank: int, world: int) -> None:
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self.sampler: DistributedSampler | RepeatAugSampler
        if repeats > 1:
            self.sampler = RepeatAugSampler(images, world, rank, num_repeats=repeats)
        else:
            self.sampler = DistributedSampler(images, world, rank, drop_last=True)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Key, int]]:
        self.sampler.set_epoch(mixed(self.seed, self.epoch))
        for i, image in enumerate(self.sampler):
            yield (self.seed, self.epoch, i * self.world + self.rank), int(image)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _TrainViews(Dataset):
    """Asked with a key and an image number; answers (tensor, label, key)."""

    def __init__(self, images: Images, view: View) -> None:
        self.images, self.view = images, view

    def __getitem__(self, item: tuple[Key, int]) -> tuple[Tensor, int, Key]:
        key, index = item
        image, label = self.images[index]
        with torch_drawn_from(*key):
            return self.view(image), label, key


class _StreamViews(IterableDataset):
    """The same of a stream, whose images have no place in the epoch but a number within their process."""

    def __init__(self, opened: Any, view: View, seed: int, rank: int) -> None:
        self.opened, self.view, self.seed, self.rank, self.epoch = opened, view, seed, rank, 0

    def __iter__(self) -> Iterator[tuple[Tensor, int, Key]]:
        for number, image, label in restart(self.opened, self.epoch):
            key = (self.seed, self.epoch, number)
            with torch_drawn_from(*key, self.rank):
                yield self.view(image), label, key

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _TestViews(Dataset):
    def __init__(self, images: Images, view: View) -> None:
        self.images, self.view = images, view

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image, label = self.images[index]
        return self.view(image), label, index


class _TestStream(IterableDataset):
    def __init__(self, stream: Stream, view: View, workers: int) -> None:
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
        with numpy_drawn_from(*items[0][2], *self.salt):
            return self.mixup(images, labels)


def batch_mixing(train: Train, classes: int, size: int) -> Mixup | None:
    """timm's batch mixing as torchvision's recipes use it: every batch is mixed, by mixup or CutMix, with equal chance
    where both are on; images pair with the batch reversed (torchvision: with the batch shifted by one)."""
    if not train.mixup and not train.cutmix:
        return None
    if size % 2:
        raise ConfigError(
            f"mixup pairs the images of a batch: train.batch_size / processes / accumulation is {size}, must be even"
        )
    return Mixup(train.mixup, train.cutmix, prob=1.0, switch_prob=0.5, label_smoothing=0.0, num_classes=classes)


def worker_processes(asked: int) -> int:
    """No more worker processes than processors that this process may use."""
    return min(asked, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
