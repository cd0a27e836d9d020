"""Accuracy after the classes were learnt in groups: with the group known, and without.

Told the group, a network chooses among its classes alone (task-incremental); untold, among all (class-incremental).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, Evaluation, Metric, Train, number
from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.module import DataModule
    from .context import Context


@dataclass(frozen=True)
class Incremental(Evaluation):
    """The network's own classifier, group by group. groups: the recipe's `train.class_groups`."""

    tag = "incremental"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "known_top1": Metric("%", True, "mean over the groups of the accuracy among a group's own classes, {views}"),
        "unknown_top1": Metric("%", True, "mean over the groups of the accuracy among all classes, {views}"),
    }
    uses_classifier = True

    groups: int = number(5, at_least=1, at_most=COUNT)

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        import torch

        from ..models.outputs import logits

        network, accelerator = context.network, context.accelerator
        was_training = network.training
        network.eval()
        rows, targets = [], []
        with torch.no_grad():
            for samples, labels, *_ in context.batches(context.data(self)):
                with accelerator.autocast():
                    scores = logits(network(samples)).float()
                scores, labels = accelerator.gather_for_metrics((scores, labels))
                rows.append(scores.cpu())
                targets.append(labels.cpu())
        network.train(was_training)
        known, unknown = accuracy_by_group(torch.cat(rows), torch.cat(targets), self.groups)
        yield "known_top1", known.mean().item()
        yield "unknown_top1", unknown.mean().item()

    def check_training(self, train: Train) -> None:
        if self.groups != train.class_groups:
            raise ConfigError(
                f"evals.incremental.groups is train.class_groups={train.class_groups}, in which the classes are shown, "
                f"got {self.groups}: --set evals.incremental.groups={train.class_groups}"
            )

    def check(self, data: DataModule) -> None:
        if data.num_classes % self.groups:
            raise ConfigError(f"{data} has {data.num_classes} classes, which are not {self.groups} groups of one size")


def accuracy_by_group(scores: Tensor, labels: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(groups,) accuracies in percent with the group known, and without, of scores (n, classes) and labels (n,)."""
    import torch

    size = scores.shape[1] // groups
    group = labels // size
    among = torch.arange(scores.shape[1]) // size == group[:, None]
    known = scores.masked_fill(~among, -torch.inf).argmax(1) == labels
    unknown = scores.argmax(1) == labels
    found = [[100 * hits[group == g].double().mean() for g in range(groups)] for hits in (known, unknown)]
    return torch.stack(found[0]), torch.stack(found[1])
