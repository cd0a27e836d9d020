"""How alike two networks see the same samples: centred kernel alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment of features (n, d) and (n, e) of the same n samples, between 0 and 1.

    1 where one is a rotation and scaling of the other. The sum runs over whichever is smaller, samples or channels.
    Source: Kornblith et al. 2019, Eq. 3. Errors: DataError for other shapes, or features that do not vary.
    """
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other):
        raise DataError(f"expected (n, d) and (n, e) of the same samples, got {tuple(one.shape)}, {tuple(other.shape)}")
    x, y = (rows.detach().double().cpu() for rows in (one, other))
    x, y = x - x.mean(0), y - y.mean(0)
    if len(x) < max(x.shape[1], y.shape[1]):
        k, m = x @ x.T, y @ y.T
        shared, alone = (k * m).sum(), k.norm() * m.norm()
    else:
        shared, alone = (x.T @ y).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    if not torch.isfinite(alone) or alone == 0:
        raise DataError("features that do not vary, or are not finite, have no similarity")
    return float(shared / alone)
