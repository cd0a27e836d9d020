"""A data set in splits and batches, images or clips behind one face. It knows nothing of networks or evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..config import Data, Train, Video

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.utils.data import DataLoader

    from .batches import TrainLoader


class DataModule(Protocol):
    """The splits "train", "val" and "test" of a data set under one label set; "val" may be empty.

    cfg: the settings that it was read by. mean / std: per channel, of pixels in [0, 1]. input_shape: of one sample.
    single_view: how `eval_batches` look at a sample, in words. noun: what the samples are called, in the plural.
    str(): name, labels and split, for a line of text.
    """

    @property
    def cfg(self) -> Data: ...

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def in_chans(self) -> int: ...

    @property
    def mean(self) -> Sequence[float]: ...

    @property
    def std(self) -> Sequence[float]: ...

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def single_view(self) -> str: ...

    @property
    def noun(self) -> str: ...

    def size(self, split: str) -> int:
        """Samples of a split."""

    def labels(self, split: str) -> np.ndarray | None:
        """(n,) int64 class ids in the order of `eval_batches`; None of a stream, which knows none before it is read."""

    def train_batches(self, train: Train, rank: int, world: int, views: int = 1) -> TrainLoader:
        """One process's training batches of an epoch, of `world` processes. views: of a sample, side by side."""

    def eval_batches(self, split: str, batch_size: int) -> DataLoader:
        """(samples, labels, numbers) of a split in order, under one fixed view; not yet shared out among processes."""

    def row_fields(self) -> dict[str, Any]:
        """What a metric's row says besides, so that numbers of other data never merge with it."""

    def describe(self) -> dict[str, Any]:
        """What a publisher must know of the data, as JSON: sizes, classes and the preprocessing of the test view."""

    def lost(self) -> Tensor | None:
        """Flags of the samples that this process could not read so far; None where that cannot be."""

    def lost_paths(self, flags: Tensor) -> dict[str, list[str]]:
        """The files that `flags`, summed over all processes, say are lost: split -> paths, without empty splits."""

    def refuse_lost(self, paths: dict[str, list[str]]) -> None:
        """Errors: DataError where more are lost than the settings allow."""


def load_data(cfg: Data, video: Video | None = None) -> DataModule:
    """The images that the settings name, or with `video` its clips.

    Errors: those of `load_images` and `load_videos`.
    """
    if video is None:
        from .image.module import ImageModule

        return ImageModule.load(cfg)
    from .video.module import VideoModule

    return VideoModule.load(cfg, video)
