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
_AUGMENTATIONS = ("none", "ta_wide", "aa_imagenet", "ra-2-9", "simclr-1.0", "vicreg")


def train_transform(cfg: Data, mean: Sequence[float], std: Sequence[float], view: int = 0) -> Transform:
    """PIL image -> (c, h, w) float32, `train_size` pixels a side; draws from torch's global generator.

    mean / std: per channel, of pixels in [0, 1]. view: which of several views of an image, from 0; only `vicreg` makes
    a difference. Errors: ConfigError for values a field cannot take.
    """
    size = cfg.train_size or cfg.image_size
    how = v2.InterpolationMode(cfg.interpolation)
    steps = _recoloured(cfg.channels)
    if cfg.crop == "random_resized":
        steps.append(v2.RandomResizedCrop(size, scale=cfg.scale, ratio=cfg.ratio, interpolation=how))
    elif cfg.crop == "pad":
        steps += [_square(size, how), v2.RandomCrop(size, padding=size // 8)]
    else:
        steps.append(_square(size, how))
    if cfg.hflip:
        steps.append(v2.RandomHorizontalFlip(cfg.hflip))
    augmentation = _augmentation(cfg.augment, how, size, view)
    if augmentation is not None:
        steps.append(augmentation)
    steps += _to_float(mean, std)
    if cfg.random_erase:
        steps.append(v2.RandomErasing(cfg.random_erase))
    return v2.Compose(steps)


def test_transform(cfg: Data, mean: Sequence[float], std: Sequence[float]) -> Transform:
    """PIL image -> (c, image_size, image_size) float32: short side to `resize`, centre crop, normalise.
    With `fit="squash"` both sides go to `resize`."""
    how = v2.InterpolationMode(cfg.interpolation)
    if cfg.resize is not None and cfg.resize < cfg.image_size:
        raise ConfigError(f"data.resize={cfg.resize} is below data.image_size={cfg.image_size}: crops need padding")
    resize: int | tuple[int, int] = cfg.resize or cfg.image_size
    if cfg.fit == "squash":
        resize = (cfg.resize or cfg.image_size,) * 2
    square = [v2.Resize(resize, interpolation=how), v2.CenterCrop(cfg.image_size)]
    return v2.Compose([*_recoloured(cfg.channels), *square, *_to_float(mean, std)])


# Not a test, whatever pytest makes of its name.
test_transform.__test__ = False  # type: ignore[attr-defined]


def _square(size: int, how: v2.InterpolationMode) -> v2.Compose:
    return v2.Compose([v2.Resize(size, interpolation=how), v2.CenterCrop(size)])


def _recoloured(channels: int | None) -> list[Callable]:
    return [] if channels is None else [v2.Grayscale(1) if channels == 1 else v2.RGB()]


def _to_float(mean: Sequence[float], std: Sequence[float]) -> list[Callable]:
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


def _augmentation(name: str, how: v2.InterpolationMode, size: int, view: int) -> Callable | None:
    """`none`, `ta_wide`, `aa_imagenet`, `ra-<operations>-<magnitude>`, `simclr-<strength>` or `vicreg`."""
    if name == "none":
        return None
    if name == "ta_wide":
        return v2.TrivialAugmentWide(interpolation=how)
    if name == "aa_imagenet":
        return v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=how)
    if name == "vicreg":
        # The two branches of its authors' code: only the first is always blurred, only the second solarised.
        blur, solarise = ((1.0, 0.0), (0.1, 0.2))[view % 2]
        return v2.Compose([_distortion((0.4, 0.4, 0.2, 0.1), blur, size), v2.RandomSolarize(128, p=solarise)])
    if matched := re.fullmatch(r"simclr-(\d+(?:\.\d+)?)", name):
        strength = float(matched[1])
        if not 0 < strength <= 2.5:
            raise ConfigError(f"data.augment={name}: SimCLR's strength is above 0 and at most 2.5")
        return _distortion((0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength), 0.5, size)
    matched = re.fullmatch(r"ra-(\d+)-(\d+)", name)
    if matched is None:
        raise unknown_name("augmentation", name, _AUGMENTATIONS, "RandAugment is `ra-<operations>-<magnitude>`.")
    operations, magnitude = int(matched[1]), int(matched[2])
    if not 0 <= magnitude <= 30:
        raise ConfigError(f"data.augment={name}: RandAugment's magnitude goes from 0 to 30")
    return v2.RandAugment(num_ops=operations, magnitude=magnitude, interpolation=how)


def _distortion(jitter: tuple[float, float, float, float], blur: float, size: int) -> v2.Compose:
    """SimCLR's: colours of 80% of the images change (brightness, contrast, saturation, hue), 20% lose them, and a share
    of `blur` is blurred by a kernel of a tenth of the image."""
    kernel = max(3, size // 10 // 2 * 2 + 1)
    return v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(*jitter)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=blur),
        ]
    )
