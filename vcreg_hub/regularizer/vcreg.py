"""The regularizer's settings. This file knows nothing of torch, so recipes are read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import ConfigError, unknown_name
from .ranges import COUNT, check_ranges, number

if TYPE_CHECKING:
    from torch import Tensor

# A slip of the exponent: the task's gradient would be lost beside it in float32.
_LARGEST = 10**9


class Regularizer:
    """A recipe's term on the features z: (n, d) of a network: a frozen dataclass below this class, with a loss.

    tag: its `type` in JSON; one of another package is addressed as `module:Class`.
    """

    tag: ClassVar[str] = ""
    room: ClassVar[str] = "vcreg_hub.regularizer"
    default_tag: ClassVar[str] = "vcreg"

    def __post_init__(self) -> None:
        if is_dataclass(self):
            check_ranges(self)

    def loss_of(self, z: Tensor) -> Tensor:
        """The loss of rows z: (n, d), a differentiable scalar."""
        raise NotImplementedError

    def gradient_of(self, z: Tensor) -> Tensor:
        """Its gradient by z, (n, d), without a graph; autograd's without a closed form."""
        import torch

        with torch.enable_grad():
            rows = z.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.loss_of(rows), rows)
        return found


@dataclass(frozen=True)
class VCReg(Regularizer):
    """Strength and form of the regularizer.

    alpha: weight of the variance loss. The paper searches 1.28, 0.64, 0.32 and 0.16 for images.
    beta: weight of the covariance loss. The paper searches 0.16, 0.08, 0.04, 0.02 and 0.01 for images.
    delta: covariance beyond which Eq. 6 grows linearly; None is the plain square of Eq. 2. The paper does not give its
        value; 1.0 leaves ordinary covariances squared and bounds the outliers.
    eps: added to each variance before the root; bounds the pull on a collapsed channel.
    gradient: "loss" is the exact gradient of the equations; "algorithm1" is Algorithm 1 as printed, on centred
        features: no delta, and a covariance term without 1/(n-1), hence (n-1) times stronger. It never changes
        `vcreg_loss`.
    sync: statistics of the global batch under distributed training; False takes each process's own, as BatchNorm
        does.

    Raises ConfigError for a value that its field cannot take.
    """

    tag = "vcreg"

    alpha: float = number(0.64, at_least=0, at_most=_LARGEST)
    beta: float = number(0.08, at_least=0, at_most=_LARGEST)
    delta: float | None = number(1.0, above=0, at_most=COUNT)
    eps: float = number(1e-4, above=0, at_most=COUNT)
    gradient: Literal["loss", "algorithm1"] = "loss"
    sync: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient not in ("loss", "algorithm1"):
            raise ConfigError(f"VCReg.gradient is 'loss' or 'algorithm1', not {self.gradient!r}")
        if not isinstance(self.sync, bool):
            raise ConfigError(f"VCReg.sync is True or False, not {self.sync!r}")

    def loss_of(self, z: Tensor) -> Tensor:
        from .loss import vcreg_loss

        return vcreg_loss(z, self)

    def gradient_of(self, z: Tensor) -> Tensor:
        from .loss import vcreg_gradient

        return vcreg_gradient(z, self)

    @property
    def clamp(self) -> float | None:
        """The bound of the gradient's covariances, or None. Algorithm 1 knows no delta."""
        return None if self.gradient == "algorithm1" else self.delta


def checked_vcreg(vcreg: Regularizer | Mapping[str, Any] | bool | None) -> Regularizer | None:
    """The regularizer a `vcreg=` argument asks for: None and True mean `VCReg()`, False none, a mapping its fields.

    >>> checked_vcreg({"alpha": 0.16})
    VCReg(alpha=0.16, beta=0.08, delta=1.0, eps=0.0001, gradient='loss', sync=False)

    Errors: UnknownNameError for a field, ConfigError for anything else.
    """
    if vcreg is None or vcreg is True:
        return VCReg()
    if vcreg is False:
        return None
    if isinstance(vcreg, Mapping):
        known = [field.name for field in fields(VCReg)]
        settings = {name: value for name, value in vcreg.items() if (name, value) != ("type", VCReg.tag)}
        for name in settings:
            if name not in known:
                raise unknown_name("field of VCReg", str(name), known)
        return VCReg(**settings)
    if not isinstance(vcreg, Regularizer):
        raise ConfigError(
            "vcreg is a vcreg_hub.VCReg or a mapping of its fields, None for the defaults or False for none, "
            f"got {vcreg!r}"
        )
    return vcreg
