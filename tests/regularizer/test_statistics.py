"""The numbers of `Attachment.statistics` against their definitions, and when they are collected."""

from __future__ import annotations

import pytest
import torch
from small_models import STRONG, Network, sites_of
from torch.nn import functional as F

from vcreg_hub.regularizer import statistics
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.loss import covariance, covariance_loss, rows, variance_loss
from vcreg_hub.regularizer.statistics import _NAMES, Statistics, _describe_covariance
from vcreg_hub.regularizer.vcreg import VCReg

DEFAULT = VCReg()


def described(c, cfg=DEFAULT):
    return dict(zip(_NAMES, _describe_covariance(c, cfg).tolist(), strict=True))


@pytest.mark.parametrize("delta", [None, 0.3, 1.0])
def test_the_losses_are_those_of_the_equations(delta):
    c = covariance(torch.randn(40, 7, dtype=torch.float64) * torch.linspace(0.1, 2, 7, dtype=torch.float64))
    got = described(c, VCReg(delta=delta))
    assert got["variance_loss"] == pytest.approx(variance_loss(c, 1e-4).item(), rel=1e-12)
    assert got["covariance_loss"] == pytest.approx(covariance_loss(c, delta).item(), rel=1e-12)


def test_collapsed_channels_have_a_deviation_below_the_root_of_eps():
    c = torch.diag(torch.tensor([0.0, 0.009, 0.011, 1.0], dtype=torch.float64) ** 2)
    assert described(c)["collapsed"] == 0.5
    assert described(c, VCReg(eps=1e-6))["collapsed"] == 0.25


def test_the_effective_rank_is_the_participation_ratio():
    x = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(covariance(x))
    expected = eigenvalues.sum() ** 2 / eigenvalues.square().sum()
    assert described(covariance(x))["effective_rank"] == pytest.approx(expected.item())
    assert described(torch.eye(5))["effective_rank"] == pytest.approx(5)
    assert described(torch.ones(5, 5))["effective_rank"] == pytest.approx(1)
    assert described(torch.zeros(5, 5))["effective_rank"] == 0
    assert described(torch.ones(1, 1)) == pytest.approx(
        {"variance_loss": 0, "covariance_loss": 0, "collapsed": 0, "effective_rank": 1}
    )


def test_an_attachment_reports_the_last_backward_pass_of_each_site():
    model = Network().double()
    before = [{"site": f"blocks.{i}", **dict.fromkeys(_NAMES), "backwards": 0} for i in range(3)]
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        assert vc.statistics() == before
        for seed in (1, 2):
            x, y = model.batch(seed=seed)
            vc.watch(F.cross_entropy(model(x), y)).backward()
        read = vc.statistics()
    hidden = x
    for block, row in zip(model.blocks, read, strict=True):
        hidden = block(hidden)
        expected = described(covariance(rows(hidden.detach(), -1)), STRONG)
        assert {name: row[name] for name in _NAMES} == pytest.approx(expected)
        assert row["backwards"] == 2


def test_collection_stops_when_nobody_reads(monkeypatch):
    monkeypatch.setattr(statistics, "_FRESH", 4)
    s = Statistics(["a"], VCReg())

    def collected(passes):
        return [s.observer(0) is not None for _ in range(passes)]

    assert collected(13) == [True] * 4 + [True, False, False, False, True, False, False, False, True]
    s.read()
    assert collected(4) == [True] * 4
    assert s.read()[0]["backwards"] == 17
