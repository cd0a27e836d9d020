"""Looks at the blocks of a network during training: a row of numbers on one batch outside the training samples.

It is kept off the critical path by looking seldom: a look is a forward pass of at most 256 samples and sums over their
features, and between two looks at least 64 samples are trained for each one that is looked at. A training sample costs
about three forward passes, so that is about half a percent.

    4,000 training images a epoch, 256 looked at: every 5th epoch (256 * 64 / 4,000 = 4.1), and the last one
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analysis.collapse import ClassMoments, cdnv_of
from ..analysis.spectrum import collapsed_share, effective_rank
from ..config import Recipe
from ..data.module import DataModule
from ..data.splits import stratified
from ..errors import BlocksNotFoundError
from ..models.outputs import features_at
from ..placement.sites import Site, find_blocks
from ..training.snapshots import Row
from .build import example_input

_SAMPLES, _CLASSES = 256, 32
_TRAINED_FOR_EACH = 64
# Of the batch that is kept: 64 million floats are 256 images of 224 x 224, or 27 clips of 16 such frames.
_MOST_FLOATS = 2**26
_AT_A_TIME = 64


@dataclass(frozen=True)
class Monitor:
    """A batch, and the sites of a network whose features it is looked at by.

    part: "val", or "train" where nothing is held out: the test samples are not looked at while training. every: epochs
    between two looks.
    """

    sites: tuple[Site, ...]
    samples: Tensor
    labels: Tensor
    part: str
    every: int
    last: int
    accelerator: Any

    @classmethod
    def of(cls, recipe: Recipe, data: DataModule, network: nn.Module, accelerator: Any) -> Monitor | None:
        """The monitor of a run; None where the network has no blocks to be found, or the labels of a stream are not
        known before it is read."""
        part = "val" if data.size("val") else "train"
        labels = data.labels(part)
        if labels is None or not accelerator.is_main_process:
            return None
        try:
            sites = find_blocks(network, recipe.where, example_input(data))
        except BlocksNotFoundError:
            return None
        chosen = _some(labels, min(_SAMPLES, max(2, _MOST_FLOATS // math.prod(data.input_shape))))
        batches = [(samples, seen) for samples, seen, *_ in data.take(part, chosen, _AT_A_TIME)]
        every = math.ceil(_TRAINED_FOR_EACH * len(chosen) / data.size("train"))
        return cls(
            tuple(sites), torch.cat([samples for samples, _ in batches]), torch.cat([seen for _, seen in batches]),
            part, every, recipe.train.epochs, accelerator,
        )  # fmt: skip

    def due(self, epoch: int, ended: bool) -> bool:
        """Whether there is a look after this epoch, from 1. ended: it is the run's last."""
        return ended or epoch == self.last or epoch % self.every == 0

    @torch.no_grad()
    def row(self, network: nn.Module) -> Row:
        """Effective rank, collapsed share and CDNV at each site, as columns "val_cdnv/<site>". Features that are not
        finite, or of one class, give none. The network is left as it was found."""
        was_training = network.training
        network.eval()
        sites = [replace(site, module=network.get_submodule(site.name)) for site in self.sites]
        parts: dict[str, list[Tensor]] = {}
        for batch in self.samples.split(_AT_A_TIME):
            with self.accelerator.autocast():
                found, _ = features_at(network, batch.to(self.accelerator.device), sites)
            for name, rows in found.items():
                parts.setdefault(name, []).append(rows.float())
        network.train(was_training)
        row: Row = {}
        read = self.labels >= 0
        for name, rows in ((name, torch.cat(some).cpu()[read]) for name, some in parts.items()):
            if not torch.isfinite(rows).all():
                continue
            found_here = {"effective_rank": effective_rank(rows), "collapsed": collapsed_share(rows)}
            moments = ClassMoments.of([(rows, self.labels[read])])
            if len(moments.classes) > 1:
                found_here["cdnv"] = cdnv_of(moments)
            row |= {f"{self.part}_{of}/{name}": float(f"{value:.6g}") for of, value in found_here.items()}
        return {name: value for name, value in row.items() if math.isfinite(value)}


def _some(labels: np.ndarray[Any, Any], count: int) -> list[int]:
    """Places of `count` samples, of at most 32 classes; the same for the same labels."""
    classes = np.unique(labels)
    kept = np.linspace(0, len(classes) - 1, min(len(classes), _CLASSES, max(2, count // 2))).round().astype(int)
    places = np.flatnonzero(np.isin(labels, classes[kept]))
    found: list[int] = places[stratified(labels[places], count, seed=0)].tolist()
    return found
