"""Variance-Covariance Regularization: the loss of the paper (arXiv 2306.13292), then the same as a gradient.

Features z: (n, d), one row for each sample, spatial position or token, one column a channel. With X = z - mean(z) and
C = X'X / (n - 1):

    l_var = 1/d        * sum_i      max(0, 1 - sqrt(C_ii + eps))        Eq. 1, with the eps of Algorithm 1
    l_cov = 1/(d(d-1)) * sum_{i!=j} smooth_l1(C_ij)                     Eqs. 2 and 6
    loss  = alpha * l_var + beta * l_cov                                Eqs. 3 to 5

The derivative of the loss by z is X @ M with a d x d matrix M that depends on C alone (`gradient_matrix`), so it costs
two matrix products, X'X and X @ M, and no graph. Training uses that form (`gradient.py` runs it on a tensor as it lies
in memory); `vcreg_loss` under autograd is the yardstick that it is tested against.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UsageError

if TYPE_CHECKING:
    from .vcreg import VCReg

Count = int | Tensor  # a number of rows; a 0-d tensor where it was summed over processes


# ---- the loss: slow, clear, differentiable -----------------------------------------------------------------------


def rows(features: Tensor, channel_axis: int) -> Tensor:
    """Features of any shape as (n, d): every position of every sample is a row ("Spatial Dimensions", section 3.2)."""
    return features.movedim(channel_axis, -1).flatten(0, -2)


def covariance(z: Tensor) -> Tensor:
    """C: (d, d) of the rows of z: (n, d), n >= 2."""
    x = z - z.mean(0)
    return x.T @ x / (z.shape[0] - 1)


def _smooth_l1(x: Tensor, delta: float | None) -> Tensor:
    """Eq. 6: x^2 up to |x| = delta, then its tangent 2 delta |x| - delta^2. None: x^2 everywhere."""
    if delta is None:
        return x.square()
    return torch.where(x.abs() <= delta, x.square(), 2 * delta * x.abs() - delta**2)


def variance_loss(c: Tensor, eps: float) -> Tensor:
    """Eq. 1 from a covariance matrix c: (d, d)."""
    return (1 - (c.diagonal() + eps).sqrt()).relu().mean()


def covariance_loss(c: Tensor, delta: float | None) -> Tensor:
    """Eqs. 2 and 6 from a covariance matrix c: (d, d). A single channel has no pairs: 0."""
    d = c.shape[0]
    off_diagonal = c - torch.diag(c.diagonal())
    return _smooth_l1(off_diagonal, delta).sum() / max(1, d * (d - 1))


def vcreg_loss(z: Tensor, cfg: VCReg) -> Tensor:
    """The regularizer of z: (n, d) as a differentiable scalar, computed in float32 or wider. Eqs. 1 to 6.

    `cfg.gradient` and `cfg.sync` do not change it. Fewer than two rows have no covariance: 0, with one warning.
    Raises UsageError unless z is a floating-point matrix.
    """
    z = _wide(z)
    if too_few_rows(z.shape[0]):
        return z.sum() * 0
    with torch.autocast(z.device.type, enabled=False):
        c = covariance(z)
        return cfg.alpha * variance_loss(c, cfg.eps) + cfg.beta * covariance_loss(c, cfg.delta)


# ---- the gradient: the same, in closed form ----------------------------------------------------------------------


def vcreg_gradient(z: Tensor, cfg: VCReg) -> Tensor:
    """d vcreg_loss / d z: (n, d), in z's dtype, without autograd; with `cfg.gradient="algorithm1"`, Algorithm 1's term.

    Raises UsageError unless z is a floating-point matrix.
    """
    wide = _wide(z)
    n = z.shape[0]
    if too_few_rows(n):
        return torch.zeros_like(z)
    with torch.autocast(z.device.type, enabled=False):
        x = wide - wide.mean(0)
        c = x.T @ x / (n - 1)
        return (x @ gradient_matrix(c, n, cfg)).to(z.dtype)


def gradient_matrix(c: Tensor, n: Count, cfg: VCReg, scale: float | Tensor = 1.0) -> Tensor:
    """M: (d, d), symmetric, with scale * gradient = X @ M; from the covariance c: (d, d) of n rows. Overwrites c.

    Smooth L1 comes free: its derivative is 2 clamp(C_ij, -delta, delta). The mean needs no derivative of its own,
    because the columns of X @ M already sum to zero.
    """
    on_diagonal = variance_pull(c.diagonal(), n, cfg) * scale
    if cfg.clamp is not None:
        c.clamp_(-cfg.clamp, cfg.clamp)
    c.mul_(covariance_push(c.shape[0], n, cfg) * scale)
    c.diagonal().copy_(on_diagonal)
    return c


def variance_pull(variances: Tensor, n: Count, cfg: VCReg) -> Tensor:
    """The diagonal of M from C_ii: (d,), the whole of l_var: negative for sqrt(C_ii + eps) < 1, else 0."""
    c = variances + cfg.eps
    return torch.where(c < 1, c.rsqrt(), 0) * (-cfg.alpha / variances.shape[0]) / (n - 1)


def covariance_push(d: int, n: Count, cfg: VCReg) -> float | Tensor:
    """The factor of clamp(C_ij) off the diagonal of M. Algorithm 1 prints it without the 1/(n-1)."""
    push = 4 * cfg.beta / max(1, d * (d - 1))
    return push if cfg.gradient == "algorithm1" else push / (n - 1)


# ---- edges -------------------------------------------------------------------------------------------------------

_warned_too_few_rows = False


def too_few_rows(n: int) -> bool:
    """Whether n rows leave nothing to regularize; the first time, warns."""
    global _warned_too_few_rows
    if n >= 2:
        return False
    if not _warned_too_few_rows:
        _warned_too_few_rows = True
        warnings.warn(
            f"VCReg needs at least 2 rows (samples x positions) to measure a covariance and got {n}: "
            "nothing is regularized for such batches. Use a larger batch, or drop the last incomplete one.",
            stacklevel=3,
        )
    return True


def _wide(z: Tensor) -> Tensor:
    """z as float32, or float64 when it is: sums over 1e5 rows overflow or lose all precision in half types."""
    if z.dim() != 2 or not z.is_floating_point():
        raise UsageError(
            f"expected floating-point features of shape (n, d), got {z.dtype} of shape {tuple(z.shape)}; "
            "vcreg_hub.regularizer.loss.rows(features, channel_axis) makes them"
        )
    return z if z.dtype == torch.float64 else z.float()
