"""The networks with VCReg inside what a loop trains, and the loss that the loop makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AttachError
from ..regularizer.attachment import Attachment


class AttachedNetworks:
    """Those modules within `root` that VCReg is attached to. root: a task, a LightningModule, a wrapped network."""

    def __init__(self, root: nn.Module) -> None:
        self._networks = [module for module in root.modules() if _attachment(module) is not None]

    def __len__(self) -> int:
        return len(self._networks)

    def watch(self, loss: Tensor, weight: float | Tensor = 1.0) -> None:
        """`Attachment.watch` of each that is in training mode: a teacher or an averaged copy is not.

        A network that was detached since, is left alone; one that was attached anew is watched by the new attachment.
        """
        if not torch.is_grad_enabled():
            return
        found = [_attachment(network) for network in self._networks if network.training]
        # A wrapper (DistributedDataParallel) and the network within share one.
        for attachment in {id(one): one for one in found if one is not None}.values():
            attachment.watch(loss, weight)


def loss_in(output: Any, of: str) -> Tensor:
    """The loss in what a step returns: itself, or its "loss". AttachError where there is none; of: who returned it."""
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise AttachError(
            f"{of} returned {type(output).__name__} without a loss, so VCReg does not know how its loss is scaled: "
            "return the loss, or a dict with 'loss'"
        )
    return loss


def _attachment(module: nn.Module) -> Attachment | None:
    found = vars(module).get("vcreg")
    return found if isinstance(found, Attachment) else None
