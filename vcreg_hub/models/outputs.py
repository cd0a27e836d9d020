"""A network's outputs: its logits, and the features at its classifier's input."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..placement.sites import Site, find_blocks


def logits(output: Any) -> Tensor:
    """The logits (n, classes) in a network's output: a tensor, a transformers ModelOutput, or a tuple of them."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise UsageError(f"a {type(output).__name__} holds no logits: expected a tensor, or an output with .logits")


# Where the classifiers of a network were found, so that it is not traced for every batch.
_CLASSIFIERS: weakref.WeakKeyDictionary[nn.Module, list[Site]] = weakref.WeakKeyDictionary()


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The classifier's input, (n, d), for images x (n, c, h, w): the place regularized by `where="final"`.

    Positions are averaged where the classifier sees a map; two classifiers' inputs are put side by side. Call it in
    evaluation mode, or dropout before the classifier is part of it. Errors: BlocksNotFoundError without a classifier.
    """
    found = _captured(model, x, _CLASSIFIERS.get(model, []))
    if not found:  # a first call, or the classifier has been replaced since
        _CLASSIFIERS[model] = find_blocks(model, "final", x[:1])
        found = _captured(model, x, _CLASSIFIERS[model])
    return torch.cat(found, dim=1)


def _captured(model: nn.Module, x: Tensor, sites: list[Site]) -> list[Tensor]:
    """The inputs of `sites` in one forward pass, each (n, d); empty when none of them is called."""
    found: dict[str, Tensor] = {}

    def keep(site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].movedim(site.channel_axis, -1)
            found[site.name] = rows.flatten(1, -2).mean(1) if rows.ndim > 2 else rows

        return hook

    handles = [site.module.register_forward_pre_hook(keep(site)) for site in sites]
    try:
        if handles:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return [found[site.name] for site in sites if site.name in found]
