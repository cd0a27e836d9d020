"""Gaussian noise on clips, as a corrupted data set: always the same for the same frame of the same clip.

The paper corrupts HMDB51 with standard deviations 1, 1.5 and 2 (Figures 3 and 4) and does not say on which
scale or where. `normalised` adds the noise to what the network is given, the only scale on which those
values leave a signal; `pixels` adds it to values in [0, 1] and clips them there, as an image file would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import Video
from ...errors import ConfigError
from ..randomness import derive_seed

PLACES = ("normalised", "pixels")


@dataclass(frozen=True)
class Noise:
    """sigma: standard deviation on the scale of `place`; 0 leaves clips as they are."""

    sigma: float = 0.0
    place: str = "normalised"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < float("inf"):
            raise ConfigError(f"video.noise={self.sigma}: expected a standard deviation of 0 or more")
        if self.place not in PLACES:
            raise ConfigError(f"video.noise_place={self.place!r}: expected one of {', '.join(PLACES)}")

    @classmethod
    def of(cls, video: Video) -> Noise:
        return cls(video.noise, video.noise_place, video.noise_seed)


def normalise(
    frames: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    noise: Noise = Noise(),
    key: tuple[int, ...] = (),
    numbers: Sequence[int] | None = None,
) -> Tensor:
    """uint8 (t, c, h, w) to float32, (x / 255 - mean) / std, with the noise of each frame.

    key: whose frames these are (the clip's number in its data set, the view). numbers: each frame's index
    in the file; a frame that appears twice has the same noise twice. Both are only looked at where there is
    noise.
    """
    pixels = frames.contiguous().float().div_(255)  # bytes are cheaper to bring into order than floats
    shape = (1, -1, 1, 1)
    means = torch.tensor(mean, device=frames.device).view(shape)
    stds = torch.tensor(std, device=frames.device).view(shape)
    if not noise.sigma:
        return pixels.sub_(means).div_(stds)
    drawn = _frame_noise(noise.seed, key, numbers if numbers is not None else range(len(frames)), frames.shape[1:])
    drawn = drawn.to(frames.device).mul_(noise.sigma)
    if noise.place == "pixels":
        return pixels.add_(drawn).clamp_(0, 1).sub_(means).div_(stds)
    return pixels.sub_(means).div_(stds).add_(drawn)


def _frame_noise(seed: int, key: tuple[int, ...], numbers: Sequence[int], shape: Sequence[int]) -> Tensor:
    """(len(numbers), *shape) standard normal, a function of (seed, key, frame number) alone."""
    fields = {
        number: torch.randn(*shape, generator=torch.Generator().manual_seed(derive_seed(seed, *key, number)))
        for number in set(numbers)
    }
    return torch.stack([fields[number] for number in numbers])
