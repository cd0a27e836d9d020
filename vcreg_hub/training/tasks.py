"""Tasks: what the loss of a batch is. The loop knows no more of a method than the dict a task returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Recipe
from ..errors import DataError
from ..models.outputs import logits


class Task(Protocol):
    """Called with the (wrapped) model and one batch; "loss" is what is minimised, the rest is shown."""

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]: ...


class Classification:
    """Cross-entropy on class ids (b,) or, after mixup, on class probabilities (b, classes)."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, targets = batch[0], batch[1]
        scores = logits(model(images))
        _check_targets(targets, scores.shape[-1])
        loss = F.cross_entropy(scores.float(), targets, label_smoothing=self.label_smoothing)
        hard = targets if targets.ndim == 1 else targets.argmax(1)
        return {"loss": loss, "top1": 100 * (scores.detach().argmax(1) == hard).float().mean()}


def _check_targets(targets: Tensor, classes: int) -> None:
    # On a GPU a bad label kills the process with an assert far from its cause, and looking costs a wait: the data
    # sets check their own labels, so only the CPU looks again.
    if targets.ndim == 1 and targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise DataError(f"labels run from {low} to {high}, but the model has classes 0 to {classes - 1}")


TASKS: dict[str, Callable[[Recipe], Task]] = {
    "classification": lambda recipe: Classification(recipe.train.label_smoothing),
}


def build_task(recipe: Recipe) -> Task:
    """The task a recipe names."""
    return TASKS[recipe.task](recipe)


def first_nonfinite_module(model: nn.Module, batch: Any, task: Task) -> str:
    """Where a non-finite value first appears when the batch is run forward: "weights of <name>", "output of <name>"
    or "the loss". Costs one forward pass; for the message of a diverged run."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weights of {name}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, (tuple, list)) and output else output
            if not found and isinstance(value, Tensor) and not torch.isfinite(value).all():
                found.append(f"output of {name or 'the model'}")

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            task(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss"
