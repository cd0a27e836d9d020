"""The material of an evaluation: a trained network, the data asked for, and frozen features, extracted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..config import Data, Eval, Evaluation, Optim, Train
from ..errors import ConfigError, DataError, some
from ..files import JSON
from .extraction import extract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.module import DataModule

# Samples whose features at every block are made at a time.
_AT_A_TIME = 64

Rows = tuple[np.ndarray, np.ndarray]


class BlockRows(NamedTuple):
    """What some samples of a split give at each block, rows in one order.

    places: (n,) of the samples in the split. features: name of the site -> (n, d) float32, positions averaged. scores:
    (n, classes), what the network says. inputs: (n, e), the samples in 8 x 8 pixels, frames averaged.
    """

    places: np.ndarray
    features: dict[str, Tensor]
    scores: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Context:
    """A network and its training data.

    settings: the split to measure on, and the batch size. load: reads a data set that an evaluation names for itself.
    cache: the folder that features are kept in; None keeps them in memory alone. tune: gives a copy of the network that
    is trained whole on other data.
    """

    network: nn.Module
    trained_on: DataModule
    settings: Eval
    accelerator: Any
    load: Callable[[Data], DataModule]
    cache: Path | None = None
    tune: Callable[[nn.Module, DataModule, Optim, Train], nn.Module] | None = None
    _loaded: dict[Data, DataModule] = field(default_factory=dict, repr=False)
    # Of one network: a copy with another one starts anew.
    _notes: dict[int, tuple[JSON, JSON | None]] = field(init=False, default_factory=dict, repr=False)
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
        return self._loaded[wanted]

    def note(self, evaluation: Evaluation, details: JSON | None = None, **extra: Any) -> None:
        """Tell more than metrics. extra: goes into each row of results.json, such as a penalty that was chosen.
        details: JSON values that get a file of their own in the run folder, such as a whole search."""
        self._notes[id(evaluation)] = extra, details

    def noted(self, evaluation: Evaluation) -> tuple[JSON, JSON | None]:
        """The extra and the details that an evaluation told `note`."""
        return self._notes.get(id(evaluation), ({}, None))

    def batches(self, data: DataModule, split: str | None = None) -> Any:
        """(samples, labels, ...) of a split (`settings.split`) under one view, each process's share of it."""
        return self.accelerator.prepare(data.eval_batches(split or self.settings.split, self.settings.batch_size))

    def at_blocks(self, evaluation: Evaluation, split: str, where: str, samples: int) -> BlockRows:
        """Gives the features at the sites of `where` and at what enters the classifier, of a fair share of every class.

        samples: how many of the split, at most. Every process reads them all. Errors: BlocksNotFoundError; DataError
        for a stream, whose labels are not known before it is read.
        """
        import torch
        from torch.nn import functional as F

        from ..data.splits import stratified
        from ..models.outputs import features_at, logits
        from ..placement.sites import Site, find_blocks

        data = self.data(evaluation)
        labels = data.labels(split)
        if labels is None:
            raise DataError(f"{data.cfg.name} is a stream: the blocks are looked at on samples of every class")
        places = stratified(labels, samples, seed=0)
        batches = data.take(split, places.tolist(), min(_AT_A_TIME, self.settings.batch_size))
        network, device = self.network, self.accelerator.device
        was_training = network.training
        network.eval()
        kept: dict[str, list[Tensor]] = {}
        scores, inputs = [], []
        sites: list[Site] = []
        with torch.no_grad():
            for batch, *_ in batches:
                if not sites:
                    sites = find_blocks(network, where, batch[:1])
                    final = find_blocks(network, "final", batch[:1])
                    sites += [replace(one, name=f"{one.name} (input)") for one in final]
                batch = batch.to(device)
                with self.accelerator.autocast():
                    found, output = features_at(network, batch, sites)
                scores.append(logits(output).float().cpu())
                for name, rows in found.items():
                    kept.setdefault(name, []).append(rows.float().cpu())
                still = batch.float().mean(1) if batch.ndim == 5 else batch.float()
                inputs.append(F.adaptive_avg_pool2d(still, 8).flatten(1).cpu())
        network.train(was_training)
        if not scores:
            raise DataError(f"there is no sample of {data.cfg.name}, {split}, to look at blocks with")
        features = {name: torch.cat(rows) for name, rows in kept.items()}
        return BlockRows(places, features, torch.cat(scores), torch.cat(inputs))

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
        seen = seen if labels is None else np.where(seen < 0, -1 - labels, labels)
        _refuse_broken(rows, seen, data, split)
        return rows, seen

    def predictions(self, evaluation: Evaluation, split: str | None = None) -> np.ndarray:
        """Gives the class (n,) that the network answers for every sample of a split, in order, on every process."""
        import torch

        from ..models.outputs import logits

        data = self.data(evaluation)
        was_training = self.network.training
        self.network.eval()
        found = []
        with torch.no_grad():
            for samples, *_ in self.batches(data, split):
                with self.accelerator.autocast():
                    answers = logits(self.network(samples)).argmax(1)
                found.append(self.accelerator.gather_for_metrics(answers).cpu().numpy())
        self.network.train(was_training)
        return np.concatenate(found)


def _refuse_broken(rows: np.ndarray, labels: np.ndarray, data: DataModule, split: str) -> None:
    """Errors: DataError naming the samples whose features are not finite. One that could not be read has none."""
    broken = np.flatnonzero((labels >= 0) & ~np.isfinite(rows).all(1))
    if len(broken):
        where = some([data.where(split, int(number)) for number in broken[:6]], most=5)
        raise DataError(
            f"{data}, {split}: the features of {len(broken):,} of {len(rows):,} samples are not finite, such as of "
            f"{where}. Look at these files; where it is all of them, the training has diverged"
        )
