"""Linear probe: L2-regularised multinomial logistic regression on frozen features, by L-BFGS.

The form of Kornblith et al. (2019) and of the paper's Appendix C.1: no augmentation, the objective is the SUM of the
cross-entropies plus lambda / 2 * ||W||^2, the bias is not penalised, features are used as they are. The penalty is
given, not searched, so the test images never choose it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, Evaluation, Metric, number
from .accuracy import accuracies
from .samples import check_classes, check_rows

if TYPE_CHECKING:
    from ..data.module import DataModule
    from .context import Context, Rows


@dataclass(frozen=True)
class LinearProbe(Evaluation):
    """A classifier fitted to the training features, of any data set and any of its label sets.

    labels: `class`, also where training saw `superclass`. penalty: lambda above, positive.
    """

    tag = "linear_probe"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "probe_top1": Metric("%", True, "top-1 accuracy of a linear probe on frozen features"),
        "probe_mean_per_class": Metric("%", True, "mean per-class accuracy of a linear probe on frozen features"),
    }

    labels: str | None = "class"
    penalty: float = number(1.0, above=0, at_most=COUNT)

    def check(self, data: DataModule) -> None:
        check_classes(data)

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        return self.score(context.features(self, "train"), context.features(self))

    def score(self, train: Rows, test: Rows, max_iterations: int = 1000) -> Iterator[tuple[str, float]]:
        """Yields ("probe_top1", percent) and ("probe_mean_per_class", percent).

        train / test: features (n, d) and labels (n,). A negative label is -1 minus that of a sample that could not be
        read: it is not trained on, and wrong in the test.
        Errors: those of `check_rows`. A solver that stops at `max_iterations` warns: the number is then that of an
        unfinished fit.
        """
        import numpy as np
        import torch
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        check_rows({"training": train, "test": test})
        read = train[1] >= 0
        train = train[0][read], train[1][read]
        probe = LogisticRegression(C=1.0 / self.penalty, max_iter=max_iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(train[0].astype(np.float64), train[1])
        if np.max(probe.n_iter_) >= max_iterations:
            warnings.warn(f"the probe stopped at {max_iterations} iterations, short of convergence", stacklevel=2)
        predicted = torch.from_numpy(probe.predict(test[0].astype(np.float64)))
        found = accuracies(predicted[:, None], torch.from_numpy(test[1]), classes=len(probe.classes_))
        yield "probe_top1", found["top1"]
        yield "probe_mean_per_class", found["mean_per_class"]
