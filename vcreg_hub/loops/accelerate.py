"""Watches the loss that a loop on accelerate gives to `accelerator.backward`."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from ..errors import AttachError, UsageError
from .networks import AttachedNetworks

# How many backward passes are looked at for accumulation by hand.
_LOOKS = 8


def watch_accelerator(accelerator: Any, model: nn.Module) -> None:
    """From here on `accelerator.backward(loss)` watches `loss` first, for the regularizers attached within `model`.

    accelerator: accelerate's Accelerator. model: attached, before or after `accelerator.prepare`. So the regularizer
    follows the division by gradient_accumulation_steps and the GradScaler. Do not call `vc.watch` as well. It ends when
    the model is detached. Errors: UsageError for another accelerator, AttachError where nothing is attached.
    """
    if not callable(getattr(accelerator, "backward", None)) or not hasattr(accelerator, "gradient_accumulation_steps"):
        raise UsageError(f"watch_accelerator takes an accelerate.Accelerator first, got {type(accelerator).__name__}")
    networks = AttachedNetworks(model)
    if not networks:
        raise AttachError(
            f"nothing within {type(model).__name__} has VCReg: build it under a *_vcreg name, or call "
            "vcreg_hub.attach(model, VCReg(...)) before watch_accelerator"
        )
    accelerator.backward = _WatchedBackward(accelerator, model, networks)


class _WatchedBackward:
    """`accelerator.backward`, with the loss watched before accelerate divides and scales it."""

    def __init__(self, accelerator: Any, model: nn.Module, networks: AttachedNetworks) -> None:
        self._accelerator, self._backward, self._networks = accelerator, accelerator.backward, networks
        self._first = next((p for p in model.parameters() if p.requires_grad), None)
        self._looks = 0

    def __call__(self, loss: Tensor, **kwargs: Any) -> Any:
        self._look_for_division()
        self._networks.watch(loss)
        return self._backward(loss, **kwargs)

    def _look_for_division(self) -> None:
        """Gradients that are there already come from accumulation; one that accelerate does not know of may have
        divided the loss before."""
        if self._accelerator.gradient_accumulation_steps > 1 or self._looks >= _LOOKS:
            return
        gradient = None if self._first is None else self._first.grad
        if gradient is None:
            return
        self._looks += 1  # looking waits for a GPU
        if bool(gradient.any()):
            self._looks = _LOOKS
            warnings.warn(
                "accelerator.backward found gradients of an earlier backward pass, and accelerate does not accumulate: "
                "if the loss is divided by hand, VCReg is too strong by that factor. Use "
                "Accelerator(gradient_accumulation_steps=k), or vc.watch(loss) before dividing, without "
                "watch_accelerator.",
                stacklevel=3,
            )
