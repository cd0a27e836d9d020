"""Fine-tunes a copy of a network on the data set of an evaluation, by the training loop of every run."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..config import Optim, Recipe, Train
from ..data.module import DataModule
from ..errors import ConfigError
from ..placement.sites import find_blocks
from ..rundir import RunDir
from ..tasks.classification import Classification
from ..tasks.task import TaskModule
from ..training.loop import EpochEnd, Finished, fit
from ..training.optim import says_its_layers
from .build import example_input


def tuned(
    recipe: Recipe, network: nn.Module, data: DataModule, optim: Optim, train: Train, accelerator: Any
) -> nn.Module:
    """A copy of the network with a fresh classifier, all of it trained on the data set's classes; the network stays.

    Errors: ConfigError for a classifier that is not linear, or batches that do not divide; DivergedError.
    """
    sample = example_input(data)
    copied = _with_fresh_classifier(network, data.num_classes, sample, train.seed)
    layers = optim.layer_decay is not None and not says_its_layers(copied)
    blocks = [site.name for site in find_blocks(copied, "blocks")] if layers else []
    asked = replace(recipe, optim=optim, train=train, task=Classification(), vcreg=None)
    module = TaskModule(asked.task, copied, train, sample)
    batches = data.train_batches(train, accelerator.process_index, accelerator.num_processes)
    with tempfile.TemporaryDirectory() as scratch:  # the loop's weights and state, which nobody asks for again
        events: Iterator[Any] = fit(
            asked, module, batches, folder=RunDir(scratch), accelerator=accelerator, blocks=blocks
        )
        for event in events:
            if isinstance(event, (EpochEnd, Finished)):
                final = event.network
    accelerator.wait_for_everyone()
    return final.eval()


def _with_fresh_classifier(network: nn.Module, classes: int, sample: torch.Tensor, seed: int) -> nn.Module:
    """A copy whose linear classifiers have `classes` outputs, weights of N(0, 0.01) and no bias yet."""
    copied = copy.deepcopy(network)
    random = torch.Generator().manual_seed(seed)
    for site in find_blocks(copied, "final", sample.to(next(copied.parameters()).device)):
        old = site.module
        if not isinstance(old, nn.Linear):
            raise ConfigError(f"finetune needs a linear classifier, but {site.name} is a {type(old).__name__}")
        head = nn.Linear(old.in_features, classes)
        with torch.no_grad():
            head.weight.normal_(0, 0.01, generator=random)
            head.bias.zero_()
        parent, _, leaf = site.name.rpartition(".")
        setattr(copied.get_submodule(parent), leaf, head.to(old.weight.device, old.weight.dtype))
    return copied
