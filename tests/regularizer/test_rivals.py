"""DeCov and WLD-Reg against their sums written down, and their gradients against autograd's, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vcreg_hub.errors import ConfigError
from vcreg_hub.regularizer import wld_reg
from vcreg_hub.regularizer.decov import DeCov
from vcreg_hub.regularizer.wld_reg import WLDReg

ALL = [DeCov(0.3), WLDReg("direct", 0.2, 0.1, 0.7), WLDReg("det", 0.2, 0.1, 0.7), WLDReg("logdet", 0.2, 0.1, 0.7)]


def features(n=7, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_decov(z):
    n, d = z.shape
    mean = [sum(float(z[i, k]) for i in range(n)) / n for k in range(d)]
    total = 0.0
    for k in range(d):
        for m in range(d):
            if k != m:
                c = sum((float(z[i, k]) - mean[k]) * (float(z[i, m]) - mean[m]) for i in range(n)) / n
                total += c * c
    return total / 2


def slow_similarity(z, gamma):
    n, d = z.shape
    return torch.tensor(
        [
            [sum(math.exp(-gamma * float(z[i, k] - z[i, m]) ** 2) for i in range(n)) / n for m in range(d)]
            for k in range(d)
        ],
        dtype=torch.float64,
    )


def test_decov_is_the_sum_written_down():
    assert float(DeCov(0.3).loss_of(features())) == pytest.approx(0.3 * slow_decov(features()), rel=1e-12)


@pytest.mark.parametrize("form", ["direct", "det", "logdet"])
def test_wld_reg_is_the_sum_written_down(form):
    z = features()
    s = slow_similarity(z, 0.7)
    j = {
        "direct": float(s.sum() - s.trace()),
        "det": -float(torch.det(s + 1e-5 * torch.eye(5))),
        "logdet": -math.log(float(torch.det(s + 1e-5 * torch.eye(5)))),
    }[form]
    expected = 0.2 * j + 0.1 * float(z.square().sum()) / 7
    assert float(WLDReg(form, 0.2, 0.1, 0.7).loss_of(z)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rival", ALL, ids=repr)
@pytest.mark.parametrize("chunk", [2**24, 40])
def test_the_gradient_is_autograds(rival, chunk, monkeypatch):
    monkeypatch.setattr(wld_reg, "_CHUNK", chunk)
    z = features().requires_grad_()
    (expected,) = torch.autograd.grad(rival.loss_of(z), z)
    assert torch.allclose(rival.gradient_of(z.detach()), expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(rival.loss_of, (z,))


def test_half_types_are_computed_in_float32():
    z = features(64, 8).bfloat16()
    for rival in ALL:
        assert rival.loss_of(z).dtype == torch.float32
        assert rival.gradient_of(z).dtype == torch.bfloat16


@pytest.mark.parametrize("make", [lambda: DeCov(-1), lambda: WLDReg("trace"), lambda: WLDReg(gamma=float("nan"))])
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ConfigError):
        make()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made within it."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.is_contiguous():
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("form", ["direct", "logdet"])
def test_two_thousand_channels_fit(form, monkeypatch):
    """No tensor of n * d * d elements; the gradient along a direction is the difference of two losses."""
    monkeypatch.setattr(wld_reg, "_CHUNK", 2**20)
    d, rival = 2048, WLDReg(form, 0.5, 0.0, 1.0)
    z = features(4, d)
    with Largest() as largest:
        gradient = rival.gradient_of(z)
    assert largest.elements <= max(d * d, 2**20) < z.numel() * d
    direction = features(4, d, seed=1)
    step = 1e-4
    difference = (rival.loss_of(z + step * direction) - rival.loss_of(z - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-4)


def test_both_weights_are_one_value_unless_told_apart():
    z = features()
    assert WLDReg(similarity_weight=0.2).loss_of(z) == WLDReg(similarity_weight=0.2, norm_weight=0.2).loss_of(z)
    assert WLDReg(similarity_weight=0.2).loss_of(z) != WLDReg(similarity_weight=0.2, norm_weight=0.1).loss_of(z)
