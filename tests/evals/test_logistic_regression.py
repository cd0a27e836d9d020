"""The batched fits against scikit-learn's, one penalty at a time, on real data sets."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from vcreg_hub.errors import DataError
from vcreg_hub.evals import logistic_regression
from vcreg_hub.evals.logistic_regression import fit_logistic, penalty_grid


def wine():
    x, y = load_wine(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y


def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def iris():
    return load_iris(return_X_y=True)


SETS = {"digits": digits, "wine": wine, "iris": iris}


def split(name):
    x, y = SETS[name]()
    order = np.random.default_rng(0).permutation(len(y))
    cut = 2 * len(y) // 3
    train, test = order[:cut], order[cut:]
    return (torch.tensor(x[train]), torch.tensor(y[train])), (torch.tensor(x[test]), torch.tensor(y[test]))


def objective(weights, bias, features, labels, penalty):
    """The sum written down: weights (d, c), bias (c,)."""
    scores = features.double() @ weights.double() + bias.double()
    return float(
        penalty / 2 * weights.double().square().sum() - scores.log_softmax(1)[range(len(labels)), labels].sum()
    )


def sklearns(features, labels, penalty):
    """(weights (d, c), bias (c,)) of scikit-learn, or None where it did not converge."""
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(features.double().numpy(), labels.numpy())
        except ConvergenceWarning:
            return None
    return torch.tensor(model.coef_).T, torch.tensor(model.intercept_)


EVERY = range(45)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("digits", EVERY[24::4]),  # scikit-learn takes minutes for the smaller ones
        ("wine", EVERY[::4]),
        ("iris", EVERY[::4]),
        *(pytest.param(name, EVERY, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]) for name in SETS),
    ],
)
def test_every_objective_is_scikit_learns_where_that_converged(name, which):
    (features, labels), (test, truth) = split(name)
    penalties = penalty_grid()
    fits = fit_logistic(features, labels, penalties)
    assert fits.converged.all()
    hits = (fits.predict(test) == truth).sum(1)
    compared = 0
    for i in which:
        own = objective(fits.weights[i], fits.bias[i], features, labels, penalties[i])
        assert own == pytest.approx(float(fits.objective[i]), rel=1e-9, abs=1e-9)
        if (other := sklearns(features, labels, penalties[i])) is None:
            continue
        compared += 1
        assert own == pytest.approx(objective(*other, features, labels, penalties[i]), rel=1e-4)
        theirs = int(((test @ other[0] + other[1]).argmax(1) == truth).sum())
        assert abs(int(hits[i]) - theirs) <= max(1, round(0.001 * len(truth)))
    assert compared >= 5


def test_a_penalty_alone_gives_what_it_gives_among_others():
    (features, labels), (test, _) = split("digits")
    penalties = (1e-3, 1.0, 1e3)
    together = fit_logistic(features, labels, penalties, tolerance=1e-8)
    for i, penalty in enumerate(penalties):
        alone = fit_logistic(features, labels, [penalty], tolerance=1e-8)
        assert float(alone.objective[0]) == pytest.approx(float(together.objective[i]), rel=1e-6)
        assert torch.equal(alone.predict(test)[0], together.predict(test)[i])


def test_rows_in_small_pieces_give_the_same(monkeypatch):
    (features, labels), (test, _) = split("wine")
    whole = fit_logistic(features, labels, [0.1, 1.0])
    monkeypatch.setattr(logistic_regression, "_CHUNK", 50)
    pieces = fit_logistic(features, labels, [0.1, 1.0])
    assert torch.allclose(whole.objective, pieces.objective, rtol=1e-9)
    assert torch.equal(whole.predict(test), pieces.predict(test))


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_more_channels_than_rows_dead_channels_and_features_far_from_the_origin(shift):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 90, generator=generator, dtype=torch.float64) + shift
    features[:, 5] = shift
    labels = torch.arange(40) % 3
    fits = fit_logistic(features, labels, [1.0], tolerance=1e-10)
    other = sklearns(features - shift, labels, 1.0)
    assert other is not None
    assert float(fits.objective[0]) == pytest.approx(objective(*other, features - shift, labels, 1.0), rel=1e-6)


def test_a_huge_penalty_leaves_the_class_shares():
    (features, labels), _ = split("wine")
    fits = fit_logistic(features, labels, [1e12], tolerance=1e-12)
    shares = labels.bincount() / len(labels)
    assert fits.bias[0].softmax(0).tolist() == pytest.approx(shares.tolist(), rel=1e-4)


def test_the_grid_of_the_paper():
    grid = penalty_grid()
    assert (len(grid), grid[0], grid[-1]) == (45, 1e-5, 1e5)
    assert penalty_grid(1e-6)[4] == pytest.approx(1e-5)  # four a decade: exactly the grid of Kornblith et al.
    assert [math.log10(b / a) for a, b in itertools.pairwise(grid)] == pytest.approx([10 / 44] * 44)


def test_what_cannot_be_is_refused():
    features, labels = torch.randn(6, 2), torch.arange(6) % 2
    with pytest.raises(DataError, match="not finite"):
        fit_logistic(features.log(), labels, [1.0])
    with pytest.raises(DataError, match="two classes"):
        fit_logistic(features, torch.zeros(6, dtype=torch.long), [1.0])
    with pytest.raises(DataError, match="labels run to 1, but there are 1 classes"):
        fit_logistic(features, labels, [1.0], classes=1)
    with pytest.raises(DataError, match="above 0"):
        fit_logistic(features, labels, [0.0])
    with pytest.raises(DataError, match=r"features \(n, d\)"):
        fit_logistic(features, labels[:4], [1.0])
    with pytest.raises(DataError, match="run from a number above 0"):
        penalty_grid(1.0, 0.1)
