"""Statistics of each site: the two losses, collapsed channels, effective rank, the regularizer's share of the gradient.

They are read off the covariance that a backward pass computes anyway, which costs a few passes over a d x d matrix and
no synchronisation. Nobody may be reading, so they are taken in the 50 backward passes after the attachment was
made or last read, and from then on in every 50th one only. The share of the gradient takes passes over the features
themselves, so it is taken in every 50th backward pass, the first one included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .loss import variance_loss
from .vcreg import VCReg

_FRESH = 50
_SHARE_EVERY = 50
_NAMES = ("variance_loss", "covariance_loss", "collapsed", "effective_rank")


def _describe_covariance(c: Tensor, cfg: VCReg) -> Tensor:
    """The values of `_NAMES` of a covariance c: (d, d), as a (4,) tensor on its device.

    variance_loss, covariance_loss: Eqs. 1 and 2/6, not yet times alpha and beta. collapsed: share of channels whose
    standard deviation is below sqrt(eps), 0.01 by default, where eps outweighs the variance. effective_rank: the
    participation ratio (sum lambda)^2 / sum lambda^2 of C's eigenvalues, between 1 and d; 0 when nothing varies.
    """
    d = c.shape[0]
    variances = c.diagonal()
    pairs = -_penalty_sum(variances, cfg)
    squares = torch.zeros_like(pairs)
    for strip in c.split(256):  # so that no second d x d matrix is made
        pairs += _penalty_sum(strip, cfg)
        squares += _dot(strip, strip)
    collapsed = (variances < cfg.eps).to(c.dtype).mean()
    rank = torch.where(squares > 0, variances.sum().square() / squares, 0)
    return torch.stack([variance_loss(c, cfg.eps), pairs / max(1, d * (d - 1)), collapsed, rank])


def _penalty_sum(x: Tensor, cfg: VCReg) -> Tensor:
    """Sum of smooth_l1(x) = k (2x - k) with k = clamp(x): two dot products instead of six passes."""
    k = x if cfg.delta is None else x.clamp(-cfg.delta, cfg.delta)
    return 2 * _dot(k, x) - _dot(k, k)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


class Statistics:
    """Collects per site; counts backward passes once, also under checkpointing."""

    def __init__(self, names: list[str], cfg: VCReg) -> None:
        self.names, self.cfg = names, cfg
        self.backwards = [0] * len(names)
        self._values: list[Tensor | None] = [None] * len(names)
        self._read_at = [0] * len(names)
        # Sum and number of the shares since the last reading, as (2,) tensors, and what was read last.
        self._shares: list[Tensor | None] = [None] * len(names)
        self._share: list[float | None] = [None] * len(names)

    def observer(self, index: int) -> Callable[[Tensor], None] | None:
        """Counts a backward pass of site `index`; returns the observer of its covariance, if any."""
        count = self.backwards[index]
        self.backwards[index] += 1
        if count - self._read_at[index] >= _FRESH and count % _FRESH:
            return None
        return lambda c: self._keep(index, c)

    def wants_share(self, index: int) -> bool:
        """Whether `keep_share` is to be told of the backward pass of site `index` that `observer` counted."""
        return (self.backwards[index] - 1) % _SHARE_EVERY == 0

    def keep_share(self, index: int, incoming: Tensor, added: Tensor) -> None:
        """Note |added| / |incoming| of one backward pass; one that is not finite (a step that a GradScaler skips, a
        gradient of zero) is left out."""
        share = _norm(added) / _norm(incoming)
        finite = torch.isfinite(share)
        found = torch.stack([torch.where(finite, share, 0), finite.to(share.dtype)])
        before = self._shares[index]
        self._shares[index] = found if before is None else before.to(found.device) + found

    def _keep(self, index: int, c: Tensor) -> None:
        self._values[index] = _describe_covariance(c, self.cfg)

    def state_dict(self) -> dict[str, Any]:
        """Everything that was collected and counted, site by site: tensors, numbers and None."""
        return {
            "backwards": list(self.backwards), "read_at": list(self._read_at), "values": list(self._values),
            "shares": list(self._shares), "share": list(self._share),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of as many sites. Errors: ValueError for another number."""
        if len(state["backwards"]) != len(self.names):
            raise ValueError(f"statistics of {len(state['backwards'])} sites, expected {len(self.names)}")
        self.backwards, self._read_at = list(state["backwards"]), list(state["read_at"])
        self._values, self._shares, self._share = list(state["values"]), list(state["shares"]), list(state["share"])

    def read(self) -> list[dict[str, Any]]:
        """One dict a site: "site", the values as floats (None before its first backward pass), "gradient_share", the
        mean of those taken since the last reading (or what it was then), and "backwards"."""
        self._read_at = list(self.backwards)
        for index, shares in enumerate(self._shares):
            total, n = (0.0, 0.0) if shares is None else shares.tolist()
            self._share[index] = total / n if n else self._share[index]
        self._shares = [None] * len(self.names)
        return [
            {"site": name, **dict(zip(_NAMES, [None] * 4 if v is None else v.tolist(), strict=True)),
             "gradient_share": share, "backwards": n}
            for name, v, share, n in zip(self.names, self._values, self._share, self.backwards, strict=True)
        ]  # fmt: skip


def _norm(t: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32))
    return length
