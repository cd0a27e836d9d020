"""Turns a clip into a network's input: the random training views, the validation view, the crops of a test.

The recipe is VideoMAE's fine-tuning: automatic augmentation, resized crop, flip and erasing are drawn once
and shared by all frames of the clip. Pixels stay bytes until the last resize, with the channels innermost
as they come from the decoder: that is where torch resizes several times faster. Resizing is antialiased unless
`video.antialias` is false, as it is in the video processors of transformers that a published model will be used
with; the original code's is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2

from ...config import Data
from ...errors import ConfigError
from ..randomness import derive_seed, torch_seed
from .noise import Noise, normalise
from .sampling import short_side_size


class TrainClipView:
    """uint8 frames (t, h, w, c) of one clip to one augmented view (t, c, size, size) float32.

    Everything random is a function of `key`, the noise of `noise_key`. Errors: ConfigError for a recipe
    whose values videos do not take.
    """

    def __init__(
        self, cfg: Data, mean: Sequence[float], std: Sequence[float], noise: Noise, antialias: bool = True
    ) -> None:
        if cfg.crop not in ("random_resized", "none"):
            raise ConfigError(f"data.crop={cfg.crop}: videos take `random_resized` or `none`")
        if cfg.repeats != 1:
            raise ConfigError(f"data.repeats={cfg.repeats}: for videos set video.repeats, which has its own meaning")
        self.size = cfg.train_size or cfg.image_size
        self.cfg, self.mean, self.std, self.noise, self.antialias = cfg, mean, std, noise, antialias
        self.augment = _frame_augmentation(cfg.augment, self.size)
        self.erase = v2.RandomErasing(cfg.random_erase, value="random") if cfg.random_erase else None

    def __call__(
        self, frames: Tensor, key: tuple[int, ...], noise_key: tuple[int, ...] = (), numbers: Sequence[int] = ()
    ) -> Tensor:
        if self.augment is not None:
            frames = _augment_alike(self.augment, frames, derive_seed(*key))
        with torch_seed(*key):
            picture = self._crop(frames.permute(0, 3, 1, 2))
            if torch.rand(()) < self.cfg.hflip:
                picture = picture.flip(-1)
            clip = normalise(picture, self.mean, self.std, self.noise, noise_key, numbers or None)
            if self.erase is not None:
                # One box for all frames; as an image of t * c channels each frame has its own random filling.
                clip = self.erase(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
        return clip

    def _crop(self, frames: Tensor) -> Tensor:
        if self.cfg.crop == "none":
            return centre(resize_short(frames, self.size, self.cfg.interpolation, self.antialias), self.size)
        top, left, height, width = RandomResizedCrop.get_params(frames, list(self.cfg.scale), list(self.cfg.ratio))
        part = frames[..., top : top + height, left : left + width]
        return resize(part, self.size, self.size, self.cfg.interpolation, self.antialias)


def resize_short(frames: Tensor, short: int, interpolation: str = "bilinear", antialias: bool = True) -> Tensor:
    """uint8 (t, c, h, w) with the shorter side `short`, the longer one truncated to an integer. The same for all frames
    at once and for one after another."""
    height, width = short_side_size(frames.shape[-2], frames.shape[-1], short)
    return resize(frames, height, width, interpolation, antialias)


def resize(frames: Tensor, height: int, width: int, interpolation: str = "bilinear", antialias: bool = True) -> Tensor:
    """uint8 (t, c, h, w) to (t, c, height, width). antialias: average the pixels between when it shrinks; without, as
    with `nearest`, they are left out."""
    if frames.shape[-2:] == (height, width):
        return frames
    how = v2.InterpolationMode(interpolation)
    if antialias or how is v2.InterpolationMode.NEAREST:
        smooth = how is not v2.InterpolationMode.NEAREST
        return v2.functional.resize(frames, [height, width], how, antialias=smooth)
    # On bytes torch cuts the fraction off here, which darkens a frame by half a level.
    return v2.functional.resize(frames.float(), [height, width], how, antialias=False).round().clamp(0, 255).byte()


def crop_at(frames: Tensor, offset: int, size: int) -> Tensor:
    """The square crop at `offset` on the longer side; the shorter one is `size`."""
    height, width = frames.shape[-2:]
    return frames[..., offset : offset + size, :] if height >= width else frames[..., offset : offset + size]


def centre(frames: Tensor, size: int) -> Tensor:
    """The middle square."""
    return crop_at(frames, (max(frames.shape[-2:]) - size) // 2, size)


def _frame_augmentation(name: str, size: int) -> Callable[[Image.Image], Image.Image] | None:
    """timm's RandAugment of a string such as `rand-m7-n4-mstd0.5-inc1`, bicubic, or None for "none"."""
    if name == "none":
        return None
    if not name.startswith("rand-"):
        raise ConfigError(f"data.augment={name}: videos take `none` or timm's RandAugment (`rand-m7-n4-mstd0.5-inc1`)")
    from timm.data.auto_augment import rand_augment_transform

    settings: dict[str, Any] = {"translate_const": int(size * 0.45), "interpolation": Image.Resampling.BICUBIC}
    try:
        return rand_augment_transform(name, settings)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"data.augment={name} is no RandAugment that timm reads: {error}") from None


def _augment_alike(augment: Callable[[Image.Image], Image.Image], frames: Tensor, seed: int) -> Tensor:
    """Every frame of uint8 (t, h, w, c) through the same operations with the same strengths.

    timm draws from Python's and NumPy's global generators, so both start anew for each frame, and are left
    as found.
    """
    before = random.getstate(), np.random.get_state()
    pictures = []
    try:
        for frame in frames.numpy():
            random.seed(seed)
            np.random.seed(seed % 2**32)
            pictures.append(np.asarray(augment(Image.fromarray(frame))))
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    return torch.from_numpy(np.stack(pictures))
