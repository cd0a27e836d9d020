"""The loss against sums written out by hand, and the closed form against autograd of the loss."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.errors import ConfigError, UsageError
from vcreg_hub.regularizer import loss as core
from vcreg_hub.regularizer.loss import rows, vcreg_gradient, vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg

SHAPES = {
    "final": ((9, 5), -1),
    "narrow": ((4, 30), -1),
    "two rows": ((2, 6), -1),
    "one channel": ((12, 1), -1),
    "tokens": ((3, 7, 8), -1),
    "nchw": ((3, 6, 4, 5), 1),
    "nhwc": ((3, 4, 5, 6), -1),
    "video": ((2, 6, 3, 4, 2), 1),
    "video, channels last": ((2, 3, 4, 2, 6), -1),
}


def features(shape, axis, mean=0.0, spread=(1.0,), seed=0):
    """Correlated features whose channels cycle through the standard deviations in `spread`."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(shape, generator=g, dtype=torch.float64).movedim(axis, -1)
    d = z.shape[-1]
    z = z + 0.5 * z.roll(1, -1)
    std = torch.tensor([spread[i % len(spread)] for i in range(d)], dtype=torch.float64)
    return (z * std + mean).movedim(-1, axis).contiguous()


def by_hand(z, cfg):
    """Eqs. 1 to 6 as loops over plain floats."""
    n, d = z.shape
    z = z.tolist()
    mean = [math.fsum(row[i] for row in z) / n for i in range(d)]

    def cov(i, j):
        return math.fsum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / (n - 1)

    variance = math.fsum(max(0.0, 1 - math.sqrt(cov(i, i) + cfg.eps)) for i in range(d)) / d
    penalties = []
    for i in range(d):
        for j in range(d):
            c = abs(cov(i, j))
            if i != j:
                quadratic = cfg.delta is None or c <= cfg.delta
                penalties.append(c**2 if quadratic else 2 * cfg.delta * c - cfg.delta**2)
    return cfg.alpha * variance + cfg.beta * (math.fsum(penalties) / (d * (d - 1)) if d > 1 else 0.0)


def distance(a, b):
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


DELTAS = (None, 1e-3, 0.3, 1.0, 1e3)


@pytest.mark.parametrize("name", SHAPES)
def test_the_loss_is_the_printed_sums(name):
    z = rows(features(*SHAPES[name], mean=2.0, spread=(0.3, 1.0, 3.0)), SHAPES[name][1])
    for delta in DELTAS:
        cfg = VCReg(alpha=0.7, beta=0.4, delta=delta, eps=1e-3)
        assert vcreg_loss(z, cfg).item() == pytest.approx(by_hand(z, cfg), rel=1e-12)


@pytest.mark.parametrize("mean", [0.0, -3.0, 100.0])
@pytest.mark.parametrize("name", SHAPES)
def test_the_closed_form_is_the_gradient(name, mean):
    shape, axis = SHAPES[name]
    z = features(shape, axis, mean=mean, spread=(0.0, 1e-6, 1.0, 10.0, 0.5)).requires_grad_()
    for delta in DELTAS:
        cfg = VCReg(alpha=0.64, beta=0.08, delta=delta)
        (expected,) = torch.autograd.grad(vcreg_loss(rows(z, axis), cfg), z)
        assert distance(vcreg_gradient(rows(z.detach(), axis), cfg), rows(expected, axis)) < 1e-10


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 12),
    d=st.integers(1, 12),
    delta=st.one_of(st.none(), st.floats(1e-3, 10)),
    alpha=st.floats(0, 5),
    beta=st.floats(0, 5),
    eps=st.floats(1e-6, 2),
    scale=st.floats(1e-3, 30),
    seed=st.integers(0, 99),
)
def test_the_closed_form_is_the_gradient_anywhere(n, d, delta, alpha, beta, eps, scale, seed):
    z = (features((n, d), -1, seed=seed) * scale).requires_grad_()
    cfg = VCReg(alpha=alpha, beta=beta, delta=delta, eps=eps)
    (expected,) = torch.autograd.grad(vcreg_loss(z, cfg), z)
    torch.testing.assert_close(vcreg_gradient(z.detach(), cfg), expected, rtol=1e-9, atol=1e-11)


def test_the_loss_has_the_derivative_that_differences_give():
    z = features((6, 4), -1, spread=(0.3, 2.0)).requires_grad_()
    for delta in (None, 0.2):
        assert torch.autograd.gradcheck(lambda z, delta=delta: vcreg_loss(z, VCReg(delta=delta)), (z,))


def test_dead_channels_give_finite_gradients():
    z = torch.zeros(5, 3, requires_grad=True)
    loss = vcreg_loss(z, VCReg())
    loss.backward()
    assert loss.item() == pytest.approx(0.64 * (1 - 0.01), rel=1e-6)
    assert torch.equal(z.grad, torch.zeros(5, 3))
    assert torch.equal(vcreg_gradient(z.detach(), VCReg()), torch.zeros(5, 3))


def test_both_are_zero_where_nothing_is_wrong():
    """Uncorrelated channels with a variance above 1 are left alone."""
    z = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
    assert vcreg_loss(z, VCReg()).item() == 0
    assert torch.equal(vcreg_gradient(z, VCReg()), torch.zeros(4, 2))


def algorithm_1(z, cfg):
    """Algorithm 1 line by line, on demeaned input; the sign of the variance term is lost in print and must be minus."""
    z = z - z.mean(0)
    n, d = z.shape
    covariance_matrix = torch.mm(z.t(), z) / (n - 1)
    diagonal = torch.nn.functional.threshold(torch.rsqrt(covariance_matrix.diagonal() + cfg.eps), 1.0, 0.0)
    std_grad_input = diagonal * z
    cov_grad_input = torch.mm(z, covariance_matrix.fill_diagonal_(0))
    return -cfg.alpha / (d * (n - 1)) * std_grad_input + 4 * cfg.beta / (d * (d - 1)) * cov_grad_input


@pytest.mark.parametrize("delta", [None, 0.01])
def test_algorithm_1_as_printed(delta):
    z = features((20, 6), -1, mean=1.0, spread=(0.2, 0.9, 3.0))
    cfg = VCReg(delta=delta, gradient="algorithm1")
    torch.testing.assert_close(vcreg_gradient(z, cfg), algorithm_1(z, cfg), rtol=1e-12, atol=1e-14)
    assert vcreg_loss(z, cfg) == vcreg_loss(z, replace(cfg, gradient="loss"))


def test_algorithm_1_is_too_strong_by_the_row_count():
    z = features((20, 6), -1, spread=(2.0,))
    exact = vcreg_gradient(z, VCReg(alpha=0, delta=None))
    torch.testing.assert_close(vcreg_gradient(z, VCReg(alpha=0, gradient="algorithm1")), 19 * exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_computed_wide(dtype):
    z = features((4096, 4), -1, mean=30.0).to(dtype)
    cfg = VCReg()
    assert vcreg_loss(z, cfg).dtype == torch.float32
    assert vcreg_loss(z, cfg).item() == pytest.approx(vcreg_loss(z.double(), cfg).item(), rel=1e-4)
    gradient = vcreg_gradient(z, cfg)
    assert gradient.dtype == dtype
    # float16 has no numbers as small as these gradients; what can be asked of it is the nearest it has
    torch.testing.assert_close(gradient, vcreg_gradient(z.float(), cfg).to(dtype))


def test_autocast_does_not_reach_the_loss():
    z = features((64, 8), -1, mean=5.0).float()
    plain = vcreg_loss(z, VCReg()), vcreg_gradient(z, VCReg())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vcreg_loss(z, VCReg()), plain[0])
        assert torch.equal(vcreg_gradient(z, VCReg()), plain[1])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_regularize_nothing_and_say_so_once(n, monkeypatch):
    monkeypatch.setattr(core, "_warned_too_few_rows", False)
    z = torch.randn(n, 3, requires_grad=True)
    with pytest.warns(UserWarning, match=f"at least 2 rows .* got {n}"):
        loss = vcreg_loss(z, VCReg())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(vcreg_gradient(z.detach(), VCReg()), torch.zeros(n, 3))
    loss.backward()
    assert loss == 0
    assert torch.equal(z.grad, torch.zeros(n, 3))


@pytest.mark.parametrize("z", [torch.zeros(3), torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)])
@pytest.mark.parametrize("function", [vcreg_loss, vcreg_gradient])
def test_anything_but_a_float_matrix_is_refused(function, z):
    with pytest.raises(UsageError, match=r"\(n, d\)"):
        function(z, VCReg())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", -0.1), ("alpha", "0.64"), ("alpha", math.nan), ("beta", math.inf), ("beta", None), ("beta", True),
        ("delta", 0), ("delta", -1.0), ("eps", 0.0), ("gradient", "exact"), ("sync", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"{field} .*(not|got) {value!r}"):
        VCReg(**{field: value})


def test_the_defaults_are_the_contract():
    assert VCReg() == VCReg(alpha=0.64, beta=0.08, delta=1.0, eps=1e-4, gradient="loss", sync=False)
