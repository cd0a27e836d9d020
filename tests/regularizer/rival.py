"""A regularizer from outside the package: the mean square of the covariances, as DeCov has it up to a factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vcreg_hub.config import Regularizer


@dataclass(frozen=True)
class Rival(Regularizer):
    weight: float = 1.0

    def loss_of(self, z: Tensor) -> Tensor:
        c = torch.cov(z.T)
        return self.weight * (c - torch.diag(c.diagonal())).square().mean()

    def gradient_of(self, z: Tensor) -> Tensor:
        n, d = z.shape
        c = torch.cov(z.T)
        return 4 * self.weight / (d * d * (n - 1)) * (z - z.mean(0)) @ (c - torch.diag(c.diagonal()))
