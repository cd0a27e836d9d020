"""SimCLR (Chen et al. 2020): each view is to find the other one of its image among all other views of the batch.

With embeddings a_i, b_i: (e,) of length 1 and s(u, v) = u.v / temperature:

    loss_a = -mean_i log exp s(a_i, b_i) / (sum_j exp s(a_i, b_j) + sum_{j != i} exp s(a_i, a_j))

and loss_b with a and b exchanged; the loss is loss_a + loss_b, as in the authors' code, where j runs over the batch of
all processes. Gradients pass through both sides of s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import number
from .joint_embedding import JointEmbedding

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimCLR(JointEmbedding):
    """Contrastive learning of views. projector: of the VCReg paper (Appendix C.5). temperature: of the softmax."""

    tag = "simclr"

    temperature: float = number(0.1, above=0, at_most=1_000_000)

    def compare(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        from .embeddings import gathered

        one, two = F.normalize(one, dim=1), F.normalize(two, dim=1)
        all_one, start = gathered(one)
        all_two, _ = gathered(two)
        own = torch.arange(start, start + one.shape[0], device=one.device)
        loss_one, found = _pick(one, all_two, all_one, own, self.temperature)
        loss_two, _ = _pick(two, all_one, all_two, own, self.temperature)
        return {"loss": loss_one + loss_two, "paired": found}


def _pick(z: Tensor, others: Tensor, same: Tensor, own: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of finding row own[i] of `others` for z[i] among `others` and the rest of `same`; and in how
    many percent of the rows it is the nearest."""
    import torch
    from torch.nn import functional as F

    itself = torch.zeros(z.shape[0], same.shape[0], dtype=torch.bool, device=z.device).scatter_(1, own[:, None], True)
    scores = torch.cat([z @ others.T, (z @ same.T).masked_fill(itself, -math.inf)], 1) / temperature
    return F.cross_entropy(scores, own), 100 * (scores.detach().argmax(1) == own).float().mean()
