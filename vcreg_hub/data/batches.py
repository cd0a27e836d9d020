"""Repeatable batches of an epoch: timm's repeated-augmentation sampler and mixup on torch's DataLoader.

timm's `create_loader` is not used whole because it brings timm's own views, and because its samplers take no seed and
its workers' random streams cannot be replayed. Here everything random of an epoch is a function of (seed, epoch, place
in the epoch): a resumed run repeats an epoch exactly, whatever the number of workers, and P processes see in each step
the same samples, with the same augmentation, as one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from timm.data import Mixup
from timm.data.distributed_sampler import RepeatAugSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler

from ..config import Train
from ..errors import ConfigError, UnknownNameError
from .randomness import derive_seed

# What an item's randomness hangs on: (seed, epoch, place in the epoch over all processes).
Key = tuple[int, int, int]
Part = TypeVar("Part")


class TrainLoader:
    """This process's micro-batches of an epoch: samples (b, ...) float32 and targets, (b,) int64 class ids, or
    (b, classes) probabilities after mixup.

    `len` is the number of micro-batches; whole optimizer steps only, the rest of the images is left out. Call
    `set_epoch` before each epoch; iterating twice without it gives the same batches.
    rereads: whether what was seen of an epoch has to be read again to go on in it, as of a stream.
    """

    def __init__(self, loader: DataLoader, batches: int, seed: int, order: Any) -> None:
        self._loader, self._batches, self._seed, self._order = loader, batches, seed, order
        self.rereads = isinstance(loader.dataset, IterableDataset)
        self._numbered = isinstance(order, (Order, GroupedOrder))
        self.set_epoch(0)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A stream's workers shuffle by the seed that torch gives them from this generator.
        self._loader.generator.manual_seed(derive_seed(self._seed, self._epoch))  # type: ignore[union-attr]
        read = 0 if self._numbered else self._seen
        yield from islice(iter(self._loader), read, read + self._batches - self._seen)

    def set_epoch(self, epoch: int, seen: int = 0) -> None:
        """seen: the micro-batches at its beginning that are left out: not read at all where samples have numbers, read
        and thrown away of a stream, which has no other way to them."""
        self._epoch, self._seen = epoch, seen
        self._order.set_epoch(epoch)
        if self._numbered:
            self._order.start = seen * self._loader.batch_sampler.batch_size  # type: ignore[union-attr]


class Order(Sampler):
    """The keys and image numbers of this process's epoch, shuffled anew for each (seed, epoch).

    The drawing is done by torch's DistributedSampler, or timm's RepeatAugSampler for repeats. Neither takes what it is
    told for granted: the first adds its seed to the epoch, the second has no seed, so both get a mixed number as epoch.
    """

    def __init__(self, images: Dataset, repeats: int, seed: int, rank: int, world: int) -> None:
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self.start = 0  # samples at the beginning of the epoch that are left out
        self.sampler: DistributedSampler | RepeatAugSampler
        if repeats > 1:
            self.sampler = RepeatAugSampler(images, world, rank, num_repeats=repeats)
        else:
            self.sampler = DistributedSampler(images, world, rank, drop_last=True)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Key, int]]:
        self.sampler.set_epoch(derive_seed(self.seed, self.epoch))
        for i, image in islice(enumerate(self.sampler), self.start, None):
            yield (self.seed, self.epoch, i * self.world + self.rank), int(image)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class GroupedOrder(Sampler):
    """As `Order`, over one group of images after another: each for the same number of epochs, and a group's epoch as
    long as that of the smallest.

    labels: (n,) class ids of the images. Errors: ConfigError where classes or epochs do not divide into the groups.
    """

    def __init__(self, labels: np.ndarray, classes: int, repeats: int, train: Train, rank: int, world: int) -> None:
        groups = train.class_groups
        if classes % groups or train.epochs % groups:
            raise ConfigError(
                f"train.class_groups={groups} does not divide both the {classes} classes and the "
                f"train.epochs={train.epochs} epochs: choose a number that does"
            )
        self.epochs = train.epochs // groups
        self.groups = [np.flatnonzero(labels // (classes // groups) == group) for group in range(groups)]
        self.orders = [Order(indices, repeats, train.seed, rank, world) for indices in self.groups]  # type: ignore[arg-type]
        self.group = self.start = 0

    def __len__(self) -> int:
        return min(map(len, self.orders))

    def __iter__(self) -> Iterator[tuple[Key, int]]:
        indices = self.groups[self.group]
        for key, place in islice(self.orders[self.group], self.start, len(self)):
            yield key, int(indices[place])

    def set_epoch(self, epoch: int) -> None:
        self.group = min(epoch // self.epochs, len(self.groups) - 1)
        self.orders[self.group].set_epoch(epoch)


def share_of_batch(train: Train, world: int) -> int:
    """Samples of a micro-batch of one process. Errors: ConfigError for an indivisible batch size."""
    size, remainder = divmod(train.batch_size, world * train.accumulation)
    if remainder or size == 0:
        raise ConfigError(
            f"train.batch_size={train.batch_size} does not divide into {world} processes x {train.accumulation} "
            "accumulation steps"
        )
    return size


def batches_of_epoch(each: int, size: int, train: Train, world: int, noun: str) -> int:
    """Micro-batches of whole steps, for `each` samples on a process. Errors: ConfigError for less than one step."""
    steps = each // (size * train.accumulation)
    if steps == 0:
        raise ConfigError(
            f"an epoch has {each * world} {noun}, fewer than one step of train.batch_size={train.batch_size}: lower it"
        )
    return steps * train.accumulation


def batch_mixing(train: Train, classes: int, size: int, views: int = 1) -> Mixup | None:
    """timm's batch mixing as torchvision's recipes use it: every batch is mixed, by mixup or CutMix, with equal chance
    where both are on; images pair with the batch reversed (torchvision: with the batch shifted by one)."""
    if not train.mixup and not train.cutmix:
        return None
    if views > 1:
        raise ConfigError(f"train.mixup and train.cutmix mix one view of a sample, but the task takes {views}")
    if size % 2:
        raise ConfigError(
            f"mixup pairs the images of a batch: train.batch_size / processes / accumulation is {size}, must be even"
        )
    return Mixup(train.mixup, train.cutmix, prob=1.0, switch_prob=0.5, label_smoothing=0.0, num_classes=classes)


def worker_processes(asked: int) -> int:
    """No more worker processes than this process's processors."""
    return min(asked, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def in_order(samples: Dataset, batch_size: int | None, workers: int) -> DataLoader:
    """Every item once and in order. Not shared out among processes: accelerate's `prepare` does it."""
    return DataLoader(
        samples,
        batch_size,
        num_workers=worker_processes(workers),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # so that starting workers takes no number from the run's own generator
    )


def part_of(parts: dict[str, Part], split: str) -> Part:
    """The split of that name. Errors: UnknownNameError."""
    if split not in parts:
        raise UnknownNameError(f"unknown split {split!r}; known: {', '.join(parts)}")
    return parts[split]
