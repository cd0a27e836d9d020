"""Gives each parameter its weight decay and learning rate, and makes the optimizer from timm's registry.

The split is torchvision's: the parameters of normalisation layers are one group, everything else another; biases,
ConvNeXt's layer scale, class token and position embedding are decayed like weights unless a recipe sets
`bias_weight_decay`. timm's own factories leave every one-dimensional parameter undecayed, which is another recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..config import Optim
from ..errors import ConfigError, unknown_name

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


# Where the network is in the module that is trained with it; what is beside it are heads of the task.
_NETWORK = "network."


def build_optimizer(module: nn.Module, optim: Optim, lr: float, blocks: Sequence[str] = ()) -> torch.optim.Optimizer:
    """The optimizer over every trainable parameter of a module, learning rate `lr` at the peak.

    blocks: names of the network's blocks in the order of its forward pass, for `layer_decay` where it has no
    `group_matcher`.
    `optim.name` is timm's: `adamw` is torch's AdamW, `momentum` SGD with classical momentum, `sgd` SGD with Nesterov's.
    Errors: UnknownNameError; ConfigError when nothing is trainable, or with the optimizer's own words.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if optim.name not in known:
        raise unknown_name("optimizer", optim.name, known)
    groups = _parameter_groups(module, optim, blocks)
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    info = get_optimizer_info(optim.name)
    settings: dict[str, Any] = {}
    if info.has_betas and (info.num_betas or 2) == len(optim.betas):
        settings["betas"] = optim.betas
    if info.has_eps:
        settings["eps"] = optim.eps
    try:
        return create_optimizer_v2(
            groups, optim.name, lr=lr, weight_decay=optim.weight_decay, momentum=optim.momentum, **settings
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"optim.name={optim.name} cannot be made of these settings of optim: {error}") from error


def _parameter_groups(module: nn.Module, optim: Optim, blocks: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Groups {"params", "name", "weight_decay", "lr_scale"}; each trainable parameter is in exactly one of them.

    Kinds: `norm` (parameters of normalisation layers), `bias` (others of one dimension or fewer), `weight`. With
    `layer_decay` d, layer i of 0..L has lr_scale d ** (L - i): stem 0, block k at k + 1, what follows the last block L,
    and so have the heads of a task.
    """
    decay = {
        "weight": optim.weight_decay,
        "norm": optim.weight_decay if optim.norm_weight_decay is None else optim.norm_weight_decay,
        "bias": optim.weight_decay if optim.bias_weight_decay is None else optim.bias_weight_decay,
    }
    layers = None if optim.layer_decay is None else _layer_ids(_network_of(module), blocks)
    last = max(layers.values()) if layers else 0
    norm_parameters = _norm_parameters(module)
    groups: dict[tuple[int, str], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "norm" if id(parameter) in norm_parameters else "bias" if parameter.ndim <= 1 else "weight"
        layer = last if layers is None else layers.get(name.removeprefix(_NETWORK), last)
        group = groups.setdefault(
            (layer, kind),
            {
                "params": [],
                "name": kind if layers is None else f"layer {layer} {kind}",
                "weight_decay": decay[kind],
                "lr_scale": 1.0 if optim.layer_decay is None else optim.layer_decay ** (last - layer),
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ConfigError(f"{type(_network_of(module)).__name__} has no trainable parameter")
    return [groups[key] for key in sorted(groups)]


def _norm_parameters(model: nn.Module) -> set[int]:
    """Ids of the parameters that belong to a normalisation layer itself.

    Libraries bring layers of their own that torch's classes do not cover (timm's RmsNorm, GlobalResponseNorm): they
    are told by "norm" in the class's name and by parameters that vary along one axis only.
    """
    found = set()
    for module in model.modules():
        torch_norm = isinstance(module, _NORMS)
        if torch_norm or "norm" in type(module).__name__.lower():
            found |= {id(p) for p in module.parameters(recurse=False) if torch_norm or p.numel() == max(p.shape)}
    return found


def _network_of(module: nn.Module) -> nn.Module:
    return dict(module.named_children()).get(_NETWORK[:-1], module)


def says_its_layers(network: nn.Module) -> bool:
    """Whether a network knows the layer of each of its parameters, as timm's do."""
    return hasattr(network, "group_matcher")


def _layer_ids(network: nn.Module, blocks: Sequence[str] = ()) -> dict[str, int]:
    """Layer of every parameter by name, for layer-wise decay: 0 for the stem, then block by block, the head last."""
    if not says_its_layers(network):
        return _by_block(network, blocks)
    from timm.models import group_parameters

    matcher: Any = network.group_matcher
    return dict(group_parameters(network, matcher(coarse=False), reverse=True))


def _by_block(model: nn.Module, blocks: Sequence[str]) -> dict[str, int]:
    """Block k of `blocks`, which come in the order of the forward pass, is layer k + 1. A parameter outside blocks goes
    with the block that its module is registered before (a stem, a downsampling layer) and, after the last one, on top;
    the model's own direct parameters (class token, position embedding) belong to the stem."""
    number = {name: i + 1 for i, name in enumerate(blocks)}
    names = [name for name, _ in model.named_parameters()]
    inside = [next((number[b] for b in blocks if name.startswith(b + ".")), None) for name in names]
    ids, above = {}, len(blocks) + 1
    for name, layer in zip(reversed(names), reversed(inside), strict=True):
        if layer is not None:
            ids[name] = above = layer
        elif "." not in name:
            ids[name] = 0
        else:
            ids[name] = above
    first = next((i for i, layer in enumerate(inside) if layer is not None), len(names))
    return ids | dict.fromkeys(names[:first], 0)
