"""Watches what a LightningModule's `training_step` returns."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import AttachError, UsageError
from ..regularizer.attachment import Attachment, attach
from ..regularizer.vcreg import Regularizer
from .networks import AttachedNetworks, loss_in


def _callback_class() -> Any:
    """Lightning's Callback, of the package that the program has imported already: it goes by two names."""
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    for name in names:
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError:
            continue
    raise UsageError("VCRegLightningCallback needs Lightning: pip install 'vcreg_hub[lightning]'")


_Callback: Any = _callback_class()


class VCRegLightningCallback(_Callback):  # type: ignore[misc]
    """Trains the networks within a LightningModule with VCReg: `Trainer(callbacks=[VCRegLightningCallback()])`.

    cfg: a regularizer to attach at `where` to the submodule that `network` names, up to the end of the fit; None where
    networks of the module have one already. The loss that `training_step` returns is watched before Lightning divides
    it by accumulate_grad_batches and scales it, so that the regularizer follows both.

    Errors when the fit starts: AttachError where nothing is attached, UsageError for a wrong `network` and for manual
    optimization, where `training_step` itself scales its losses and has to watch them.
    """

    def __init__(self, cfg: Regularizer | None = None, where: str = "blocks", network: str = "model") -> None:
        self._cfg, self._where, self._network = cfg, where, network
        self._attachment: Attachment | None = None
        self._watching = False
        self._own_step: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not pl_module.automatic_optimization:
            raise UsageError(
                f"{type(pl_module).__name__} optimizes by hand (automatic_optimization=False), so only its "
                "training_step knows how a loss is scaled. Leave VCRegLightningCallback out, attach the network in "
                "__init__, and call network.vcreg.watch(loss) in training_step before dividing it."
            )
        if self._cfg is not None:
            self._attachment = attach(_submodule(pl_module, self._network), self._cfg, self._where)
        networks = AttachedNetworks(pl_module)
        if not networks:
            raise AttachError(
                f"nothing within {type(pl_module).__name__} has VCReg: build its network under a *_vcreg name, attach "
                "it, or give the callback a regularizer and the network's name: "
                "VCRegLightningCallback(VCReg(), network='model')"
            )
        self._own_step = vars(pl_module).get("training_step")  # one of the object, such as a compiled one
        pl_module.training_step = _watched(pl_module.training_step, networks)
        self._watching = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._release(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._release(pl_module)

    def _release(self, pl_module: Any) -> None:
        if self._watching:
            del pl_module.training_step
            if self._own_step is not None:
                pl_module.training_step = self._own_step
            self._watching, self._own_step = False, None
        if self._attachment is not None:
            self._attachment.detach()
            self._attachment = None


def _watched(step: Callable[..., Any], networks: AttachedNetworks) -> Callable[..., Any]:
    """A `training_step`, with its loss watched. Lightning reads the signature and the code of what it wraps."""

    @functools.wraps(step)
    def watched_step(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        if output is not None:  # None skips the step
            networks.watch(loss_in(output, "training_step"))
        return output

    return watched_step


def _submodule(pl_module: nn.Module, name: str) -> nn.Module:
    try:
        return pl_module.get_submodule(name)
    except AttributeError:
        names = ", ".join(repr(child) for child, _ in pl_module.named_children()) or "none"
        raise UsageError(
            f"{type(pl_module).__name__} has no submodule {name!r} to attach VCReg to; its submodules: {names}. Name "
            "the network: VCRegLightningCallback(VCReg(), network='...')"
        ) from None
