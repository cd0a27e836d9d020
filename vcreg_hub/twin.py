"""A twin of a model that can be run without touching the model: same modules and names, other tensors.

On the meta device the twin costs no memory for weights and no arithmetic; shapes, dtypes and calls are the real ones.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, DistributedDataParallel's or DataParallel's wrapper; else `model` itself."""
    while True:
        compiled = getattr(model, "_orig_mod", None)  # torch.compile's, without importing dynamo to ask
        if isinstance(compiled, nn.Module):
            model = compiled
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        else:
            return model


def twin(model: nn.Module, device: str = "meta") -> nn.Module:
    """A deep copy of `model` in eval mode whose tensors live on `device` ("meta", or "same" for a real copy).

    The model's own hooks come along (timm's FeatureHookNet collects its output with one); those of anybody else stay
    behind, so that a dry run neither feeds a user's hook nor copies what that hook holds.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors_of(model):
        memo[id(tensor)] = _like(tensor, device)
    for module in model.modules():
        for table in _HOOK_TABLES:
            hooks = getattr(module, table, None)
            if hooks and not any(_owned(hook, model) for hook in hooks.values()):
                memo[id(hooks)] = OrderedDict()
    return copy.deepcopy(model, memo).eval()


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers and the tensors kept as plain attributes, also one list or dict deep (position caches)."""
    for module in model.modules():
        for value in list(vars(module).values()):
            if isinstance(value, dict):
                inner: list[Any] = list(value.values())
            else:
                inner = list(value) if isinstance(value, list | tuple) else [value]
            yield from (item for item in inner if isinstance(item, Tensor))


def _like(tensor: Tensor, device: str) -> Tensor:
    data = tensor.detach()
    data = data.clone() if device == "same" else torch.empty_like(data, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _owned(hook: Callable[..., Any], model: nn.Module) -> bool:
    """Whether `hook` is a method of one of the model's own modules."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    return isinstance(owner, nn.Module) and any(owner is module for module in model.modules())
