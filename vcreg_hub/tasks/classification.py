"""Cross-entropy on class ids (b,) or, after mixup, on class probabilities (b, classes).

Three fields are what a user may pick instead of a regularizer: a projector, a fixed classifier, and a penalty on the
logits. Each works with any network and in any recipe: `--set task.projector=[256]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import Task, Train, number
from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .task import TaskModule


@dataclass(frozen=True)
class Classification(Task):
    """The network's own head learns the classes, with `train.label_smoothing`.

    projector: widths of an MLP behind the features, each a linear layer, batch normalisation and ReLU, with a linear
        layer to the classes on top (Wang et al. 2022). The network learns through it alone and is exported without
        it; its own classifier learns beside it, and moves nothing below itself. () for none.
    etf_length: the classifier is fixed, a simplex equiangular tight frame of vectors of this length (Zhu et al. 2021).
        None for one that learns.
    spectral_decoupling: lambda of Pezeshki et al. (2021): lambda / 2 times the squared length of a sample's logits is
        added to its loss.
    """

    tag = "classification"

    projector: tuple[int, ...] = number((), at_least=1, at_most=1_000_000)
    etf_length: float | None = number(None, above=0, at_most=1_000_000)
    spectral_decoupling: float = number(0.0, at_least=0, at_most=1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projector and self.etf_length is not None:
            raise ConfigError("task.projector and task.etf_length: the network learns through one classifier, pick one")

    def heads(self, network: nn.Module, example_input: Tensor) -> Mapping[str, nn.Module]:
        if self.etf_length is not None:
            from ..models.etf import fix_classifier

            fix_classifier(network, example_input, self.etf_length)
        if not self.projector:
            return {}
        import torch

        from ..models.outputs import features_and_logits
        from .embeddings import projector

        training = network.training
        with torch.no_grad():
            features, scores = features_and_logits(network.eval(), example_input)
        network.train(training)
        return {"projector": projector(features.shape[1], (*self.projector, scores.shape[1]), "hidden")}

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        from torch.nn import functional as F

        from ..models.outputs import logits

        samples, targets = batch[0], batch[1]
        if self.projector:
            scores, learned = _through_projector(module, samples, train)
        else:
            scores = learned = logits(module.call_network(samples)).float()
        check_targets(targets, scores.shape[-1])
        loss = F.cross_entropy(learned, targets, label_smoothing=train.label_smoothing)
        if self.projector:
            loss = loss + F.cross_entropy(scores, targets, label_smoothing=train.label_smoothing)
        if self.spectral_decoupling:
            loss = loss + self.spectral_decoupling / 2 * learned.square().sum(1).mean()
        hard = targets if targets.ndim == 1 else targets.argmax(1)
        return {"loss": loss, "top1": 100 * (scores.detach().argmax(1) == hard).float().mean()}


def _through_projector(module: TaskModule, samples: Tensor, train: Train) -> tuple[Tensor, Tensor]:
    """Logits (b, classes) of the network's own classifier, teaching no layer below it, and of the projector."""
    from ..models.outputs import features_and_logits

    if train.compile:
        raise ConfigError("train.compile: task.projector reads features inside the network; leave it off")
    features, scores = features_and_logits(module.network, samples)
    return scores.float(), module.heads["projector"](features).float()


def check_targets(targets: Tensor, classes: int) -> None:
    """Raises DataError for class ids that the network does not have."""
    # On a GPU a bad label kills the process with an assert far from its cause, and looking costs a wait: the data
    # sets check their own labels, so only the CPU looks again.
    if targets.ndim == 1 and targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise DataError(f"labels run from {low} to {high}, but the model has classes 0 to {classes - 1}")
