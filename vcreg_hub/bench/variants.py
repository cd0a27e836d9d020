"""The columns of the paper's Table 8: layers after a block, and their calls on one block's features.

Every layer is put at the same places by the same kind of forward hook, so that only the layer's own work differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..placement.sites import Site
from ..regularizer.attachment import attach
from ..regularizer.gradient import add_gradient
from ..regularizer.loss import rows, vcreg_loss
from ..regularizer.vcreg import VCReg

NAMES = ("identity", "naive", "algorithm1", "ours", "batchnorm")
Watch = Callable[[Tensor], Tensor]


class _Algorithm1(torch.autograd.Function):
    """Algorithm 1 of the paper as printed, for input whose channels are last and have zero mean; to be timed.

    (Its covariance term lacks a 1/(n-1), and the sign of its variance term is lost in print; neither costs time.)
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, cfg: VCReg) -> Tensor:
        ctx.save_for_backward(z)
        ctx.cfg = cfg
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (z,), cfg = ctx.saved_tensors, ctx.cfg
        flat = z.flatten(0, -2)
        n, d = flat.shape
        covariance = torch.mm(flat.t(), flat) / (n - 1)
        diagonal = torch.nn.functional.threshold(torch.rsqrt(covariance.diagonal() + cfg.eps), 1.0, 0.0)
        std_grad = diagonal * flat
        cov_grad = torch.mm(flat, covariance.fill_diagonal_(0))
        variance = cfg.alpha / (d * (n - 1)) * std_grad.view_as(grad)
        return grad - variance + 4 * cfg.beta / (d * (d - 1)) * cov_grad.view_as(grad), None


def _algorithm_1(z: Tensor, axis: int, cfg: VCReg) -> Tensor:
    """The layer as the paper applies it: "a batch demean operation" and then Algorithm 1."""
    last = z.movedim(axis, -1)
    centred = last - last.mean(tuple(range(last.dim() - 1)))
    return _Algorithm1.apply(centred, cfg).movedim(-1, axis)  # type: ignore[no-untyped-call]


def _batch_norm(channels: int, axis: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    norm = nn.BatchNorm1d(channels, device=device) if axis == -1 else nn.BatchNorm2d(channels, device=device)
    return lambda z: norm(z.flatten(0, -2)).view_as(z) if axis == -1 else norm(z)


# ---- in a network ------------------------------------------------------------------------------------------------


@contextmanager
def inserted(name: str, model: nn.Module, sites: Sequence[Site], shapes: dict[str, Any], cfg: VCReg) -> Iterator[Watch]:
    """`model` with the layer at `sites`; yields the loss's passage. shapes: {site name: output shape}."""
    if name == "ours":
        with attach(model, cfg, sites=sites) as vc:
            yield vc.watch
        return
    terms: list[Tensor] = []
    layers = {site.name: _layer(name, site, shapes[site.name], cfg, terms) for site in sites}
    handles = [
        site.module.register_forward_hook(lambda module, args, out, layer=layers[site.name]: layer(out))
        for site in sites
    ]

    def total(loss: Tensor) -> Tensor:
        loss = loss + torch.stack(terms).sum() if terms else loss
        terms.clear()
        return loss

    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, site: Site, shape: Any, cfg: VCReg, terms: list[Tensor]) -> Callable[[Tensor], Tensor]:
    axis = site.channel_axis
    if name == "identity":
        return lambda z: z.view_as(z)
    if name == "naive":

        def remember(z: Tensor) -> Tensor:
            terms.append(vcreg_loss(rows(z, axis), cfg))
            return z

        return remember
    if name == "algorithm1":
        return lambda z: _algorithm_1(z, axis, cfg)
    if name == "batchnorm":
        device = next(site.module.parameters()).device
        return _batch_norm(shape[axis], axis, device)
    raise ValueError(name)


# ---- on one block's features -------------------------------------------------------------------------------------


def block_calls(z: Tensor, axis: int, cfg: VCReg) -> dict[str, Callable[[], object]]:
    """Forward and backward of each layer alone on features z; "products" is the floor, two matrix products."""
    incoming = torch.randn_like(z)
    flat = rows(z, axis).contiguous()
    matrix = torch.randn(flat.shape[1], flat.shape[1], device=z.device, dtype=z.dtype)
    leaf = z.detach().requires_grad_()
    norm = _batch_norm(z.shape[axis], axis, z.device)
    one = torch.ones((), dtype=torch.float64, device=z.device)

    def through(layer: Callable[[Tensor], Tensor]) -> Tensor:
        leaf.grad = None
        out = layer(leaf)
        (gradient,) = torch.autograd.grad(out, leaf, incoming)
        return gradient

    def naive() -> Tensor:
        leaf.grad = None
        (gradient,) = torch.autograd.grad(vcreg_loss(rows(leaf, axis), cfg), leaf)
        return incoming + gradient

    return {
        "products": lambda: (flat.T @ flat, flat @ matrix),
        "naive": naive,
        "algorithm1": lambda: through(lambda x: _algorithm_1(x, axis, cfg)),
        "ours": lambda: add_gradient(incoming, z, axis, cfg, one),
        "batchnorm": lambda: through(norm),
    }
