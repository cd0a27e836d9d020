"""The unreadable clips of a run."""

from __future__ import annotations

import logging

import numpy as np
import torch

from .decode import UnreadableVideoError
from .index import VideoIndex

_logger = logging.getLogger("vcreg_hub")


class Failures:
    """The undecodable clips of an index, shared by all worker processes of this process's loaders.

    flags: (clips,) uint8, 1 for a clip that failed. limit: `video.max_failed`. A loader never stops a run, which would
    leave other processes waiting for this one's next step: past the limit it hands out empty clips, and whoever trains
    looks at the flags of all processes together (`run.training`).
    """

    def __init__(self, index: VideoIndex, limit: int) -> None:
        self.index, self.limit = index, limit
        self.flags = torch.zeros(len(index.clips), dtype=torch.uint8).share_memory_()

    def add(self, number: int, error: UnreadableVideoError, meaning: str) -> None:
        """Warn at a clip's first failure, with its consequence."""
        if not self.flags[number]:
            self.flags[number] = 1
            _logger.warning("%s; %s (%d clips so far)", error, meaning, self.count())

    def count(self) -> int:
        return int(self.flags.sum())

    def too_many(self) -> bool:
        """Whether this process alone has met more than the limit."""
        return self.count() > self.limit

    def none_left(self, numbers: np.ndarray) -> bool:
        """Whether all clips of these numbers failed."""
        return bool(self.flags.numpy()[numbers].all())

    def paths(self, flags: torch.Tensor, numbers: np.ndarray) -> list[str]:
        """The failed files among clips `numbers` by `flags`, of this process or summed over several."""
        return [self.index.clips[number].path for number in numbers[flags.numpy()[numbers] > 0]]


def marked_lost(label: int) -> int:
    """The label of an unreadable clip: negative, so that no prediction is right, and its own inverse."""
    return -1 - label
