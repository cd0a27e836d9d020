"""Cross-entropy on class ids (b,) or, after mixup, on class probabilities (b, classes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import Task, Train
from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from .task import TaskModule


@dataclass(frozen=True)
class Classification(Task):
    """The network's own head learns the classes, with `train.label_smoothing`.

    spectral_decoupling: lambda of Pezeshki et al. (2021): lambda / 2 times the squared length of a sample's logits is
    added to its loss.
    """

    tag = "classification"

    spectral_decoupling: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spectral_decoupling < math.inf:
            raise ConfigError(f"spectral_decoupling is a number from 0 on, got {self.spectral_decoupling}")

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        from torch.nn import functional as F

        from ..models.outputs import logits

        samples, targets = batch[0], batch[1]
        scores = logits(module.call_network(samples)).float()
        _check_targets(targets, scores.shape[-1])
        loss = F.cross_entropy(scores, targets, label_smoothing=train.label_smoothing)
        if self.spectral_decoupling:
            loss = loss + self.spectral_decoupling / 2 * scores.square().sum(1).mean()
        hard = targets if targets.ndim == 1 else targets.argmax(1)
        return {"loss": loss, "top1": 100 * (scores.detach().argmax(1) == hard).float().mean()}


def _check_targets(targets: Tensor, classes: int) -> None:
    # On a GPU a bad label kills the process with an assert far from its cause, and looking costs a wait: the data
    # sets check their own labels, so only the CPU looks again.
    if targets.ndim == 1 and targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise DataError(f"labels run from {low} to {high}, but the model has classes 0 to {classes - 1}")
