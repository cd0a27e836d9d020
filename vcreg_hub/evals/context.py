"""The material of an evaluation: a trained network, the data asked for, and frozen features, extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Data, Eval, Evaluation
from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import nn

    from ..data.module import DataModule

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Context:
    """A network and its training data.

    settings: the split to measure on, and the batch size. load: reads a data set that an evaluation names for itself.
    """

    network: nn.Module
    trained_on: DataModule
    settings: Eval
    accelerator: Any
    load: Callable[[Data], DataModule]
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
        if data.in_chans != self.trained_on.in_chans:
            raise ConfigError(
                f"{wanted.name} has {data.in_chans} channels, but the network takes {self.trained_on.in_chans}, "
                f"as {self.trained_on.cfg.name} has"
            )
        return data

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
            rows, seen = _extract(self.network, self.batches(data, split), self.accelerator)
            if labels is not None and not np.array_equal(np.where(seen < 0, -1 - seen, seen), labels):
                raise DataError(f"{data.cfg.name}, {split}: batches came in another order than the data set's")
            self._features[key] = rows, seen
        rows, seen = self._features[key]
        return rows, seen if labels is None else np.where(seen < 0, -1 - labels, labels)


def _extract(network: nn.Module, batches: Iterable[Any], accelerator: Any) -> Rows:
    """Features and labels of prepared batches. The network is put into evaluation mode and back."""
    import torch

    from ..models.outputs import features

    was_training = network.training
    network.eval()
    rows, targets = [], []
    with torch.no_grad():
        for samples, labels, *_ in batches:
            with accelerator.autocast():
                found = features(network, samples).float()
            found, labels = accelerator.gather_for_metrics((found, labels))
            rows.append(found.cpu().numpy())
            targets.append(labels.cpu().numpy())
    network.train(was_training)
    if not rows:
        raise DataError("there is no image to extract features from: the split is empty")
    return np.concatenate(rows), np.concatenate(targets).astype(np.int64)
