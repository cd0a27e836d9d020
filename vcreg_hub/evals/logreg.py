"""Linear probe with a searched penalty: 45 strengths fitted at once, chosen on held-out samples, tested once.

The protocol of Kornblith et al. (2019) and of the paper's Appendix C.1: frozen features as they are, no augmentation,
lambda / 2 * |W|^2 plus the SUM of the cross-entropies. The penalty is the best one on the validation samples; the fit
that is tested has seen training and validation samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..config import Evaluation, Metric
from ..errors import ConfigError, DataError
from .accuracy import accuracies

if TYPE_CHECKING:
    from torch import Tensor

    from .context import Context, Rows

# Share of the training samples that choose the penalty where the data hold none out, or while those are what is scored.
_HELD_OUT = 0.2


@dataclass(frozen=True)
class LogReg(Evaluation):
    """A classifier fitted to frozen features, its penalty chosen without the samples it is scored on.

    labels: `class`, also where training saw `superclass`. judged_by: what chooses the penalty. lowest, highest, count:
    the penalties, evenly spaced in their logarithm.
    On `eval.split=val` a fifth of the training samples chooses the penalty, so that the validation samples stay unseen.
    """

    tag = "logreg"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "logreg_top1": Metric("%", True, "top-1 accuracy of logistic regression on frozen features, penalty searched"),
        "logreg_mean_per_class": Metric(
            "%", True, "mean per-class accuracy of logistic regression on frozen features, penalty searched"
        ),
        "logreg_penalty": Metric("", False, "the penalty that was chosen"),
    }

    labels: str | None = "class"
    judged_by: Literal["top1", "mean_per_class"] = "top1"
    lowest: float = 1e-5
    highest: float = 1e5
    count: int = 45

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest < float("inf") or self.count < 1:
            raise ConfigError(
                f"penalties run from a number above 0 upwards, got {self.count} from {self.lowest} to {self.highest}"
            )
        if self.judged_by not in ("top1", "mean_per_class"):
            raise ConfigError(f"judged_by is 'top1' or 'mean_per_class', got {self.judged_by!r}")

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        train, split = context.features(self, "train"), context.settings.split
        held_out = None
        if split == "test" and context.data(self).size("val"):
            held_out = context.features(self, "val")
        return self.score(train, held_out, context.features(self))

    def score(self, train: Rows, held_out: Rows | None, test: Rows) -> Iterator[tuple[str, float]]:
        """Yields "logreg_top1" and "logreg_mean_per_class" in percent, and "logreg_penalty".

        train, held_out, test: features (n, d) and labels (n,). held_out: chooses the penalty and joins the last fit;
        None takes a fifth of `train` for it. A negative label is -1 minus that of a sample that could not be read:
        it is left out of fits and choices, and wrong in the test.
        Errors: DataError where features are not finite or training has fewer than two classes.
        """
        import numpy as np
        import torch

        from .logistic_regression import fit_logistic, penalty_grid

        train = _readable(train)
        if held_out is None:
            kept, held_out = _carved(train)
            whole = train
        else:
            kept, held_out = train, _readable(held_out)
            whole = np.concatenate([train[0], held_out[0]]), np.concatenate([train[1], held_out[1]])
        classes = 1 + int(max(part[1].max() for part in (train, held_out)))
        penalties = penalty_grid(self.lowest, self.highest, self.count)
        path = fit_logistic(*_tensors(kept), penalties, classes=classes)
        features, labels = _tensors(held_out)
        scores = [accuracies(row[:, None], labels, classes)[self.judged_by] for row in path.predict(features)]
        # Of equal scores the strongest penalty: the simplest classifier.
        best = max(range(len(penalties)), key=lambda i: (scores[i], penalties[i]))
        final = fit_logistic(*_tensors(whole), [penalties[best]], classes=classes)
        found = accuracies(final.predict(torch.from_numpy(test[0]))[0][:, None], torch.from_numpy(test[1]), classes)
        yield "logreg_top1", found["top1"]
        yield "logreg_mean_per_class", found["mean_per_class"]
        yield "logreg_penalty", penalties[best]


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
        raise DataError("every class has too few training samples to hold a fifth out; give linear_probe a penalty")
    return (rows[0][~held], rows[1][~held]), (rows[0][held], rows[1][held])


def _tensors(rows: Rows) -> tuple[Tensor, Tensor]:
    import torch

    return torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
