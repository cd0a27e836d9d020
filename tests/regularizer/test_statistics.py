"""The numbers of `Attachment.statistics` against their definitions, and when they are collected."""

from __future__ import annotations

import pytest
import torch
from small_models import STRONG, Network, sites_of
from torch.nn import functional as F

from vcreg_hub.regularizer import statistics
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.loss import covariance, covariance_loss, rows, variance_loss, vcreg_loss
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
    before = [
        {"site": f"blocks.{i}", **dict.fromkeys(_NAMES), "gradient_share": None, "backwards": 0} for i in range(3)
    ]
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


def incoming_and_added(model, x, y, cfg):
    """For each block the gradient that arrives at its output, and what the regularizer's loss there adds, by autograd.
    The incoming one holds what was added at later blocks."""
    outputs = [x]
    for block in model.blocks:
        outputs.append(block(outputs[-1]))
    for i, z in enumerate(outputs[1:]):
        hidden = z.detach().requires_grad_()
        after, later = hidden, 0.0
        for block in list(model.blocks)[i + 1 :]:
            after = block(after)
            later = later + vcreg_loss(rows(after, -1), cfg)
        scores = model.head(after.movedim(model.axis, -1).flatten(1, -2).mean(1))
        total = F.cross_entropy(scores, y) + later
        own = vcreg_loss(rows(hidden, -1), cfg)
        yield torch.autograd.grad(total, hidden)[0], torch.autograd.grad(own, hidden)[0]


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_share_of_the_gradient_is_what_is_added_over_what_arrives(scale):
    model = Network().double()
    x, y = model.batch()
    expected = [(added.norm() / incoming.norm()).item() for incoming, added in incoming_and_added(model, x, y, STRONG)]
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        (vc.watch(F.cross_entropy(model(x), y)) * scale).backward()
        assert [row["gradient_share"] for row in vc.statistics()] == pytest.approx(expected, rel=1e-9)


def test_in_a_half_type_the_share_is_not_lost_to_rounding():
    model = Network().double()
    x, y = model.batch()
    weak = VCReg(alpha=1e-4, beta=1e-4)  # its gradient is far below the last bit of the task's in bfloat16
    shares = []
    for cast in (model, model.bfloat16()):
        with attach(cast, weak, sites=sites_of(cast)) as vc:
            vc.watch(F.cross_entropy(cast(x.to(next(cast.parameters()).dtype)), y)).backward()
            shares.append([row["gradient_share"] for row in vc.statistics()])
    assert shares[1] == pytest.approx(shares[0], rel=0.1) and max(shares[0]) < 2**-9


def test_shares_are_taken_in_every_fiftieth_pass_and_averaged_between_readings():
    s = Statistics(["a"], VCReg())

    def passes(count, added):
        for _ in range(count):
            s.observer(0)
            if s.wants_share(0):
                taken.append(added)
                s.keep_share(0, torch.ones(4), torch.full((4,), added))

    taken: list[float] = []
    passes(50, 0.5)
    passes(50, 0.25)
    assert taken == [0.5, 0.25] and s.read()[0]["gradient_share"] == pytest.approx(0.375)
    passes(1, float("inf"))
    assert s.read()[0]["gradient_share"] == pytest.approx(0.375), "a step that a GradScaler skips says nothing"
    passes(50, 0.125)
    assert s.read()[0]["gradient_share"] == pytest.approx(0.125)


def test_collection_stops_when_nobody_reads(monkeypatch):
    monkeypatch.setattr(statistics, "_FRESH", 4)
    s = Statistics(["a"], VCReg())

    def collected(passes):
        return [s.observer(0) is not None for _ in range(passes)]

    assert collected(13) == [True] * 4 + [True, False, False, False, True, False, False, False, True]
    s.read()
    assert collected(4) == [True] * 4
    assert s.read()[0]["backwards"] == 17
