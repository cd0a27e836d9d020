"""Counts hits: the accuracy of every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..config import Metric

if TYPE_CHECKING:
    from torch import Tensor

TOP1 = Metric("%", True, "top-1 accuracy, {views}")
TOP5 = Metric("%", True, "top-5 accuracy, {views}")
MEAN_PER_CLASS = Metric("%", True, "mean of the classes' top-1 accuracies, {views}")

# Of a long-tailed training set: how many training samples a class has in each group (Liu et al. 2019).
_GROUPS = {"many": (101, math.inf), "medium": (20, 100), "few": (0, 19)}
GROUPED = {
    f"top1_{name}": Metric("%", True, f"top-1 accuracy of classes with {text} training samples, {{views}}")
    for name, text in (("many", "more than 100"), ("medium", "20 to 100"), ("few", "fewer than 20"))
}
# A training set is long-tailed where its largest class has this many times the samples of its smallest.
_LONG_TAILED = 10


def accuracies(ranked: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """ "top1", "top5" for more than five classes, and "mean_per_class", in percent.

    ranked: (n, k) class ids, the likeliest first; k is 1, or 5 where top5 is wanted. labels: (n,) class ids; one of a
    sample that could not be read is -1 minus its class: whatever was predicted is wrong.
    """
    import torch

    hits = (ranked == labels[:, None]).double()
    first = hits[:, 0]
    found = {"top1": 100 * first.mean().item()}
    if classes > 5 and ranked.shape[1] >= 5:
        found["top5"] = 100 * hits[:, :5].sum(1).mean().item()
    true = torch.where(labels < 0, -1 - labels, labels)
    by_class = [first[true == c].mean() for c in true.unique()]
    return found | {"mean_per_class": 100 * torch.stack(by_class).mean().item()}


def accuracies_by_frequency(ranked: Tensor, labels: Tensor, counts: Sequence[int] | None) -> dict[str, float]:
    """The top-1 accuracy over the samples of frequent, of medium and of rare classes, in percent, by its name in
    `GROUPED`; none where the training set is not long-tailed, or not known.

    ranked, labels: as of `accuracies`. counts: training samples of each class.
    """
    if not counts or max(counts) < _LONG_TAILED * min(counts):
        return {}
    import torch

    true = torch.where(labels < 0, -1 - labels, labels)
    seen = torch.tensor(counts, device=labels.device)[true]
    hits = (ranked[:, 0] == labels).double()
    groups = {f"top1_{name}": (seen >= low) & (seen <= high) for name, (low, high) in _GROUPS.items()}
    return {name: 100 * hits[group].mean().item() for name, group in groups.items() if group.any()}


def score_answers(
    answer: Callable[[Tensor], Tensor], batches: Iterable[Any], accelerator: Any, classes: int
) -> list[dict[str, float]]:
    """`accuracies` of each of several classifiers on the same batches, the same on every process.

    answer: the class ids (b, k) that k classifiers give samples (b, ...). batches: (samples, labels (b,), ...),
    prepared by `accelerator`; what padding repeats is not counted.
    """
    import torch

    answers, targets = [], []
    with torch.no_grad():
        for samples, labels, *_ in batches:
            with accelerator.autocast():
                given = answer(samples)
            given, labels = accelerator.gather_for_metrics((given.contiguous(), labels))
            answers.append(given.cpu())
            targets.append(labels.cpu())
    every, truth = torch.cat(answers), torch.cat(targets)
    return [accuracies(every[:, i : i + 1], truth, classes) for i in range(every.shape[1])]
