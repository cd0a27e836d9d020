"""Collapse metrics against values known by hand, and against the formula written out pair by pair."""

from __future__ import annotations

import itertools

import pytest
import torch

from vcreg_hub.analysis import collapse
from vcreg_hub.analysis.collapse import ClassMoments, cdnv, cdnv_of, directional_cdnv, ncc_accuracy, ncc_agreement
from vcreg_hub.errors import DataError


def clouds(classes=4, each=60, d=5, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(classes, d, generator=generator, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(each)
    noise = torch.randn(classes * each, d, generator=generator, dtype=torch.float64)
    return means[labels] + spread * noise, labels


def slow_cdnv(features, labels):
    values = []
    for i, j in itertools.combinations(labels.unique().tolist(), 2):
        a, b = features[labels == i].double(), features[labels == j].double()
        variance = [(rows - rows.mean(0)).square().sum(1).mean() for rows in (a, b)]
        values.append(sum(variance) / (2 * (a.mean(0) - b.mean(0)).square().sum()))
    return float(sum(values) / len(values))


def slow_directional(features, labels):
    values = []
    for i, j in itertools.combinations(labels.unique().tolist(), 2):
        a, b = features[labels == i].double(), features[labels == j].double()
        away = a.mean(0) - b.mean(0)
        along = [((rows - rows.mean(0)) @ (away / away.norm())).square().mean() for rows in (a, b)]
        values.append(sum(along) / (2 * away.square().sum()))
    return float(sum(values) / len(values))


def test_the_example_of_the_docstring():
    features = torch.tensor([[0.0], [2.0], [9.0], [11.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert cdnv(features, labels) == pytest.approx(1 / 81)
    assert directional_cdnv(features, labels) == pytest.approx(1 / 81)


def test_perfect_collapse_is_zero():
    features = torch.eye(3).repeat_interleave(4, 0)
    labels = torch.arange(3).repeat_interleave(4)
    assert cdnv(features, labels) == 0
    assert ncc_accuracy((features, labels), (features, labels)) == 100


def test_isotropic_noise_is_known():
    """Noise of deviation s in d dimensions around means a distance r apart: d s^2 / r^2, along the line s^2 / r^2."""
    d, s, r, n = 50, 0.5, 4.0, 200_000
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(2).repeat_interleave(n // 2)
    features = s * torch.randn(n, d, generator=generator)
    features[:, 0] += r * labels
    assert cdnv(features, labels) == pytest.approx(d * s**2 / r**2, rel=0.01)
    assert directional_cdnv(features, labels) == pytest.approx(s**2 / r**2, rel=0.01)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_all_pairs_are_averaged(classes, monkeypatch):
    monkeypatch.setattr(collapse, "_BLOCK", 2)
    features, labels = clouds(classes)
    assert cdnv(features, labels) == pytest.approx(slow_cdnv(features, labels), rel=1e-12)
    assert directional_cdnv(features, labels) == pytest.approx(slow_directional(features, labels), rel=1e-12)


def test_batches_give_what_the_whole_gives_also_far_from_the_origin():
    features, labels = clouds()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    far = (features + 1e6)[order]
    batches = list(zip(far.split(17), labels[order].split(17), strict=True))
    assert cdnv_of(ClassMoments.of(batches)) == pytest.approx(slow_cdnv(features, labels), rel=1e-6)


def test_the_nearest_mean_is_that_of_the_training_features():
    train = (torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([3, 3, 8]))
    test = (torch.tensor([[2.0], [7.0]]), torch.tensor([3, 3]))
    assert ncc_accuracy(train, test) == 50
    assert ncc_agreement(train, test[0], torch.tensor([3, 8])) == 100


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="all features are of class 4"):
        cdnv(torch.randn(3, 2), torch.full((3,), 4))
    with pytest.raises(DataError, match="not finite"):
        cdnv(torch.tensor([[1.0], [float("nan")]]), torch.tensor([0, 1]))
    with pytest.raises(DataError, match=r"labels \(n,\), got \(3, 2\) and \(2,\)"):
        cdnv(torch.randn(3, 2), torch.zeros(2))
    with pytest.raises(DataError, match="no features"):
        ClassMoments.of([])
