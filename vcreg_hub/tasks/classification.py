"""Cross-entropy on class ids (b,) or, after mixup, on class probabilities (b, classes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import Task, Train
from ..errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from .task import TaskModule


@dataclass(frozen=True)
class Classification(Task):
    """The network's own head learns the classes, with `train.label_smoothing`."""

    tag = "classification"

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        from torch.nn import functional as F

        from ..models.outputs import logits

        samples, targets = batch[0], batch[1]
        scores = logits(module.call_network(samples)).float()
        _check_targets(targets, scores.shape[-1])
        loss = F.cross_entropy(scores, targets, label_smoothing=train.label_smoothing)
        hard = targets if targets.ndim == 1 else targets.argmax(1)
        return {"loss": loss, "top1": 100 * (scores.detach().argmax(1) == hard).float().mean()}


def _check_targets(targets: Tensor, classes: int) -> None:
    # On a GPU a bad label kills the process with an assert far from its cause, and looking costs a wait: the data
    # sets check their own labels, so only the CPU looks again.
    if targets.ndim == 1 and targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise DataError(f"labels run from {low} to {high}, but the model has classes 0 to {classes - 1}")
