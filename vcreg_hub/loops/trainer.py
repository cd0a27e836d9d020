"""Watches the loss that transformers' Trainer makes, wherever it makes it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from ..errors import AttachError
from ..regularizer.attachment import Attachment, attach
from ..regularizer.vcreg import Regularizer
from .networks import AttachedNetworks, loss_in

# The callback that trains a model now, or that an exception left with it.
_AT_WORK: WeakKeyDictionary[nn.Module, VCRegTrainerCallback] = WeakKeyDictionary()
_NO_LABEL = -100  # transformers' mark of a label that does not count
_ALIKE = 1e-3  # relative difference of two losses that are the same but for rounding in a half type


class VCRegTrainerCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Trains the Trainer's model with VCReg: `Trainer(..., callbacks=[VCRegTrainerCallback()])`.

    cfg: a regularizer to attach at `where` (see `attach`) up to the end of the training; None where the model, or a
    network within it, has one already. Each loss is watched as `compute_loss` returns it: the model's own, that of
    label_smoothing_factor, that of `compute_loss_func`, or that of a subclass. Under gradient accumulation a loss is
    either divided by the Trainer, or a share of the whole batch's (`num_items_in_batch`) already; then the regularizer
    gets the same share, the number of this batch's labels over all.

    Errors when the training starts: AttachError where nothing is attached. Warns once where accumulation leaves open
    what a loss is a share of.
    """

    def __init__(self, cfg: Regularizer | None = None, where: str = "blocks") -> None:
        self._cfg, self._where = cfg, where
        self._attachment: Attachment | None = None
        self._watched: _WatchedLoss | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._release()  # of a training that an exception ended
        trainer = _calling_trainer()
        earlier = _AT_WORK.get(trainer.model)
        if earlier is not None and not earlier._trains_with(trainer):
            earlier._release()  # another Trainer's training, which an exception ended
        if self._cfg is not None:
            self._attachment = attach(trainer.model, self._cfg, self._where)
        networks = AttachedNetworks(trainer.model)
        if not networks:
            raise AttachError(
                f"nothing within {type(trainer.model).__name__} has VCReg: give the callback a regularizer, "
                "VCRegTrainerCallback(VCReg()), or attach one to the model before"
            )
        self._watched = _WatchedLoss(trainer, networks)
        _AT_WORK[trainer.model] = self

    def _trains_with(self, trainer: Any) -> bool:
        return self._watched is not None and self._watched._trainer is trainer

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._release()

    def _release(self) -> None:
        if self._watched is not None:
            self._watched.remove()
        if self._attachment is not None:
            self._attachment.detach()
        self._watched = self._attachment = None


class _WatchedLoss:
    """A Trainer's `compute_loss`, with the loss of a training step watched."""

    def __init__(self, trainer: Any, networks: AttachedNetworks) -> None:
        self._trainer, self._networks = trainer, networks
        self._own = vars(trainer).get("compute_loss")
        self._compute_loss = trainer.compute_loss
        self._looked = False
        self._undivided = False  # whether compute_loss_func was seen not to divide
        trainer.compute_loss = self

    def remove(self) -> None:
        if vars(self._trainer).get("compute_loss") is self:
            del self._trainer.compute_loss
            if self._own is not None:
                self._trainer.compute_loss = self._own

    def __call__(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        labels = inputs.get("labels")  # before the Trainer takes them out
        kwargs["num_items_in_batch"] = num_items_in_batch
        if not (model.training and torch.is_grad_enabled()):
            return self._compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        look = (
            not self._looked
            and (self._steps() > 1 or self._averaged(num_items_in_batch) > 1)
            and not self._divides(num_items_in_batch)
        )
        made = self._compute_loss(model, inputs, return_outputs=look or return_outputs, **kwargs)
        loss, outputs = made if look or return_outputs else (made, None)
        loss = loss_in(loss, "compute_loss")
        if look:
            self._look(outputs, labels, num_items_in_batch)
        self._networks.watch(loss, self._share(labels, num_items_in_batch))
        return (loss, outputs) if return_outputs else loss

    def _steps(self) -> int:
        """How many batches of this process a step accumulates."""
        return int(getattr(self._trainer, "current_gradient_accumulation_steps", 1))

    def _averaged(self, num_items: Any) -> int:
        """How many processes `num_items` are of; the Trainer multiplies a loss over them by that."""
        trainer = self._trainer
        if num_items is None or not trainer.args.average_tokens_across_devices:
            return 1
        tensor_parallel = trainer.get_tp_size() if hasattr(trainer, "get_tp_size") else 1
        return int(trainer.accelerator.num_processes // tensor_parallel)

    def _overridden(self) -> bool:
        return type(self._trainer).compute_loss is not Trainer.compute_loss

    def _divides(self, num_items: Any) -> bool:
        """Whether the Trainer divides the loss by the number of batches, as in its `training_step`."""
        trainer = self._trainer
        told: bool | None = getattr(trainer, "loss_is_scaled_for_ga", None)
        if told is not None:
            return not told
        return trainer.compute_loss_func is None and not (trainer.model_accepts_loss_kwargs and num_items is not None)

    def _share(self, labels: Any, num_items: Any) -> float | Tensor:
        """The share of the whole batch's loss that this batch's loss is."""
        averaged = self._averaged(num_items)
        if self._undivided or self._divides(num_items):
            return 1.0 if self._overridden() else averaged
        if num_items is None or not isinstance(labels, Tensor):
            return 1 / self._steps()
        share: Tensor = (labels != _NO_LABEL).sum() * averaged / num_items
        return share

    def _look(self, outputs: Any, labels: Any, num_items: Any) -> None:
        """In the first batch of accumulation: does a loss that the Trainer takes for a share depend on the whole?"""
        self._looked = True
        trainer = self._trainer
        if getattr(trainer, "loss_is_scaled_for_ga", None) is not None:
            return
        if self._overridden():
            warnings.warn(
                f"{type(trainer).__name__} overrides compute_loss, and the Trainer takes its loss for a share of the "
                "accumulated batch's, so VCReg gets the same share. If it is the mean of one batch, it is not divided "
                "and VCReg is: set trainer.loss_is_scaled_for_ga = False (True: it is a share).",
                stacklevel=2,
            )
        elif trainer.compute_loss_func is not None and num_items is not None:
            with torch.no_grad():
                once, half = (
                    trainer.compute_loss_func(outputs, labels, num_items_in_batch=n) for n in (num_items, 2 * num_items)
                )
            self._undivided = torch.allclose(once, half, rtol=_ALIKE, atol=0.0)
            if self._undivided:
                warnings.warn(
                    "compute_loss_func does not divide by num_items_in_batch, and the Trainer does not divide its loss "
                    f"either: the losses and VCReg of {self._steps()} batches add up. Divide a sum by "
                    "num_items_in_batch, or set trainer.loss_is_scaled_for_ga = False to have a mean divided.",
                    stacklevel=2,
                )
        elif trainer.label_smoother is not None:
            smoothing = inspect.signature(trainer.label_smoother).parameters
            self._undivided = "num_items_in_batch" not in smoothing  # older ones take the mean of one batch


def _calling_trainer() -> Any:
    """The Trainer that calls this callback: it hands its callbacks much, but not itself."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer):
            return caller
        frame = frame.f_back
    raise AttachError("VCRegTrainerCallback is for transformers' Trainer, and no Trainer called it")
