"""The unreadable samples of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..errors import DataError

_logger = logging.getLogger("vcreg_hub")


class Failures:
    """The undecodable ones of `count` numbered samples, shared by all worker processes of this process's loaders.

    flags: (count,) uint8, 1 for a sample that failed. limit: `max_failed`. noun: of the samples, in the plural. A
    loader never stops a run, which would leave other processes waiting for this one's next step: past the limit it
    hands out empty samples, and whoever trains looks at the flags of all processes together (`DataModule.refuse_lost`).
    """

    def __init__(self, count: int, limit: int, noun: str = "clips") -> None:
        self.limit, self.noun = limit, noun
        self.flags = torch.zeros(count, dtype=torch.uint8).share_memory_()

    def add(self, number: int, error: DataError, meaning: str) -> None:
        """Warn at a sample's first failure, with its consequence."""
        if not self.flags[number]:
            self.flags[number] = 1
            _logger.warning("%s; %s (%d %s so far)", error, meaning, self.count(), self.noun)

    def count(self) -> int:
        return int(self.flags.sum())

    def too_many(self) -> bool:
        """Whether this process alone has met more than the limit."""
        return self.count() > self.limit

    def none_left(self, numbers: np.ndarray) -> bool:
        """Whether all samples of these numbers failed."""
        return bool(self.flags.numpy()[numbers].all())


def marked_lost(label: int) -> int:
    """The label of an unreadable sample: negative, so that no prediction is right, and its own inverse."""
    return -1 - label


def too_many_lost(paths: Mapping[str, Sequence[str]], noun: str, field: str, limit: int) -> str:
    """What to say of more unreadable training and validation samples than a setting allows; nothing of fewer."""
    learned = [*paths.get("train", ()), *paths.get("val", ())]
    if len(learned) <= limit:
        return ""
    more = " ..." if len(learned) > 5 else ""
    return f"{len(learned)} {noun} failed to decode, {field} is {limit}: {', '.join(learned[:5])}{more}"
