"""A data set in splits and batches, images or clips behind one face. It knows nothing of networks or evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..config import Data, Train
from ..files import JSON
from .datasets import IMAGE_SETS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.utils.data import DataLoader

    from .batches import TrainLoader
    from .image.module import ImageData
    from .points import PointData
    from .video.datasets import VideoData

Lost = dict[str, list[str]]


@dataclass(frozen=True)
class DataModule:
    """The splits "train", "val" and "test" of a data set under one label set; "val" may be empty.

    cfg: the settings that it was read by. sets: the samples of each split. noun: what they are called, in the plural.
    in_groups: whether `train.class_groups` is followed.
    str(): name, labels and split, for a line of text.
    """

    cfg: Data
    sets: ImageData | PointData | VideoData
    noun: ClassVar[str] = "samples"
    in_groups: ClassVar[bool] = False

    @property
    def class_names(self) -> Sequence[str]:
        return self.sets.class_names

    @property
    def num_classes(self) -> int:
        return self.sets.num_classes

    @property
    def in_chans(self) -> int:
        return self.sets.in_chans

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        return self.sets.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of pixels in [0, 1]."""
        return self.sets.std

    @property
    def metric(self) -> Literal["top1", "mean_per_class"]:
        """What papers report on it, and what chooses a penalty or a rate."""
        row = IMAGE_SETS.get(self.cfg.name)
        return "top1" if row is None else row.metric

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample, as a network takes it."""
        raise NotImplementedError

    @property
    def single_view(self) -> str:
        """How `eval_batches` look at a sample, in words."""
        raise NotImplementedError

    def size(self, split: str) -> int:
        """Samples of a split."""
        return len(getattr(self.sets, split))

    def labels(self, split: str) -> np.ndarray | None:
        """(n,) int64 class ids in the order of `eval_batches`; None of a stream, unknown before it is read."""
        raise NotImplementedError

    def where(self, split: str, number: int) -> str:
        """File, or part and row, of a sample, by its place in `eval_batches`."""
        return f"sample {number} of {split}"

    def fingerprint(self, split: str) -> str | None:
        """A hash of the samples of a split and of how `eval_batches` show them; None where they cannot be told apart
        without reading them all."""
        return None

    @property
    def class_counts(self) -> tuple[int, ...] | None:
        """Training samples of each class; None of a stream."""
        labels = self.labels("train")
        if labels is None:
            return None
        return tuple(int((labels == label).sum()) for label in range(self.num_classes))

    def train_batches(self, train: Train, rank: int, world: int, views: int = 1) -> TrainLoader:
        """One process's training batches of an epoch, of `world` processes. views: of a sample, side by side."""
        raise NotImplementedError

    def eval_batches(self, split: str, batch_size: int) -> DataLoader:
        """(samples, labels, numbers) of a split in order, under one fixed view; not yet shared out among processes."""
        raise NotImplementedError

    def take(self, split: str, places: Sequence[int], batch_size: int) -> DataLoader:
        """Gives what `eval_batches` gives, of the samples at some places of a split alone, in that order."""
        from torch.utils.data import DataLoader, Subset

        whole = self.eval_batches(split, batch_size)
        return DataLoader(Subset(whole.dataset, places), batch_size, collate_fn=whole.collate_fn)

    @property
    def fold(self) -> int | None:
        """The number of this train/test split, of a data set with several; None with one."""
        return None

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the noise on the samples; None without."""
        return None

    def describe(self) -> JSON:
        """The data as a publisher needs them, in JSON: sizes, classes and the preprocessing of the test view."""
        return {
            "name": self.cfg.name,
            "labels": self.cfg.labels,
            **{split: self.size(split) for split in ("train", "val", "test")},
            "classes": list(self.class_names),
            "in_chans": self.in_chans,
            "mean": list(self.mean),
            "std": list(self.std),
            "image_size": self.cfg.image_size,
        }

    def lost(self) -> Tensor | None:
        """Flags of the samples unreadable to this process so far; None if a single one ends the run."""
        return None

    def lost_paths(self, flags: Tensor) -> Lost:
        """The lost files by `flags`, summed over all processes: split -> paths, without empty splits."""
        return {}

    def refuse_lost(self, paths: Lost) -> None:
        """Errors: DataError for more lost samples than the settings allow."""

    def __str__(self) -> str:
        return f"{self.cfg.title}/{self.cfg.labels}"
