"""Counts hits: the accuracy of every evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import Metric

if TYPE_CHECKING:
    from torch import Tensor

TOP1 = Metric("%", True, "top-1 accuracy, {views}")
TOP5 = Metric("%", True, "top-5 accuracy, {views}")
MEAN_PER_CLASS = Metric("%", True, "mean of the classes' top-1 accuracies, {views}")


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
