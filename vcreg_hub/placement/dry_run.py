"""Copies a model for a dry run (same modules and names, other tensors) and makes an input for it.

On the meta device the copy costs no memory for weights and no arithmetic; shapes, dtypes and calls are the real ones.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_SIZES = (224, 256, 32, 64, 384)  # sides to try where a model does not say, commonest first
_FRAMES = 16
Example = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a forward call


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


def meta_copy(model: nn.Module, *, real: bool = False) -> nn.Module:
    """A deep copy of `model` in eval mode on the meta device; real: tensors to keep, with their values.

    The model's own hooks come along (timm's FeatureHookNet collects its output with one); those of anybody else stay
    behind, so that a dry run neither feeds a user's hook nor copies what that hook holds.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors_of(model):
        memo[id(tensor)] = _like(tensor, real)
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


def _like(tensor: Tensor, real: bool) -> Tensor:
    data = tensor.detach()
    data = data.clone() if real else torch.empty_like(data, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _owned(hook: Callable[..., Any], model: nn.Module) -> bool:
    """Whether `hook` is a method of one of the model's own modules."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    return isinstance(owner, nn.Module) and any(owner is module for module in model.modules())


def examples(model: nn.Module, example_input: Any = None) -> Iterator[Example]:
    """Inputs to try in turn: `example_input` (a tensor, a tuple of arguments or a dict of keyword arguments) alone, or
    where it is None what the model may take, most likely first, on the meta device."""
    if example_input is None:
        yield from _candidates(model)
    elif isinstance(example_input, Mapping):
        yield (), dict(example_input)
    elif isinstance(example_input, tuple):
        yield example_input, {}
    else:
        yield (example_input,), {}


def _candidates(model: nn.Module) -> Iterator[Example]:
    """(1, channels, height, width) for most models."""
    named = getattr(model, "main_input_name", None)
    if hasattr(model, "config") and isinstance(named, str):
        yield (), {named: _of_config(model)}
        return
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    timm_config = _timm_config(model)
    first = _first_layer(model, timm_config)
    if isinstance(first, nn.Linear):
        yield (torch.empty(1, first.in_features, dtype=dtype, device="meta"),), {}
    # A network may expand the image before its first layer (CSATv2), so that layer's channels are not the last word.
    stated = (timm_config.get("input_size") or (3,))[0]
    for channels in dict.fromkeys((getattr(first, "in_channels", 3), stated, 3)):
        for size in _sizes(model, timm_config):
            shape: tuple[int, ...] = (1, channels, *size)
            if isinstance(first, nn.Conv3d):
                shape = (1, channels, _FRAMES, *size)
            elif isinstance(first, nn.Conv1d):
                shape = (1, channels, 1024)
            yield (torch.empty(shape, dtype=dtype, device="meta"),), {}


def _first_layer(model: nn.Module, timm_config: Mapping[str, Any]) -> nn.Module | None:
    """The layer that reads the input: timm names it, elsewhere the first ungrouped convolution or linear layer."""
    modules = dict(model.named_modules())
    named = timm_config.get("first_conv") or ()
    for name in (named,) if isinstance(named, str) else named:
        found = modules.get(name)
        if getattr(found, "in_channels", None) is not None:
            return found
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return next((m for m in modules.values() if isinstance(m, layers) and getattr(m, "groups", 1) == 1), None)


def _sizes(model: nn.Module, timm_config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Sides to try: what the model was built for, what its weights were trained on, then the usual ones."""
    stated = [
        getattr(getattr(model, "patch_embed", None), "img_size", None),
        getattr(model, "image_size", None),
        timm_config.get("input_size"),
        *_SIZES,
    ]
    sizes: list[tuple[int, int]] = []
    for value in stated:
        if isinstance(value, int):
            value = (value, value)
        if isinstance(value, Sequence) and len(value) >= 2 and tuple(value[-2:]) not in sizes:
            sizes.append((int(value[-2]), int(value[-1])))
    return sizes


def _timm_config(model: nn.Module) -> Mapping[str, Any]:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    return config if isinstance(config, Mapping) else {}


def _of_config(model: Any) -> Tensor:
    """The main input of a transformers model, from its config: pixels, clips (1, frames, c, h, w) or tokens."""

    def value(*names: str, default: Any = None) -> Any:
        for config in (model.config, getattr(model.config, "vision_config", None)):
            for name in names:
                if getattr(config, name, None) is not None:
                    return getattr(config, name)
        return default

    if model.main_input_name == "input_ids":
        length = min(value("n_positions", "max_position_embeddings", default=16), 1024)
        return torch.zeros(1, length, dtype=torch.long, device="meta")
    size = value("image_size", "crop_size", default=224)
    height, width = (size[-2], size[-1]) if isinstance(size, Sequence) else (size, size)
    channels = value("num_channels", "in_channels", "in_chans", default=3)
    frames = value("num_frames", "frames_per_clip")
    shape = (1, channels, height, width) if frames is None else (1, frames, channels, height, width)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.empty(shape, dtype=dtype, device="meta")
