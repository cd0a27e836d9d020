"""Turns an image into a network's input: the random training view and the fixed test view, by torchvision.

torchvision's, not timm's, because the recipes of the paper are torchvision's and the two differ (TrivialAugmentWide,
AutoAugment's policy, how erased pixels are filled). The order is that of torchvision's reference training: crop, flip,
automatic augmentation, to float, normalise, erase.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ...config import Data
from ...errors import ConfigError, unknown_name

Transform = Callable[[Image.Image], Tensor]
_AUGMENTATIONS = ("none", "ta_wide", "aa_imagenet", "ra-2-9")


def train_transform(cfg: Data, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """PIL image -> (c, h, w) float32, `train_size` pixels a side; draws from torch's global generator.

    mean / std: per channel, of pixels in [0, 1]. Errors: ConfigError for values a field cannot take.
    """
    size = cfg.train_size or cfg.image_size
    how = v2.InterpolationMode(cfg.interpolation)
    steps: list[Callable] = []
    if cfg.crop == "random_resized":
        steps.append(v2.RandomResizedCrop(size, scale=cfg.scale, ratio=cfg.ratio, interpolation=how))
    elif cfg.crop == "pad":
        steps += [_square(size, how), v2.RandomCrop(size, padding=size // 8)]
    else:
        steps.append(_square(size, how))
    if cfg.hflip:
        steps.append(v2.RandomHorizontalFlip(cfg.hflip))
    augmentation = _augmentation(cfg.augment, how)
    if augmentation is not None:
        steps.append(augmentation)
    steps += _to_float(mean, std)
    if cfg.random_erase:
        steps.append(v2.RandomErasing(cfg.random_erase))
    return v2.Compose(steps)


def test_transform(cfg: Data, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """PIL image -> (c, image_size, image_size) float32: short side to `resize`, centre crop, normalise."""
    how = v2.InterpolationMode(cfg.interpolation)
    if cfg.resize is not None and cfg.resize < cfg.image_size:
        raise ConfigError(f"data.resize={cfg.resize} is below data.image_size={cfg.image_size}: crops need padding")
    return v2.Compose([*_square(cfg.image_size, how, cfg.resize).transforms, *_to_float(mean, std)])


# Not a test, whatever pytest makes of its name.
test_transform.__test__ = False  # type: ignore[attr-defined]


def _square(size: int, how: v2.InterpolationMode, resize: int | None = None) -> v2.Compose:
    return v2.Compose([v2.Resize(resize or size, interpolation=how), v2.CenterCrop(size)])


def _to_float(mean: Sequence[float], std: Sequence[float]) -> list[Callable]:
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


def _augmentation(name: str, how: v2.InterpolationMode) -> Callable | None:
    """`none`, `ta_wide`, `aa_imagenet` or `ra-<operations>-<magnitude>`."""
    if name == "none":
        return None
    if name == "ta_wide":
        return v2.TrivialAugmentWide(interpolation=how)
    if name == "aa_imagenet":
        return v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=how)
    matched = re.fullmatch(r"ra-(\d+)-(\d+)", name)
    if matched is None:
        raise unknown_name("augmentation", name, _AUGMENTATIONS, "RandAugment is `ra-<operations>-<magnitude>`.")
    operations, magnitude = int(matched[1]), int(matched[2])
    if not 0 <= magnitude <= 30:
        raise ConfigError(f"data.augment={name}: RandAugment's magnitude goes from 0 to 30")
    return v2.RandAugment(num_ops=operations, magnitude=magnitude, interpolation=how)
