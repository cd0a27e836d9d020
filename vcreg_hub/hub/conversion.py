"""torchvision's networks as timm's, where the two compute the same.

The pairs are a table; which tensor is which is found, not listed: timm's tensors take, in order, the first unused of
torchvision's with their shape. A pairing is used only after both networks gave the same logits, in float64 and with
random values in every tensor, so that a wrong one cannot pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

# torchvision name -> timm name of the same network.
TWINS: dict[str, str] = {
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{name: name for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")},
    **{name: name for name in ("wide_resnet50_2", "wide_resnet101_2")},
    **{name: name for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")},
    **{name: name for name in ("densenet121", "densenet161", "densenet169", "densenet201")},
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
}


def as_timm(name: str, model: nn.Module, num_classes: int, in_chans: int, image_size: int) -> nn.Module | None:
    """The timm network that computes what torchvision's `name` does, with the weights of `model`; None without one.

    model: a torchvision network for images (n, in_chans, image_size, image_size).
    """
    if name not in TWINS:
        return None
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    config = timm.get_pretrained_cfg(TWINS[name])
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    twin = timm.create_model(TWINS[name], **arguments)
    tensors = model.state_dict()
    pairs = paired(twin.state_dict(), tensors)
    if pairs is None or not _same_function(model, twin, pairs, (1, in_chans, image_size, image_size)):
        return None
    twin.load_state_dict(_renamed(tensors, pairs, twin.state_dict()))
    return twin.eval()


def paired(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str] | None:
    """For each name of `wanted` the first unused name of `given` with the same shape; None when they do not match up.

    Names that agree go together first, which settles a ResNet. Axes of length 1 do not count: ConvNeXt's layer scale
    is (c, 1, 1) in one library and (c,) in the other.
    """
    if len(wanted) != len(given):
        return None
    same = {name for name in wanted if name in given and given[name].shape == wanted[name].shape}
    unused = [name for name in given if name not in same]
    pairs = {}
    for name, tensor in wanted.items():
        if name in same:
            pairs[name] = name
            continue
        theirs = next((other for other in unused if _long_axes(given[other]) == _long_axes(tensor)), None)
        if theirs is None:
            return None
        unused.remove(theirs)
        pairs[name] = theirs
    return pairs


def _long_axes(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size > 1]


def _renamed(
    tensors: Mapping[str, Tensor], pairs: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {ours: tensors[theirs].reshape(wanted[ours].shape) for ours, theirs in pairs.items()}


@torch.no_grad()
def _same_function(model: nn.Module, twin: nn.Module, pairs: Mapping[str, str], shape: tuple[int, ...]) -> bool:
    """Whether both networks map random images to the same logits, whatever values the paired tensors take."""
    generator = torch.Generator().manual_seed(0)
    first, second = copy.deepcopy(model).double().eval(), copy.deepcopy(twin).double().eval()
    values = {name: _random_like(name, tensor, generator) for name, tensor in first.state_dict().items()}
    first.load_state_dict(values)
    second.load_state_dict(_renamed(values, pairs, second.state_dict()))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    one, other = first(x), second(x)
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


def _random_like(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    if name.endswith("running_var"):
        return drawn + 0.5
    fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
    return (drawn - 0.4) * (3 / fan_in) ** 0.5
