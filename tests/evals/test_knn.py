"""Nearest neighbours against scikit-learn's, with the same weights, and against a vote written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from vcreg_hub.errors import DataError
from vcreg_hub.evals import knn
from vcreg_hub.evals.knn import classify_by_neighbours


def digits():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x), torch.tensor(y)
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


@pytest.mark.parametrize("chunk", [2**25, 5000])
def test_digits_are_classified_as_by_scikit_learn(chunk, monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK", chunk)
    (x, y), (test, _) = digits()
    found = classify_by_neighbours(x, y, test)
    for k, own in found.items():
        # The squared distance of unit vectors is 2 - 2 s, so exp(s / t) is exp(-distance^2 / 2t) times a constant.
        model = KNeighborsClassifier(k, weights=lambda away: np.exp(-(away**2) / (2 * 0.07)))
        unit = torch.nn.functional.normalize(x, dim=1)
        model.fit(unit.numpy(), y.numpy())
        theirs = model.predict(torch.nn.functional.normalize(test, dim=1).numpy())
        assert (own.numpy() == theirs).all()


def test_a_vote_by_hand():
    train = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 1]])
    labels = torch.tensor([2, 0, 1, 1])
    test = torch.tensor([[5.0, 0.0], [0.0, 0.2]])
    found = classify_by_neighbours(train, labels, test, neighbours=(1, 50), temperature=1e6)
    assert found[1].tolist() == [2, 1]
    assert found[50].tolist() == [1, 1]  # at a huge temperature all four votes count alike


def test_what_cannot_be_is_refused():
    x, y = torch.randn(4, 3), torch.arange(4)
    with pytest.raises(DataError, match=r"\(4, 3\), \(4,\) and \(2, 5\)"):
        classify_by_neighbours(x, y, torch.randn(2, 5))
    with pytest.raises(DataError, match="k of 1 or more"):
        classify_by_neighbours(x, y, x, neighbours=(0,))
    with pytest.raises(DataError, match="not finite"):
        classify_by_neighbours(x, y, x / 0)
