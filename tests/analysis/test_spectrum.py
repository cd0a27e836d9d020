"""Ranks, slopes and correlations against values known beforehand."""

from __future__ import annotations

import math

import pytest
import torch

from vcreg_hub.analysis.similarity import linear_cka
from vcreg_hub.analysis.spectrum import (
    alpha_req,
    collapsed_share,
    effective_rank,
    lidar,
    mean_correlation,
    rankme,
    singular_values,
)
from vcreg_hub.errors import DataError
from vcreg_hub.regularizer.loss import covariance
from vcreg_hub.regularizer.statistics import _describe_covariance
from vcreg_hub.regularizer.vcreg import VCReg

CROSS = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])


def with_spectrum(values, n=400, seed=0):
    """Centred features (n, d) whose covariance has exactly these eigenvalues."""
    d = len(values)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    q, _ = torch.linalg.qr(rows - rows.mean(0))
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q * torch.tensor(values, dtype=torch.float64).sqrt() * math.sqrt(n - 1) @ turn


def test_the_example_of_the_docstring():
    assert effective_rank(CROSS) == pytest.approx(2)
    assert rankme(CROSS) == pytest.approx(2, abs=1e-4)
    assert collapsed_share(CROSS) == pytest.approx(1 / 3)
    assert mean_correlation(CROSS) == 0


@pytest.mark.parametrize("k", [1, 3, 8])
def test_k_equal_directions_have_rank_k(k):
    features = with_spectrum([2.0] * k + [0.0] * (8 - k))
    assert effective_rank(features) == pytest.approx(k)
    assert rankme(features) == pytest.approx(k, abs=1e-3)


def test_isotropic_noise_has_full_rank():
    features = torch.randn(50_000, 16, generator=torch.Generator().manual_seed(0))
    assert effective_rank(features) == pytest.approx(16, rel=0.01)
    assert rankme(features) == pytest.approx(16, rel=0.01)
    assert mean_correlation(features) < 0.01


def test_the_effective_rank_is_the_one_that_training_reports():
    features = with_spectrum([3.0, 1.0, 0.5, 0.1]).float()
    reported = _describe_covariance(covariance(features.double()), VCReg())[-1]
    assert effective_rank(features) == pytest.approx(float(reported), rel=1e-6)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(exponent):
    features = with_spectrum([i**-exponent for i in range(1, 21)])
    assert alpha_req(features) == pytest.approx(exponent, rel=1e-6)
    assert alpha_req(features, first=5, last=15) == pytest.approx(exponent, rel=1e-6)


def test_lidar_counts_the_directions_that_tell_groups_apart():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(200).repeat_interleave(10)
    means = torch.randn(200, 6, generator=generator)
    means[:, 3:] = 0
    features = means[groups] + 0.05 * torch.randn(2000, 6, generator=generator)
    assert lidar(features, groups) == pytest.approx(3, rel=0.05)


def test_correlation_is_between_different_channels():
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    assert mean_correlation(torch.cat([x, -2 * x, 3 * x], 1)) == pytest.approx(1)
    assert mean_correlation(torch.cat([x, torch.zeros(100, 1)], 1)) == 0


def test_cka_is_one_under_rotation_and_scale_and_small_for_strangers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 10, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))
    assert linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert linear_cka(x, torch.randn(300, 12, generator=generator, dtype=torch.float64)) < 0.1


def test_both_roads_to_cka_agree():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 8, generator=generator), torch.randn(30, 6, generator=generator)
    wide = torch.cat([x, torch.zeros(30, 40)], 1)  # more channels than samples: the samples' side
    assert linear_cka(x, y) == pytest.approx(linear_cka(wide, y), rel=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="two rows or more"):
        effective_rank(torch.zeros(1, 4))
    with pytest.raises(DataError, match="not finite"):
        rankme(torch.tensor([[1.0], [float("inf")]]))
    with pytest.raises(DataError, match="two eigenvalues"):
        alpha_req(torch.zeros(4, 3))
    with pytest.raises(DataError, match="only one"):
        lidar(torch.randn(4, 3), torch.zeros(4))
    with pytest.raises(DataError, match="same samples"):
        linear_cka(torch.randn(4, 3), torch.randn(5, 3))
    with pytest.raises(DataError, match="do not vary"):
        linear_cka(torch.ones(4, 3), torch.randn(4, 3))
    assert effective_rank(torch.ones(4, 3)) == 0
    assert rankme(torch.zeros(4, 3)) == 0
    assert len(singular_values(torch.randn(4, 9))) == 4
