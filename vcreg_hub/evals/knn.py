"""Weighted nearest-neighbour classification of frozen features, as in instance discrimination and DINO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import Evaluation, Metric, number
from ..errors import DataError
from .accuracy import accuracies
from .samples import check_classes, check_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.module import DataModule
    from .context import Context

# Similarities (rows of the test, rows of the training set) made at a time.
_CHUNK = 2**25
_NEIGHBOURS = (10, 20, 200)


@dataclass(frozen=True)
class KNN(Evaluation):
    """The majority vote of the 10, 20 or 200 most similar training samples. labels: `class`, also after training on
    `superclass`. temperature: of the votes' weights."""

    tag = "knn"
    metrics: ClassVar[Mapping[str, Metric]] = {
        f"knn{k}_top1": Metric("%", True, f"top-1 accuracy of the {k} nearest neighbours in frozen features")
        for k in _NEIGHBOURS
    }

    labels: str | None = "class"
    temperature: float = number(0.07, above=0, at_most=1_000_000)

    def check(self, data: DataModule) -> None:
        check_classes(data)

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        import torch

        train, test = context.features(self, "train"), context.features(self)
        check_rows({"training": train, "test": test})
        read = train[1] >= 0
        labels, truth = torch.from_numpy(train[1][read]), torch.from_numpy(test[1])
        found = classify_by_neighbours(
            torch.from_numpy(train[0][read]), labels, torch.from_numpy(test[0]), temperature=self.temperature
        )
        for k, predicted in found.items():
            yield f"knn{k}_top1", accuracies(predicted[:, None], truth, int(labels.max()) + 1)["top1"]


def classify_by_neighbours(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    neighbours: Sequence[int] = _NEIGHBOURS,
    temperature: float = 0.07,
    classes: int | None = None,
) -> dict[int, Tensor]:
    """For each k of `neighbours` the class ids (m,) of the test features (m, d), by the training features (n, d).

    The k training features of the largest cosine similarity s vote for their label (n,), with weight
    exp(s / temperature).
    A k above n takes all n. classes: None for the largest label plus one. Ties go to the smaller class id.
    Source: Wu et al. 2018, section 3.4, whose temperature is 0.07.
    Errors: DataError for features of other widths, features that are not finite, a k below 1.
    """
    import torch
    from torch.nn import functional as F

    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1] or labels.shape != train.shape[:1]:
        raise DataError(
            f"expected features (n, d), labels (n,) and features (m, d), got {tuple(train.shape)}, "
            f"{tuple(labels.shape)} and {tuple(test.shape)}"
        )
    if not len(train) or min(neighbours, default=0) < 1:
        raise DataError(f"expected at least one training feature and k of 1 or more, got {len(train)} and {neighbours}")
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        raise DataError("the features hold values that are not finite: has the training diverged?")
    classes = int(labels.max()) + 1 if classes is None else classes
    known, largest = F.normalize(train, dim=1), min(max(neighbours), len(train))
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for part in F.normalize(test, dim=1).split(max(1, _CHUNK // len(train))):
        similarity, place = (part @ known.T).topk(largest, dim=1)
        # The largest similarity is taken off before the exponential: only the ratios of weights count.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = labels.to(place.device)[place]
        for k in neighbours:
            score = torch.zeros(len(part), classes, dtype=weights.dtype, device=weights.device)
            found[k].append(score.scatter_add_(1, votes[:, :k], weights[:, :k]).argmax(1))
    return {k: torch.cat(parts) if parts else labels.new_empty(0) for k, parts in found.items()}
