"""The gradient of a tensor as it lies in memory against the clear form of `loss.py`, for every layout and route."""

from __future__ import annotations

import pytest
import torch

from vcreg_hub.regularizer import gradient as backward
from vcreg_hub.regularizer import loss as core
from vcreg_hub.regularizer.gradient import _add_gram, _as_matrix, _mirror, add_gradient
from vcreg_hub.regularizer.loss import covariance, rows, vcreg_gradient, vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg

CASES = {
    "final": ((50, 7), -1),
    "narrow": ((3, 40), -1),
    "nchw": ((4, 6, 5, 5), 1),
    "nchw, few positions": ((40, 12, 2, 2), 1),
    "nchw, narrow": ((2, 100, 3, 3), 1),
    "nhwc": ((4, 5, 5, 6), -1),
    "tokens": ((4, 9, 6), -1),
    "video": ((2, 3, 4, 5, 6), 1),
    "video, channels last": ((2, 3, 4, 5, 6), -1),
    "one channel": ((9, 1), -1),
    "wide": ((30, 200), -1),
}
LAYOUTS = ("contiguous", "channels_last", "reversed", "gaps", "narrowed", "channel-major")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def laid_out(z, layout, axis):
    """The same values with other strides."""
    if layout == "channels_last":
        return z.contiguous(memory_format=torch.channels_last)
    if layout == "reversed":
        order = list(reversed(range(z.dim())))
        return z.permute(order).contiguous().permute(order)
    if layout == "gaps":
        return torch.stack([z, z], -1)[..., 0]
    if layout == "narrowed":
        return torch.cat([z, z], 1)[:, : z.shape[1]]
    if layout == "channel-major":  # tokens that a transposed convolution map left behind
        return z.movedim(axis, 1).contiguous().movedim(1, axis)
    return z


def relative_error(got, expected):
    return ((got.double() - expected).norm() / expected.norm()).item()


def small_chunks(monkeypatch):
    monkeypatch.setitem(backward._CHUNK, "cpu", 64)
    monkeypatch.setattr(backward, "_MIN_ROWS", 1)


LAID_OUT = [(n, x) for n, (shape, _) in CASES.items() for x in LAYOUTS if x != "channels_last" or len(shape) == 4]


@pytest.mark.parametrize("chunks", ["one", "many"])
@pytest.mark.parametrize(("name", "layout"), LAID_OUT)
def test_every_layout_gets_the_gradient(name, layout, chunks, monkeypatch):
    if chunks == "many":
        small_chunks(monkeypatch)
    shape, axis = CASES[name]
    g = torch.Generator().manual_seed(0)
    for dtype, tolerance in TOLERANCE.items():
        z = laid_out((torch.randn(shape, generator=g, dtype=torch.float64) * 0.8 + 1).to(dtype), layout, axis)
        for delta in (None, 0.3, 50.0):
            cfg = VCReg(alpha=2.0, beta=1.0, delta=delta)
            exact = vcreg_gradient(rows(z.double(), axis), cfg)
            incoming = torch.randn(shape, generator=g, dtype=torch.float64).mul(exact.norm() / 10).to(dtype)
            before = z.clone(), incoming.clone()
            out = add_gradient(incoming, z, axis, cfg, torch.tensor(3.0, dtype=torch.float64))
            assert out.shape == z.shape
            assert out.dtype == dtype
            assert relative_error(rows(out, axis), rows(incoming.double(), axis) + 3 * exact) < tolerance
            assert torch.equal(z, before[0])
            assert torch.equal(incoming, before[1])


@pytest.mark.parametrize(("name", "layout"), [("nchw", "contiguous"), ("nchw", "channels_last"), ("tokens", "gaps")])
def test_the_incoming_gradient_may_lie_differently(name, layout):
    shape, axis = CASES[name]
    z = laid_out(torch.randn(shape, dtype=torch.float64), layout, axis)
    incoming = torch.randn(1, dtype=torch.float64).expand(shape)
    out = add_gradient(incoming, z, axis, VCReg())
    expected = rows(incoming, axis) + vcreg_gradient(rows(z, axis), VCReg())
    torch.testing.assert_close(rows(out, axis), expected)


def test_strides_are_used_where_they_can_be():
    """The usual layouts are seen as matrices in place; only odd ones are copied."""
    nchw = torch.randn(4, 6, 5, 5)
    channels_last = nchw.contiguous(memory_format=torch.channels_last)
    tokens = torch.randn(4, 6, 25).transpose(1, 2)
    for t, axis, shape in [(nchw, 1, (4, 25, 6)), (channels_last, 1, (100, 6)), (tokens, -1, (4, 25, 6))]:
        m = _as_matrix(t, axis)
        assert tuple(m.shape) == shape
        assert m.data_ptr() == t.data_ptr()
    odd = torch.randn(4, 5, 6, 5).transpose(1, 3)
    assert _as_matrix(odd, 1).data_ptr() != odd.data_ptr()


@pytest.mark.parametrize(("mean", "std"), [(100.0, 1.0), (10.0, 0.1), (-300.0, 3.0)])
def test_float32_stays_within_1e_5_of_float64_far_from_zero(mean, std):
    g = torch.Generator().manual_seed(0)
    z = (torch.randn(20000, 24, generator=g) @ torch.randn(24, 24, generator=g) * std / 5 + mean).view(20, 1000, 24)
    exact = vcreg_gradient(rows(z.double(), -1), VCReg(delta=None))
    got = add_gradient(torch.zeros_like(z), z, -1, VCReg(delta=None))
    assert relative_error(rows(got, -1), exact) < 1e-5


@pytest.mark.parametrize("d", [1, 5, 64, 65, 130, 300])
def test_gram_by_strips_is_the_whole_product(d):
    x = torch.randn(7, d, dtype=torch.float64)
    total = torch.zeros(d, d, dtype=torch.float64)
    _add_gram(total, x)
    _add_gram(total, x)
    _mirror(total)
    torch.testing.assert_close(total, 2 * x.T @ x)


@pytest.mark.parametrize(
    ("n", "delta", "expected"),
    [(8, None, True), (8, 1e3, True), (8, 0.1, False), (40, None, False)],
    ids=["no clamp", "clamp out of reach", "clamp within reach", "more rows than channels"],
)
def test_the_narrow_route_is_taken_where_it_is_exact(n, delta, expected, monkeypatch):
    small_chunks(monkeypatch)
    taken = []
    narrow = backward._narrow
    monkeypatch.setattr(backward, "_narrow", lambda *args: taken.append(True) or narrow(*args))
    z = torch.randn(n, 32, dtype=torch.float64)
    seen = []
    out = add_gradient(torch.zeros_like(z), z, -1, VCReg(delta=delta), observe=lambda c: seen.append(c.clone()))
    torch.testing.assert_close(out, vcreg_gradient(z, VCReg(delta=delta)))
    torch.testing.assert_close(seen[0], covariance(z))
    assert bool(taken) is expected


@pytest.mark.parametrize("name", ["narrow", "nchw, narrow"])
@pytest.mark.parametrize("large", [[0], [3, 17, 39], list(range(12))], ids=len)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_few_channels_above_delta_keep_the_narrow_route(name, large, alpha, monkeypatch):
    """What the clamp takes away lies in the rows and columns of the channels with a variance above delta."""
    taken = []
    narrow = backward._narrow
    monkeypatch.setattr(backward, "_narrow", lambda *args: taken.append(len(args[2])) or narrow(*args))
    shape, axis = CASES[name]
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-1.2, 1.2)
    z.movedim(axis, -1)[..., large] *= 9
    cfg = VCReg(alpha=alpha, beta=1.0, delta=1.9)
    c = covariance(rows(z, axis))
    clamped = (c - c.clamp(-cfg.delta, cfg.delta)).fill_diagonal_(0) != 0
    assert clamped.any(), "the clamp is within reach"
    out = add_gradient(torch.ones_like(z), z, axis, cfg, 3.0)
    torch.testing.assert_close(rows(out, axis), 1 + 3 * vcreg_gradient(rows(z, axis), cfg))
    assert taken == [int((c.diagonal() > cfg.delta).sum())]


@pytest.mark.parametrize("name", ["nchw", "tokens", "narrow"])
def test_algorithm_1_takes_the_same_routes(name):
    shape, axis = CASES[name]
    z = torch.randn(shape, dtype=torch.float64)
    cfg = VCReg(gradient="algorithm1", delta=0.1)
    out = add_gradient(torch.zeros_like(z), z, axis, cfg)
    torch.testing.assert_close(rows(out, axis), vcreg_gradient(rows(z, axis), cfg))


def test_nothing_is_injected_below_two_rows(monkeypatch):
    z, g, empty = torch.randn(1, 5), torch.randn(1, 5), torch.randn(0, 5)
    monkeypatch.setattr(core, "_warned_too_few_rows", False)
    with pytest.warns(UserWarning, match="at least 2 rows"):
        assert torch.equal(add_gradient(g, z, -1, VCReg()), g)
    assert add_gradient(empty, empty, -1, VCReg()).shape == (0, 5)


def test_statistics_do_not_change_the_result():
    """Who reads statistics must not train another model."""
    for shape in ((100, 16), (6, 40)):
        z, g = torch.randn(shape), torch.randn(shape)
        plain = add_gradient(g, z, -1, VCReg(delta=None))
        assert torch.equal(add_gradient(g, z, -1, VCReg(delta=None), observe=lambda c: c.sum()), plain)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 1e-2)])
def test_on_a_gpu(layout, dtype, tolerance):
    z = laid_out(torch.randn(16, 64, 14, 14, device="cuda").mul(0.8).add(1).to(dtype), layout, 1)
    wide = z.double().requires_grad_()
    cfg = VCReg(alpha=50.0, beta=50.0)
    (exact,) = torch.autograd.grad(vcreg_loss(rows(wide, 1), cfg) * 1000, wide)
    for autocast in (None, torch.bfloat16):
        got = add_gradient(torch.zeros_like(z), z, 1, cfg, torch.tensor(1000.0, device="cuda"), autocast=autocast)
        assert relative_error(got, exact) < (tolerance if autocast is None else 2e-2)
