"""Two views of an image, one network, a projector: the common walk of SimCLR and VICReg.

    views (b, 2, c, h, w) -> network -> features (2b, d) -> projector -> embeddings one, two (b, e) -> compare
                                             |
                                             +- no gradient passes here -> the network's own classifier -> labels

The classifier reads the features while they are learnt and teaches them nothing: an online linear probe. Its accuracy
on held-out images is `val_top1`, and what is exported is the network with it, without the projector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config import Task, Train, number
from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .task import TaskModule


@dataclass(frozen=True)
class JointEmbedding(Task):
    """A method that compares the embeddings of two views.

    projector: widths of its layers, of which each but the last is followed by ReLU. projector_norm: batch normalisation
    after every layer (`all`), after every layer but the last (`hidden`), or `none`.

    Both views pass the network as one batch, view by view, so that a regularizer sees their rows together.
    """

    views: ClassVar[int] = 2

    projector: tuple[int, ...] = number((2048, 256), at_least=1, at_most=100_000)
    projector_norm: Literal["all", "hidden", "none"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.projector:
            raise ConfigError("task.projector is the widths of its layers, one or more, got none")

    def compare(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        """{"loss": ..., and what else is shown} of this process's embeddings (b, e), row i of both from one image."""
        raise NotImplementedError

    def heads(self, network: nn.Module, example_input: Tensor) -> Mapping[str, nn.Module]:
        import torch

        from ..models.outputs import features
        from .embeddings import projector

        training = network.training
        with torch.no_grad():
            width = features(network.eval(), example_input).shape[1]
        network.train(training)
        return {"projector": projector(width, self.projector, self.projector_norm)}

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        from ..models.outputs import features_and_logits

        if train.compile:
            raise ConfigError("train.compile: a task of two views reads features inside the network; leave it off")
        views, labels = batch[0], batch[1]
        features, logits = features_and_logits(module.network, views.transpose(0, 1).flatten(0, 1))
        one, two = module.heads["projector"](features).chunk(2)
        with torch.autocast(one.device.type, enabled=False):
            compared = self.compare(_wide(one), _wide(two))
        logits, twice = _wide(logits), labels.repeat(2)
        probe = F.cross_entropy(logits, twice)
        shown = {name: value.detach() for name, value in compared.items() if name != "loss"}
        return {
            "loss": compared["loss"] + probe,
            "embedding_loss": compared["loss"].detach(),
            **shown,
            "top1": 100 * (logits.detach().argmax(1) == twice).float().mean(),
        }


def _wide(z: Tensor) -> Tensor:
    """z as float32 where it is narrower: half types overflow in sums over a batch."""
    return z.float() if z.element_size() < 4 else z
