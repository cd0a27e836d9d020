"""VICReg (Bardes et al. 2021): two views agree, each embedding dimension keeps variance, pairs lose covariance.

    loss = invariance * mean (a - b)^2 + sum over a, b of [variance / 2 * v + covariance * c]
    v = mean_i max(0, 1 - sqrt(C_ii + eps))         c = 1/e * sum_{i != j} C_ij^2

C is the covariance (with n - 1) of the embeddings (n, e) of all processes. v and c are those of VCReg but for a factor:
VCReg divides its covariance term by e (e - 1), so that covariance * c is VCReg's with beta = covariance * (e - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import number
from .joint_embedding import JointEmbedding

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VICReg(JointEmbedding):
    """Agreement of views without negatives. projector: of the VCReg paper (Appendix C.5). invariance, variance,
    covariance: weights of the three terms. eps: below the square root.

    The paper has batch normalisation after the last layer too, which holds the variances near 1 by itself; the authors
    of VICReg have none there (`projector_norm=hidden`).
    """

    tag = "vicreg"

    projector: tuple[int, ...] = number((8192, 8192), at_least=1, at_most=100_000)
    invariance: float = number(25.0, at_least=0, at_most=10_000)
    variance: float = number(25.0, at_least=0, at_most=10_000)
    covariance: float = number(1.0, at_least=0, at_most=10_000)
    eps: float = number(1e-4, above=0, at_most=1)

    def compare(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        from torch.nn import functional as F

        from ..regularizer.loss import vcreg_loss
        from ..regularizer.vcreg import VCReg
        from .embeddings import gathered

        agree = F.mse_loss(one, two)
        weights = VCReg(self.variance / 2, self.covariance * (one.shape[1] - 1), delta=None, eps=self.eps)
        spread = sum(vcreg_loss(gathered(z)[0], weights) for z in (one, two))
        return {"loss": self.invariance * agree + spread, "invariance": agree}
