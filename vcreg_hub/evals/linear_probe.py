"""Linear probe: L2-regularised multinomial logistic regression on frozen features, by L-BFGS.

The form of Kornblith et al. (2019) and of the paper's Appendix C.1: no augmentation, the objective is the SUM of the
cross-entropies plus lambda / 2 * ||W||^2, the bias is not penalised, features are used as they are. The penalty is
given, not searched, so the test images never choose it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from ..errors import DataError


def evaluate(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    penalty: float = 1.0,
    max_iterations: int = 1000,
) -> Iterator[tuple[str, float]]:
    """Yields ("probe_top1", percent) and ("probe_mean_per_class", percent).

    train / test: features (n, d) and labels (n,). A negative label is -1 minus that of a sample that could not be
    read: it is not trained on, and wrong in the test. penalty: lambda above, positive.
    Errors: DataError where features are not finite or training has fewer than two classes. A solver that stops at
    `max_iterations` warns: the number is then that of an unfinished fit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    read = train[1] >= 0
    train = train[0][read], train[1][read]
    for name, (rows, _) in (("training", train), ("test", test)):
        if not np.isfinite(rows).all():
            raise DataError(f"the {name} features hold values that are not finite: has the training diverged?")
    if len(np.unique(train[1])) < 2:
        raise DataError("a linear probe needs two classes or more in its training labels")
    probe = LogisticRegression(C=1.0 / penalty, max_iter=max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train[0].astype(np.float64), train[1])
    if np.max(probe.n_iter_) >= max_iterations:
        warnings.warn(f"the probe stopped at {max_iterations} iterations, short of convergence", stacklevel=2)
    hits = probe.predict(test[0].astype(np.float64)) == test[1]
    labels = np.where(test[1] < 0, -1 - test[1], test[1])
    yield "probe_top1", 100 * float(hits.mean())
    yield "probe_mean_per_class", 100 * float(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))
