"""Class-incremental learning: the classes come in groups, one after another, and the earlier ones are not seen again.

`train.class_groups` says how many groups there are. The loss of a batch is the cross-entropy among the classes of its
own group; what keeps the earlier groups is a penalty, or nothing but the regularizer:

    ewc    lambda / 2 * sum_i F_i (theta_i - theta*_i)^2       theta*: the weights after the last group, F: below
    lwf    lambda * sum over earlier groups of the cross-entropy between the classes' probabilities under theta* and
           now, both at temperature T, on the images of this group

EWC (Kirkpatrick et al., 2017) in its online form: F is the sum over the earlier groups of the diagonal of the Fisher
information at each one's end, sum_c p_c (d log p_c / d theta_i)^2 averaged over its images. LwF: Li and Hoiem (2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import COUNT, Task, Train, number
from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .memory import Memory
    from .task import TaskModule


@dataclass(frozen=True)
class Incremental(Task):
    """One group of classes after another.

    ewc, lwf: the lambdas above; 0 leaves the penalty out. temperature: of LwF. fisher_images: how many images of a
    group, of each process, F is averaged over.
    """

    tag = "incremental"
    monitor = "train_loss"
    lower_is_better = True

    ewc: float = number(0.0, at_least=0, at_most=COUNT)
    lwf: float = number(0.0, at_least=0, at_most=COUNT)
    temperature: float = number(2.0, above=0, at_most=1_000_000)
    fisher_images: int = number(300, at_least=1, at_most=COUNT)

    def heads(self, network: nn.Module, example_input: Tensor) -> Mapping[str, nn.Module]:
        if not self.ewc and not self.lwf:
            return {}
        from .memory import Memory

        return {"memory": Memory(network, with_fisher=self.ewc > 0)}

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        from ..models.outputs import logits

        samples, targets = batch[0], batch[1]
        if targets.ndim != 1:
            raise ConfigError("the task incremental takes class ids: set train.mixup=0 and train.cutmix=0")
        scores = logits(module.call_network(samples)).float()
        size = scores.shape[1] // train.class_groups
        group = int(targets[0]) // size
        own = scores[:, group * size : (group + 1) * size]
        loss = F.cross_entropy(own, targets - group * size, label_smoothing=train.label_smoothing)
        kept = torch.zeros((), device=loss.device)
        if group and self.ewc:
            kept = kept + self.ewc / 2 * _memory(module).distance(module.network)
        if group and self.lwf:
            before = _memory(module).output(module.network, samples)
            parts = (slice(i * size, (i + 1) * size) for i in range(group))
            kept = kept + self.lwf * sum(_distilled(before[:, at], scores[:, at], self.temperature) for at in parts)
        hits = own.detach().argmax(1) + group * size == targets
        return {"loss": loss + kept, "kept": kept.detach(), "top1": 100 * hits.float().mean()}

    def end_epoch(self, module: TaskModule, final: nn.Module, batches: Iterable[Sequence[Any]]) -> None:
        train, epochs = module.train_settings, module.epoch + 1
        each = train.epochs // train.class_groups
        if "memory" not in module.heads or epochs % each or epochs >= train.epochs:
            return
        _memory(module).remember(
            module.network, batches, group=epochs // each - 1, groups=train.class_groups, images=self.fisher_images
        )


def _memory(module: TaskModule) -> Memory:
    from .memory import Memory

    found = module.heads["memory"]
    assert isinstance(found, Memory), "made by `heads`"
    return found


def _distilled(before: Tensor, now: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy between two rows of logits (b, classes) at a temperature."""
    wanted = (before / temperature).softmax(1)
    return -(wanted * (now / temperature).log_softmax(1)).sum(1).mean()
