"""A task from outside the package: two views of an image are to agree behind a projector, and their batch to vary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vcreg_hub.config import Task
from vcreg_hub.regularizer.loss import vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg


@dataclass(frozen=True)
class TwoViews(Task):
    """VICReg in small. width: of the projector's output."""

    views = 2
    monitor = "train_loss"
    lower_is_better = True

    width: int = 12

    def heads(self, network, example_input):
        classes = network(example_input).shape[1]
        return {
            "projector": nn.Sequential(nn.Linear(classes, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, self.width))
        }

    def loss(self, module, batch, train):
        views = batch[0]
        assert views.ndim == 5 and views.shape[1] == 2
        one, two = (module.heads["projector"](module.call_network(views[:, v])) for v in (0, 1))
        agree = (one - two).square().mean()
        return {"loss": agree + vcreg_loss(one, VCReg()) + vcreg_loss(two, VCReg()), "agree": agree}
