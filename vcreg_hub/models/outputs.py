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
    return _at_classifier(model, x, cut=False)[0]


def features_and_logits(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """`features` (n, d), and the logits (n, classes) of the same forward pass, from whose loss only the classifier
    learns: no gradient leaves it. Errors: those of both."""
    found, output = _at_classifier(model, x, cut=True)
    return found, logits(output)


def _at_classifier(model: nn.Module, x: Tensor, cut: bool) -> tuple[Tensor, Any]:
    """What enters the classifier, (n, d), and what the model returns."""
    found, output = _captured(model, x, _CLASSIFIERS.get(model, []), cut)
    if not found:  # a first call, or the classifier has been replaced since
        _CLASSIFIERS[model] = find_blocks(model, "final", x[:1])
        found, output = _captured(model, x, _CLASSIFIERS[model], cut)
    return torch.cat(found, dim=1), output


def _captured(model: nn.Module, x: Tensor, sites: list[Site], cut: bool) -> tuple[list[Tensor], Any]:
    """The inputs of `sites` in one forward pass, each (n, d), none where none of them is called; and its output.

    cut: whether the sites see their inputs detached.
    """
    found: dict[str, Tensor] = {}

    def keep(site: Site) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            rows = inputs[0].movedim(site.channel_axis, -1)
            found[site.name] = rows.flatten(1, -2).mean(1) if rows.ndim > 2 else rows
            return (inputs[0].detach(), *inputs[1:]) if cut else None

        return hook

    handles = [site.module.register_forward_pre_hook(keep(site)) for site in sites]
    output = None
    try:
        if handles:
            output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return [found[site.name] for site in sites if site.name in found], output
