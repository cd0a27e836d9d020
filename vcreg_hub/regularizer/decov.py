"""DeCov (Cogswell et al. 2016), a penalty on covariances and a rival of VCReg.

Features z: (n, d). With X = z - mean(z) and C = X'X / n the loss is weight / 2 * (|C|^2 - |diag C|^2), their Eq. 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .ranges import number
from .vcreg import Regularizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DeCov(Regularizer):
    """Cogswell et al.'s penalty on covariances. weight: its factor, often 0.1 on a fully connected layer."""

    tag = "decov"

    weight: float = number(0.1, at_least=0, at_most=10**9)

    def loss_of(self, z: Tensor) -> Tensor:
        """The penalty of z: (n, d), a differentiable scalar in z's type or float32, whichever is wider."""
        x = _wide(z)
        x = x - x.mean(0)
        c = x.T @ x / len(x)
        return self.weight * 0.5 * (c.square().sum() - c.diagonal().square().sum())

    def gradient_of(self, z: Tensor) -> Tensor:
        """d loss / d z: (n, d) in z's type. It is 2 weight / n * X @ offdiag(C)."""
        x = _wide(z)
        x = x - x.mean(0)
        c = x.T @ x / len(x)
        c.fill_diagonal_(0)
        return (x @ c).mul_(2 * self.weight / len(x)).to(z.dtype)


def _wide(z: Tensor) -> Tensor:
    import torch

    return z if z.dtype == torch.float64 else z.float()
