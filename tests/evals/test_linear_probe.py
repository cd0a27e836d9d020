"""The probe against the same objective minimised by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcreg_hub.errors import DataError
from vcreg_hub.evals.linear_probe import LinearProbe


def evaluate(train, test, penalty=1.0, **more):
    return LinearProbe(penalty=penalty).score(train, test, **more)


def blobs(seed, n=60, d=4, classes=3, spread=1.0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, d)) * 1.5
    labels = np.arange(n) % classes
    return (centres[labels] + spread * random.normal(size=(n, d))).astype(np.float32), labels


def by_newton(rows, labels, penalty):
    """Minimises sum of cross-entropies + penalty / 2 * ||W||^2 with the bias left alone, in float64, by torch."""
    x, y = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(weight.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum")
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_predictions_are_those_of_the_documented_objective(penalty):
    train, test = blobs(1), blobs(2, n=301, spread=1.5)
    weight, bias = by_newton(*train, penalty)
    predicted = (torch.tensor(test[0], dtype=torch.float64) @ weight + bias).argmax(1).numpy()
    hits = predicted == test[1]
    found = dict(evaluate(train, test, penalty))
    assert found["probe_top1"] == pytest.approx(100 * hits.mean(), abs=100 / 301 + 1e-9), "one borderline image at most"
    by_class = 100 * np.mean([hits[test[1] == c].mean() for c in range(3)])
    assert found["probe_mean_per_class"] == pytest.approx(by_class, abs=1.1)


def test_the_penalty_matters():
    train, test = blobs(1, n=12, spread=2.0), blobs(2, n=600, spread=2.0)
    assert dict(evaluate(train, test, 1e-4)) != dict(evaluate(train, test, 1e3))


def test_wrong_features_are_refused():
    rows, labels = blobs(1)
    broken = rows.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="diverged"):
        list(evaluate((broken, labels), (rows, labels)))
    with pytest.raises(DataError, match="two classes"):
        list(evaluate((rows, np.zeros_like(labels)), (rows, labels)))


def test_an_unfinished_fit_says_so():
    train, test = blobs(1, n=200, d=30, spread=3.0), blobs(2, d=30)
    with pytest.warns(UserWarning, match="stopped at 2 iterations"):
        list(evaluate(train, test, 1e-6, max_iterations=2))


def test_what_could_not_be_read_is_not_trained_on_and_counts_as_wrong():
    (rows, labels), (test_rows, test_labels) = blobs(1), blobs(2)
    clean = dict(evaluate((rows, labels), (test_rows, test_labels)))
    more = np.concatenate([rows, np.full((5, 4), 1e3, np.float32)]), np.concatenate([labels, np.full(5, -1)])
    assert dict(evaluate(more, (test_rows, test_labels))) == clean
    lost = test_labels.copy()
    lost[test_labels == 1] = -1 - 1
    found = dict(evaluate((rows, labels), (test_rows, lost)))
    right = list(_by_class(rows, labels, test_rows, test_labels))
    assert found["probe_mean_per_class"] == pytest.approx((right[0] + right[2]) / 3)
    assert found["probe_top1"] == pytest.approx((right[0] + right[2]) / 3), "classes are of one size"


def _by_class(rows, labels, test_rows, test_labels):
    for c in range(3):
        own = test_labels == c
        yield dict(evaluate((rows, labels), (test_rows[own], test_labels[own])))["probe_top1"]
