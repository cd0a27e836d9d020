"""How many directions features use: ranks and slopes of their spectrum, collapsed and correlated channels.

Features that fill two of three channels evenly, rows (1,0,0), (-1,0,0), (0,1,0), (0,-1,0): the covariance has the
eigenvalues 2/3, 2/3, 0. Both ranks below are 2, one channel of three is collapsed, and no two are correlated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError


def singular_values(features: Tensor, *, centre: bool = True) -> Tensor:
    """Singular values, descending, of features (n, d) minus their column means: (min(n, d),) float64."""
    found: Tensor = torch.linalg.svdvals(_centred(features) if centre else _finite(features))
    return found


def effective_rank(features: Tensor) -> float:
    """The participation ratio (sum lambda)^2 / sum lambda^2 of the covariance's eigenvalues, as training reports it.

    features: (n, d). Between 1 and d; 0 where nothing varies.
    """
    rows = _centred(features)
    # Both sums are those of the smaller Gram matrix: its trace and its squared norm. No eigenvalue is needed.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    squares = gram.square().sum()
    return float(gram.trace().square() / squares) if squares > 0 else 0.0


def rankme(features: Tensor) -> float:
    """RankMe: exp of the entropy of the singular values of features (n, d), uncentred, divided by their sum.

    Source: Garrido et al. 2023, Eqs. 1 and 2, whose epsilon of 1e-7 is added to each share.
    """
    return _entropy_rank(singular_values(features, centre=False))


def alpha_req(features: Tensor, first: int = 1, last: int | None = None) -> float:
    """alpha-ReQ: the exponent a of the covariance eigenvalues' power law, lambda_i ~ i^-a.

    features: (n, d). first, last: the ranks, from 1, that the line through (log i, log lambda_i) is fitted to by least
    squares; None for every eigenvalue above 1e-12 of the largest. A large exponent is collapsed.
    Source: Agrawal et al. 2022. Errors: DataError for fewer than two such eigenvalues.
    """
    eigenvalues = singular_values(features).square()
    kept = eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]] if eigenvalues[0] > 0 else eigenvalues[:0]
    chosen = kept[first - 1 : last]
    if len(chosen) < 2:
        raise DataError(f"a slope needs two eigenvalues or more above 0, got {len(chosen)}")
    x = torch.arange(first, first + len(chosen), dtype=torch.float64).log()
    y = chosen.log()
    x = x - x.mean()
    return float(-(x @ (y - y.mean())) / (x @ x))


def lidar(features: Tensor, groups: Tensor, delta: float = 1e-4) -> float:
    """LiDAR: exp of the entropy of the eigenvalues of W^(-1/2) B W^(-1/2), between-group over within-group scatter.

    features: (n, d). groups: (n,), which views of one sample, or which samples of one class, belong together. delta:
    added to the diagonal of W. Source: Thilak et al. 2023. Errors: DataError for fewer than two groups.
    """
    rows = _finite(features)
    names = groups.unique()
    if len(names) < 2:
        raise DataError("LiDAR compares groups; there is only one")
    means = torch.stack([rows[groups == name].mean(0) for name in names])
    place = torch.searchsorted(names, groups)
    inside = rows - means[place]
    between = means - means.mean(0)
    w = inside.T @ inside / max(1, len(rows) - len(names)) + delta * torch.eye(rows.shape[1], dtype=rows.dtype)
    b = between.T @ between / (len(names) - 1)
    values, vectors = torch.linalg.eigh(w)
    root = vectors * values.rsqrt() @ vectors.T
    return _entropy_rank(torch.linalg.eigvalsh(root @ b @ root).clamp(min=0))


def collapsed_share(features: Tensor, threshold: float = 0.01) -> float:
    """Share of the channels of features (n, d) with a standard deviation below `threshold`."""
    return float((_finite(features).std(0) < threshold).double().mean())


def mean_correlation(features: Tensor) -> float:
    """Mean absolute correlation of two different varying channels of features (n, d); 0 without such a pair."""
    centred = _centred(features)
    length = centred.norm(dim=0)
    unit = centred[:, length > 1e-12 * max(1.0, float(length.max()))]
    unit = unit / unit.norm(dim=0)
    d = unit.shape[1]
    if d < 2:
        return 0.0
    correlation = (unit.T @ unit).abs()
    return float((correlation.sum() - correlation.diagonal().sum()) / (d * (d - 1)))


def _entropy_rank(values: Tensor) -> float:
    """exp of the entropy of non-negative values divided by their sum; 0 where all are 0."""
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values / total + 1e-7
    return float((-(share * share.log()).sum()).exp())


def _centred(features: Tensor) -> Tensor:
    rows = _finite(features)
    return rows - rows.mean(0)


def _finite(features: Tensor) -> Tensor:
    """The features as float64 rows (n, d) on the CPU. Errors: DataError."""
    if features.ndim != 2 or features.shape[0] < 2:
        raise DataError(f"expected features (n, d) of two rows or more, got {tuple(features.shape)}")
    rows = features.detach().double().cpu()
    if not torch.isfinite(rows).all():
        raise DataError("the features hold values that are not finite: has the training diverged?")
    return rows
