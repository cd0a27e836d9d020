"""WLD-Reg (Laakom et al. 2023), a penalty on channels with like responses and a rival of VCReg.

Features z: (n, d). The loss is lambda1 J(S) + lambda2 mean_i |z_i|^2 with S_km = mean_i exp(-gamma (z_ik - z_im)^2) and

    J = sum_{k != m} S_km  (direct)  |  -det S  (det)  |  -logdet S  (logdet)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .ranges import number
from .vcreg import Regularizer

if TYPE_CHECKING:
    from torch import Tensor

# Elements of the (channels, channels, rows) differences that are made at a time: d = 2,048 has a billion at n = 256.
_CHUNK = 2**24
# Added to the diagonal of S before its determinant: two equal channels make it singular.
_JITTER = 1e-5


@dataclass(frozen=True)
class WLDReg(Regularizer):
    """Laakom et al.'s within-layer diversity: channels with like responses cost.

    form: which J of the similarities S. similarity_weight, norm_weight: lambda1 and lambda2; None for the same, as the
    original has them. norm_weight multiplies the mean squared length of a row. gamma: of the similarity's exponent.
    The original's formulas could be checked in outline only; the mean over rows in both terms is our reading.
    """

    tag = "wld_reg"

    form: Literal["direct", "det", "logdet"] = "direct"
    similarity_weight: float = number(1e-3, at_least=0, at_most=10**9)
    norm_weight: float | None = number(None, at_least=0, at_most=10**9)
    gamma: float = number(10.0, at_least=0, at_most=10**9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("direct", "det", "logdet"):
            raise ConfigError(f"WLDReg.form is 'direct', 'det' or 'logdet', not {self.form!r}")

    def loss_of(self, z: Tensor) -> Tensor:
        """The penalty of z: (n, d), a differentiable scalar. Memory grows with d * d, never with n * d * d."""
        x = _wide(z)
        similarity = _similarity_function().apply(x, self.gamma)
        value, _ = self._of_similarity(similarity)
        return self.similarity_weight * value + self._norm_weight * x.square().sum(1).mean()

    def gradient_of(self, z: Tensor) -> Tensor:
        """d loss / d z: (n, d) in z's type."""
        x = _wide(z)
        _, pull = self._of_similarity(_similarity(x, self.gamma))
        found = _pulled(x, self.gamma, pull).mul_(self.similarity_weight)
        return found.add_(x, alpha=2 * self._norm_weight / len(x)).to(z.dtype)

    @property
    def _norm_weight(self) -> float:
        return self.similarity_weight if self.norm_weight is None else self.norm_weight

    def _of_similarity(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """J(S) and dJ / dS, both of S: (d, d)."""
        import torch

        eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
        if self.form == "direct":
            return s.sum() - s.diagonal().sum(), 1 - eye
        steady = s + _JITTER * eye
        sign, logdet = torch.linalg.slogdet(steady)
        inverse = torch.linalg.inv(steady).T
        if self.form == "logdet":
            return -logdet, -inverse
        determinant = sign * logdet.exp()
        return -determinant, -determinant * inverse


def _similarity(x: Tensor, gamma: float) -> Tensor:
    """S: (d, d) of x: (n, d)."""
    import torch

    columns = x.T.contiguous()
    step = max(1, _CHUNK // x.numel())
    parts = [(part[:, None, :] - columns[None]).square_().mul_(-gamma).exp_().mean(2) for part in columns.split(step)]
    return torch.cat(parts)


def _pulled(x: Tensor, gamma: float, pull: Tensor) -> Tensor:
    """The gradient by x: (n, d) of a function of S whose gradient by S is `pull`: (d, d)."""
    import torch

    columns = x.T.contiguous()
    both = pull + pull.T
    step = max(1, _CHUNK // x.numel())
    parts = []
    for part, weights in zip(columns.split(step), both.split(step), strict=True):
        away = part[:, None, :] - columns[None]
        near = away.square().mul_(-gamma).exp_().mul_(away)
        parts.append(torch.einsum("km,kmn->kn", weights, near))
    return torch.cat(parts).T.mul(-2 * gamma / len(x))


def _similarity_function() -> Any:
    """S as an autograd function that keeps x alone for its backward pass."""
    import torch

    class Similarity(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, gamma: float) -> Tensor:
            ctx.save_for_backward(x)
            ctx.gamma = gamma
            return _similarity(x, gamma)

        @staticmethod
        def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None]:
            return _pulled(ctx.saved_tensors[0], ctx.gamma, pull), None

    return Similarity


def _wide(z: Tensor) -> Tensor:
    import torch

    return z if z.dtype == torch.float64 else z.float()
