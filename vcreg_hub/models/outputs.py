"""A network's outputs: its logits, and the features at its classifier's input."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError, unknown_name
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


# Where a network's classifiers and blocks were found, so that it is not traced for every batch.
_SITES: weakref.WeakKeyDictionary[nn.Module, dict[str, list[Site]]] = weakref.WeakKeyDictionary()
OUTPUTS = ("pooled", "spatial", "blocks")


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The classifier's input, (n, d), for images x (n, c, h, w): the place regularized by `where="final"`.

    Positions are averaged where the classifier sees a map; two classifiers' inputs are put side by side. Call it in
    evaluation mode, or dropout before the classifier is part of it. Errors: BlocksNotFoundError without a classifier.
    """
    return torch.cat(list(_pooled(model, x, "final")[0].values()), dim=1)


def features_and_logits(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """`features` (n, d), and the logits (n, classes) of the same forward pass, from whose loss only the classifier
    learns: no gradient leaves it. Errors: those of both."""
    found, output = _pooled(model, x, "final", cut=True)
    return torch.cat(list(found.values()), dim=1), logits(output)


def outputs(model: nn.Module, x: Tensor, kinds: Sequence[str] = ("pooled",)) -> dict[str, Tensor]:
    """What a network makes of x, by name, for each of `kinds`:

    pooled: `features`, (n, d). logits: (n, classes). spatial: the positions before they are averaged, as the network
    lays them: (n, c, h, w), (n, h, w, c) or (n, tokens, c). blocks: "blocks.<name of the module>", the mean over the
    positions of each residual block's output, (n, c).
    Errors: UsageError for another kind; BlocksNotFoundError.
    """
    found: dict[str, Tensor] = {}
    for kind in kinds:
        if kind == "pooled":
            found[kind] = features(model, x)
        elif kind == "logits":
            found[kind] = logits(model(x))
        elif kind == "spatial":
            found[kind] = _spatial(model, x)
        elif kind == "blocks":
            found |= {f"blocks.{name}": rows for name, rows in _pooled(model, x, "blocks")[0].items()}
        else:
            raise unknown_name("output", kind, [*OUTPUTS, "logits"])
    return found


def _spatial(model: nn.Module, x: Tensor) -> Tensor:
    """The map or tokens of the last layer: what timm and transformers call so, else the last block's output."""
    before: Any = getattr(model, "forward_features", None)
    if callable(before):
        output: Any = before(x)
        return _first_tensor(output)
    if isinstance(getattr(model, "base_model_prefix", None), str):
        backbone: Any = getattr(model, str(model.base_model_prefix), model)
        hidden = getattr(backbone(x), "last_hidden_state", None)
        if isinstance(hidden, Tensor):
            return hidden
    site = _sites(model, x, "blocks")[-1]
    found, _ = _captured(model, x, [site])
    return found[site.name]


def _pooled(model: nn.Module, x: Tensor, where: str, cut: bool = False) -> tuple[dict[str, Tensor], Any]:
    """The mean over positions, (n, c), at the sites of `where`, by name; and what the model returns."""
    sites = _sites(model, x, where)
    found, output = _captured(model, x, sites, cut)
    if not found:  # the module has been replaced since it was found
        _SITES.pop(model, None)
        sites = _sites(model, x, where)
        found, output = _captured(model, x, sites, cut)
    return _averaged(found, sites), output


def features_at(model: nn.Module, x: Tensor, sites: Sequence[Site]) -> tuple[dict[str, Tensor], Any]:
    """Gives the features (n, d) at `sites` in one forward pass, by name, and what the model returns.

    Positions and tokens are averaged; a site that is not called is left out. Compiled code runs no hooks: pass the
    module itself.
    """
    found, output = _captured(model, x, list(sites))
    return _averaged(found, sites), output


def _averaged(found: Mapping[str, Tensor], sites: Sequence[Site]) -> dict[str, Tensor]:
    """Tensors at sites as rows (n, d), without the sites that have none."""
    pooled = {}
    for site in sites:
        if site.name in found:
            rows = found[site.name].movedim(site.channel_axis, -1)
            pooled[site.name] = rows.flatten(1, -2).mean(1) if rows.ndim > 2 else rows
    return pooled


def classifiers(model: nn.Module, x: Tensor) -> list[Site]:
    """The layers behind a network's logits, found once; x: an example of its input. Errors: BlocksNotFoundError."""
    return _sites(model, x, "final")


def _sites(model: nn.Module, x: Tensor, where: str) -> list[Site]:
    known = _SITES.setdefault(model, {})
    if where not in known:
        known[where] = find_blocks(model, where, x[:1])
    return known[where]


def _captured(model: nn.Module, x: Tensor, sites: list[Site], cut: bool = False) -> tuple[dict[str, Tensor], Any]:
    """The tensors at `sites` in one forward pass, by name, without those that are not called; and its output.

    cut: whether sites at inputs see these detached.
    """
    found: dict[str, Tensor] = {}

    def keep_input(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            found[name] = inputs[0]
            return (inputs[0].detach(), *inputs[1:]) if cut else None

        return hook

    def keep_output(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            found[name] = _first_tensor(output)

        return hook

    handles = [
        site.module.register_forward_pre_hook(keep_input(site.name))
        if site.side == "input"
        else site.module.register_forward_hook(keep_output(site.name))
        for site in sites
    ]
    result = None
    try:
        if handles:
            result = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found, result


def _first_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    return next(value for value in values if isinstance(value, Tensor) and value.is_floating_point())
