"""Neural collapse: how tightly the features of a class sit around their mean, next to the distance of the means.

Two classes on a line, features 0 and 2 of class a (mean 1, variance 1), 9 and 11 of class b (mean 10, variance 1):

    cdnv = (1 + 1) / (2 * (10 - 1)^2) = 1/81

A network that maps every image of a class to one point has a CDNV of 0. All sums are float64: with the means far from
the origin, E|f|^2 - |E f|^2 loses everything in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError

# Distances of one block of means at a time: C = 1,000 classes of d = 2,048 channels never make a (C, C, d) tensor.
_BLOCK = 256


@dataclass(frozen=True)
class ClassMoments:
    """First and second moments of each present class's features.

    classes: (C,) int64, ascending. counts: (C,). means: (C, d) float64. scatter: (C,) float64, the mean squared
    distance of a class's features to their mean (divided by n, not n - 1).
    """

    classes: Tensor
    counts: Tensor
    means: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, batches: Iterable[tuple[Tensor, Tensor]]) -> ClassMoments:
        """One pass over batches of features (n, d) and labels (n,).

        The moments are taken around the first batch's mean, which keeps them exact where features lie far from the
        origin. Errors: DataError for features that are not finite, or no features at all.
        """
        sums: dict[int, Tensor] = {}
        squares: dict[int, float] = {}
        counts: dict[int, int] = {}
        origin: Tensor | None = None
        for features, labels in batches:
            rows = _checked(features, labels)
            origin = rows.mean(0) if origin is None else origin
            rows = rows - origin
            for label in labels.unique().tolist():
                of_class = rows[labels == label]
                sums[label] = sums.get(label, torch.zeros_like(origin)) + of_class.sum(0)
                squares[label] = squares.get(label, 0.0) + float(of_class.square().sum())
                counts[label] = counts.get(label, 0) + len(of_class)
        if origin is None or not counts:
            raise DataError("there are no features to analyse")
        classes = sorted(counts)
        n = torch.tensor([counts[c] for c in classes], dtype=torch.float64)
        centred = torch.stack([sums[c] for c in classes]).cpu() / n[:, None]
        spread = torch.tensor([squares[c] for c in classes], dtype=torch.float64) / n - centred.square().sum(1)
        return cls(torch.tensor(classes), n.long(), centred + origin.cpu(), spread.clamp_(min=0))

    def nearest(self, features: Tensor) -> Tensor:
        """The class (n,) with the mean nearest to each row of features (n, d), by Euclidean distance."""
        distances = torch.cdist(features.detach().double().cpu(), self.means)
        return self.classes[distances.argmin(1)]


def cdnv(features: Tensor, labels: Tensor) -> float:
    """Class-distance normalised variance: the mean over pairs of classes of (var_i + var_j) / (2 |mu_i - mu_j|^2).

    features: (n, d). labels: (n,). Lower is more collapsed. Infinite where two classes have the same mean.
    Source: Galanti et al. 2022; the paper's Eq. 7, whose variance divides by n here.
    Errors: DataError for fewer than two classes.
    """
    return cdnv_of(ClassMoments.of([(features, labels)]))


def cdnv_of(moments: ClassMoments) -> float:
    """`cdnv` of moments gathered over batches."""
    total, pairs = 0.0, 0
    c = _two_or_more(moments)
    for start in range(0, c, _BLOCK):
        rows = slice(start, min(start + _BLOCK, c))
        squared = torch.cdist(moments.means[rows], moments.means).square()
        values = (moments.scatter[rows, None] + moments.scatter[None, :]) / (2 * squared)
        later = torch.arange(c)[None, :] > torch.arange(rows.start, rows.stop)[:, None]
        total += float(values[later].sum())
        pairs += int(later.sum())
    return total / pairs


def directional_cdnv(features: Tensor, labels: Tensor) -> float:
    """The CDNV with each class's variance along the line between the two means only.

    With u = (mu_i - mu_j) / |mu_i - mu_j|: the mean over pairs of (u' S_i u + u' S_j u) / (2 |mu_i - mu_j|^2). It says
    how much two classes overlap, where `cdnv` also counts spread that separates nothing.

    features: (n, d). labels: (n,). Errors: as `cdnv`.
    """
    rows = _checked(features, labels).cpu()
    moments = ClassMoments.of([(features, labels)])
    c = _two_or_more(moments)
    centred = [rows[labels.cpu() == label] - mean for label, mean in zip(moments.classes, moments.means, strict=True)]
    values = []
    for i in range(c):
        away = moments.means[i + 1 :] - moments.means[i]  # (c - i - 1, d)
        squared = away.square().sum(1)
        along = (centred[i] @ away.T).square().mean(0) / squared
        for k, j in enumerate(range(i + 1, c)):
            other = (centred[j] @ away[k]).square().mean() / squared[k]
            values.append(float((along[k] + other) / (2 * squared[k])))
    return sum(values) / len(values)


def ncc_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Percent of test features (n, d) nearest to their own label's mean of the training features.

    Higher is more collapsed, where the labels are those that were trained on.
    """
    moments = ClassMoments.of([train])
    return 100 * float((moments.nearest(test[0]) == test[1].cpu()).double().mean())


def ncc_agreement(train: tuple[Tensor, Tensor], features: Tensor, predictions: Tensor) -> float:
    """Percent of features (n, d) on which the nearest training class mean and the network's predictions (n,) agree.

    Higher is more collapsed: 100 where the classifier has become the nearest-mean rule (the fourth sign of neural
    collapse, Papyan et al. 2020).
    """
    moments = ClassMoments.of([train])
    return 100 * float((moments.nearest(features) == predictions.cpu()).double().mean())


def _two_or_more(moments: ClassMoments) -> int:
    if len(moments.classes) < 2:
        raise DataError(f"pairs of classes are compared, but all features are of class {int(moments.classes[0])}")
    return len(moments.classes)


def _checked(features: Tensor, labels: Tensor) -> Tensor:
    """The features as float64 rows (n, d). Errors: DataError."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise DataError(
            f"expected features (n, d) and labels (n,), got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    rows = features.detach().double()
    if not torch.isfinite(rows).all():
        raise DataError("the features hold values that are not finite: has the training diverged?")
    return rows
