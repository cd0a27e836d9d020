"""Linear probe with a searched penalty: 45 strengths fitted at once, chosen on held-out samples, tested once.

The protocol of Kornblith et al. (2019) and of the paper's Appendix C.1: frozen features as they are, no augmentation,
lambda / 2 * |W|^2 plus the SUM of the cross-entropies. The penalty is the best one on the validation samples; the fit
that is tested has seen training and validation samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config import COUNT, Evaluation, Metric, number
from ..errors import ConfigError, DataError
from .accuracy import accuracies
from .samples import check_classes, check_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.module import DataModule
    from .context import Context, Rows

# Share of the training samples that choose the penalty where the data hold none out, or while those are what is scored.
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Strength:
    """One penalty of a search. score: on the held-out samples, in percent. objective: lambda / 2 |W|^2 plus the summed
    cross-entropy of the samples that were fitted, at its minimum."""

    penalty: float
    score: float
    objective: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Search:
    """A whole search. accuracies: of the last fit on the test samples, in percent; see `accuracies`. fitted, held_out:
    numbers of samples."""

    penalty: float
    accuracies: Mapping[str, float]
    path: tuple[Strength, ...]
    fitted: int
    held_out: int


@dataclass(frozen=True)
class LogReg(Evaluation):
    """A classifier fitted to frozen features, its penalty chosen without the samples it is scored on.

    labels: `class`, also where training saw `superclass`. judged_by: what chooses the penalty, None for the data set's
    own metric. lowest, highest, count: the penalties, evenly spaced in their logarithm.
    On `eval.split=val` a fifth of the training samples chooses the penalty, so that the validation samples stay unseen.
    The whole search is in the run folder, in the file that results.json names.
    """

    tag = "logreg"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "logreg_top1": Metric("%", True, "top-1 accuracy of logistic regression on frozen features, penalty searched"),
        "logreg_mean_per_class": Metric(
            "%", True, "mean per-class accuracy of logistic regression on frozen features, penalty searched"
        ),
    }

    labels: str | None = "class"
    judged_by: Literal["top1", "mean_per_class"] | None = None
    lowest: float = number(1e-5, above=0, at_most=COUNT)
    highest: float = number(1e5, above=0, at_most=COUNT)
    count: int = number(45, at_least=1, at_most=10_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lowest > self.highest:
            raise ConfigError(f"penalties run upwards from lowest to highest, got {self.lowest} to {self.highest}")
        if self.judged_by not in (None, "top1", "mean_per_class"):
            raise ConfigError(f"judged_by is 'top1', 'mean_per_class' or null, got {self.judged_by!r}")

    def settings(self, data: DataModule) -> Mapping[str, Any]:
        found = super().settings(data)
        return {name: value for name, value in found.items() if name != "judged_by" or value != data.metric}

    def check(self, data: DataModule) -> None:
        check_classes(data)

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        data, split = context.data(self), context.settings.split
        train, held_out = context.features(self, "train"), None
        if split == "test" and data.size("val"):
            held_out = context.features(self, "val")
        found = self.search(train, held_out, context.features(self), self.judged_by or data.metric)
        chosen = {"judged_by": self.judged_by or data.metric, **asdict(found)}
        context.note(self, chosen, penalty=found.penalty)
        for name in ("top1", "mean_per_class"):
            yield f"logreg_{name}", found.accuracies[name]

    def search(self, train: Rows, held_out: Rows | None, test: Rows, judged_by: str = "top1") -> Search:
        """Chooses the penalty, fits anew with it, and scores that fit once.

        train, held_out, test: features (n, d) and labels (n,). held_out: chooses the penalty and joins the last fit;
        None takes a fifth of `train` for it. A negative label is -1 minus that of a sample that could not be read:
        it is left out of fits and choices, and wrong in the test.
        Errors: those of `check_rows`; DataError where there is nothing to hold out.
        """
        import numpy as np
        import torch

        from .logistic_regression import fit_logistic, penalty_grid

        parts = {"training": train, "validation": held_out, "test": test}
        check_rows({name: rows for name, rows in parts.items() if rows is not None})
        train = _readable(train)
        if held_out is None:
            kept, held_out = _carved(train)
            whole = train
        else:
            kept, held_out = train, _readable(held_out)
            whole = np.concatenate([train[0], held_out[0]]), np.concatenate([train[1], held_out[1]])
        classes = 1 + int(max(part[1].max() for part in (train, held_out)))
        penalties = penalty_grid(self.lowest, self.highest, self.count)
        fits = fit_logistic(*_tensors(kept), penalties, classes=classes)
        features, labels = _tensors(held_out)
        scores = [accuracies(row[:, None], labels, classes)[judged_by] for row in fits.predict(features)]
        # Of equal scores the strongest penalty: the simplest classifier.
        best = max(range(len(penalties)), key=lambda i: (scores[i], penalties[i]))
        final = fit_logistic(*_tensors(whole), [penalties[best]], classes=classes)
        found = accuracies(final.predict(torch.from_numpy(test[0]))[0][:, None], torch.from_numpy(test[1]), classes)
        told = (scores, fits.objective.tolist(), fits.iterations.tolist(), fits.converged.tolist())
        path = tuple(Strength(*row) for row in zip(penalties, *told, strict=True))
        return Search(penalties[best], found, path, len(kept[1]), len(held_out[1]))


def _readable(rows: Rows) -> Rows:
    read = rows[1] >= 0
    return rows[0][read], rows[1][read]


def _carved(rows: Rows) -> tuple[Rows, Rows]:
    """(kept, held out): a fifth of the samples of every class held out, the same for every call."""
    import numpy as np

    random = np.random.RandomState(0)
    held = np.zeros(len(rows[1]), dtype=bool)
    for label in np.unique(rows[1]):
        places = random.permutation(np.flatnonzero(rows[1] == label))
        held[places[: round(_HELD_OUT * len(places))]] = True
    if not held.any():
        raise DataError(
            "every class has too few training samples to hold a fifth out; use linear_probe, whose penalty is given"
        )
    return (rows[0][~held], rows[1][~held]), (rows[0][held], rows[1][held])


def _tensors(rows: Rows) -> tuple[Tensor, Tensor]:
    import torch

    return torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
