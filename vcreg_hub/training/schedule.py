"""The learning rate as a pure function of the step, so resuming needs no scheduler's state.

The values are those of torch's LinearLR followed by CosineAnnealingLR or StepLR in a SequentialLR, which torchvision's
recipes use, stepped once an epoch; or the same shape with a value for each optimizer step.
"""

from __future__ import annotations

import math

from ..config import Optim, Train
from ..errors import ConfigError

# Statistics over fewer samples, VCReg's and a batch normalisation's, are mostly noise.
_SMALLEST_BATCH = 8


def peak_lr(optim: Optim, batch_size: int) -> float:
    """The learning rate at the peak: `lr`, scaled by batch_size / lr_base_batch if the latter is set."""
    return optim.lr if optim.lr_base_batch is None else optim.lr * batch_size / optim.lr_base_batch


def warmup_of(optim: Optim, epochs: int) -> float:
    """Epochs of warmup: `warmup_epochs`, or a quarter of all epochs where that would leave nothing after it.

    With a rate for each epoch it is whole epochs. A constant rate may be warmed up to for the whole run.
    """
    warmup = optim.warmup_epochs
    if warmup < epochs or optim.schedule == "constant":
        return warmup
    return epochs / 4 if optim.schedule_per == "step" else epochs // 4


def fitted_batch(train: Train, samples: int, shares: int = 1) -> int:
    """Samples a step, so that an epoch over `samples` leaves `min_steps` steps for the whole run: the batch asked for,
    halved as often as it takes; at least 8, and a multiple of `2 * shares`. shares: processes times accumulation steps.

    >>> fitted_batch(Train(epochs=20, batch_size=64, min_steps=400), samples=300)
    8
    """
    size = train.batch_size
    while train.min_steps is not None and samples // size * train.epochs < train.min_steps:
        if size % 2 or size // 2 < _SMALLEST_BATCH or (size // 2) % (2 * shares):
            break
        size //= 2
    return size


def lr_at(optim: Optim, step: int, steps_per_epoch: int, epochs: int, peak: float) -> float:
    """Learning rate of optimizer step `step`, counted from 0 over the whole run.

    peak: from `peak_lr`; `min_lr` is scaled along with it. t: time in epochs, whole ones for `schedule_per=epoch`.
    W of E epochs are warmup (`warmup_of`): for t < W, peak * (s + (1 - s) t / W) with s = `warmup_start`. Then, with
    u = t - W:
        cosine      min + (peak - min) (1 + cos(pi u / (E - W))) / 2
        step        peak * gamma ** floor(u / step_epochs)
        constant    peak
    Errors: ConfigError for an unknown schedule.
    """
    warmup = warmup_of(optim, epochs)
    if optim.schedule_per not in ("epoch", "step"):
        raise ConfigError(f"optim.schedule_per={optim.schedule_per!r}: expected epoch or step")
    time = step / steps_per_epoch if optim.schedule_per == "step" else step // steps_per_epoch
    if time < warmup:
        return peak * (optim.warmup_start + (1 - optim.warmup_start) * time / warmup)
    passed = time - warmup
    if optim.schedule == "constant":
        return peak
    if optim.schedule == "step":
        return peak * optim.step_gamma ** math.floor(passed / optim.step_epochs)
    if optim.schedule == "cosine":
        lowest = optim.min_lr * (peak / optim.lr if optim.lr else 1.0)
        return lowest + (peak - lowest) * (1 + math.cos(math.pi * passed / (epochs - warmup))) / 2
    raise ConfigError(f"optim.schedule={optim.schedule!r}: expected cosine, step or constant")
