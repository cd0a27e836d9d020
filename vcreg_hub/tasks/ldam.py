"""LDAM-DRW (Cao et al. 2019): margins that grow as a class gets rarer, and weights for rare classes late in training.

With n_c training samples of class c, unit features f and unit class vectors w_c, the loss of a sample of class y is

    -log  e^{s (w_y f - m_y)} / (e^{s (w_y f - m_y)} + sum_{c != y} e^{s w_c f}),   m_c = max_margin (min n / n_c)^(1/4)

and from the deferred epoch on, it is weighted by (1 - b) / (1 - b^n_y), scaled so that the weights' mean is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import Task, Train, number
from ..errors import ConfigError
from .classification import check_targets

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .task import TaskModule


@dataclass(frozen=True)
class LDAM(Task):
    """Label-distribution-aware margins with deferred re-weighting. The classifier has no bias and rows of unit length.

    max_margin: margin of the rarest class. scale: s, what the cosines are multiplied by. deferral: share of the epochs
    that pass before classes are weighted (160 of 200 in the original); 1 for never. effective: b, of the effective
    number of samples (Cui et al. 2019).
    """

    tag = "ldam"

    max_margin: float = number(0.5, at_least=0, at_most=1000)
    scale: float = number(30.0, above=0, at_most=1_000_000)
    deferral: float = number(0.8, at_least=0, at_most=1)
    effective: float = number(0.9999, at_least=0, below=1)

    def heads(self, network: nn.Module, example_input: Tensor) -> Mapping[str, nn.Module]:
        from ..models.etf import linear_classifier

        layer = linear_classifier(network, example_input)
        if layer.bias is not None:
            layer.bias.detach().zero_()
            layer.bias.requires_grad_(False)
        return {}

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        from ..models.etf import linear_classifier
        from ..models.outputs import features_and_logits

        samples, targets = batch[0], batch[1]
        counts = self._checked(module, targets, train)
        features, _ = features_and_logits(module.network, samples)
        layer = linear_classifier(module.network, samples)
        # A cosine in a half type, thirty times, would be off by a tenth.
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.linear(F.normalize(features.float()), F.normalize(layer.weight.float()))
        check_targets(targets, cosines.shape[1])
        n = torch.tensor(counts, dtype=cosines.dtype, device=cosines.device)
        margins = self.max_margin * (n.min() / n) ** 0.25
        apart = cosines - F.one_hot(targets, len(n)) * margins
        late = module.epoch >= self.deferral * train.epochs
        loss = F.cross_entropy(self.scale * apart, targets, self._weights(n) if late else None)
        return {"loss": loss, "top1": 100 * (cosines.detach().argmax(1) == targets).float().mean()}

    def _weights(self, n: Tensor) -> Tensor:
        # In float64: 1 - b^n loses its digits where b is close to one.
        weights = (1 - self.effective) / (1 - self.effective ** n.double())
        return (weights / weights.mean()).to(n.dtype)

    def _checked(self, module: TaskModule, targets: Tensor, train: Train) -> Sequence[int]:
        """The class counts. Errors: ConfigError for what the loss cannot do."""
        if train.compile:
            raise ConfigError("train.compile: task=ldam reads features inside the network; leave it off")
        if module.class_counts is None or min(module.class_counts) < 1:
            raise ConfigError("task=ldam counts the training samples of each class: it takes no stream or empty class")
        if targets.ndim != 1 or train.label_smoothing:
            raise ConfigError("task=ldam takes one class a sample: set train.mixup, cutmix and label_smoothing to 0")
        return module.class_counts

    def end_epoch(self, module: TaskModule, final: nn.Module, batches: Any) -> None:
        """Gives the classifier's rows unit length: then its logits rank the classes as the cosines do."""
        from torch.nn import functional as F

        from ..models.etf import linear_classifier

        device = next(final.parameters()).device
        weight = linear_classifier(final, module.example_input.to(device)).weight.detach()
        weight.copy_(F.normalize(weight))
