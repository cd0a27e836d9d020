"""The material of an evaluation: a trained network, the data asked for, and frozen features, extracted once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Data, Eval, Evaluation
from ..errors import ConfigError
from .extraction import extract

if TYPE_CHECKING:
    from torch import nn

    from ..data.module import DataModule

Rows = tuple[np.ndarray, np.ndarray]
_logger = logging.getLogger("vcreg_hub")


@dataclass(frozen=True)
class Context:
    """A network and its training data.

    settings: the split to measure on, and the batch size. load: reads a data set that an evaluation names for itself.
    cache: the folder that features are kept in; None keeps them in memory alone.
    """

    network: nn.Module
    trained_on: DataModule
    settings: Eval
    accelerator: Any
    load: Callable[[Data], DataModule]
    cache: Path | None = None
    _loaded: dict[Data, DataModule] = field(default_factory=dict, repr=False)
    # Of one network: a copy with another one starts anew.
    _features: dict[tuple[Data, str], Rows] = field(init=False, default_factory=dict, repr=False)

    def data(self, evaluation: Evaluation) -> DataModule:
        """The data set of an evaluation under its labels; read once.

        Errors: those of reading it; ConfigError for other channels than those of the training.
        """
        own = evaluation.data or self.trained_on.cfg
        wanted = own if evaluation.labels is None else replace(own, labels=evaluation.labels)
        if wanted == self.trained_on.cfg:
            return self.trained_on
        if wanted not in self._loaded:
            self._loaded[wanted] = self.load(wanted)
        data = self._loaded[wanted]
        takes = self.trained_on.in_chans
        if data.in_chans == takes:
            return data
        if wanted.channels is not None or (takes != 1 and takes != 3):
            raise ConfigError(
                f"{wanted.name} has {data.in_chans} channels, but the network takes {takes}, "
                f"as {self.trained_on.cfg.name} has"
            )
        recoloured = replace(wanted, channels=1 if takes == 1 else 3)
        self._loaded[wanted] = self._loaded[recoloured] = self.load(recoloured)
        _logger.warning(
            "%s has %d channels, the network takes %d: its images are shown in %s",
            wanted.name, data.in_chans, takes, "grey" if takes == 1 else "three equal channels",
        )  # fmt: skip
        return self._loaded[wanted]

    def batches(self, data: DataModule, split: str | None = None) -> Any:
        """(samples, labels, ...) of a split (`settings.split`) under one view, each process's share of it."""
        return self.accelerator.prepare(data.eval_batches(split or self.settings.split, self.settings.batch_size))

    def features(self, evaluation: Evaluation, split: str | None = None) -> Rows:
        """The classifier's input for every sample of a split (`settings.split`), in order, the same on every
        process: (n, d) float32; and labels (n,) int64, -1 minus its label for an unreadable sample.

        They are extracted once for a network, data set and split, whatever the labels.
        """
        data, split = self.data(evaluation), split or self.settings.split
        labels = data.labels(split)
        key = (data.cfg if labels is None else replace(data.cfg, labels=""), split)
        if key not in self._features:
            found = extract(
                self.network,
                data.eval_batches(split, self.settings.batch_size),
                self.accelerator,
                data=None if self.cache is None else data.fingerprint(split),
                cache=self.cache,
                expected=labels,
            )
            self._features[key] = found.arrays["pooled"], found.labels
        rows, seen = self._features[key]
        return rows, seen if labels is None else np.where(seen < 0, -1 - labels, labels)
