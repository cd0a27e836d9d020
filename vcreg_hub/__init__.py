"""Variance-Covariance Regularization for timm and transformers models; the import registers the `*_vcreg` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import VCRegError
from .models.libraries.transformers import create_image_model
from .models.zoo import register_model
from .placement.sites import Site, find_blocks
from .regularizer.attachment import Attachment, attach
from .regularizer.loss import vcreg_gradient, vcreg_loss
from .regularizer.vcreg import VCReg

if TYPE_CHECKING:
    from .models.video import create_video_model

__all__ = [
    "Attachment",
    "Site",
    "VCReg",
    "VCRegError",
    "attach",
    "create_image_model",
    "create_video_model",
    "find_blocks",
    "register_model",
    "vcreg_gradient",
    "vcreg_loss",
]


def __getattr__(name: str) -> Any:
    """What costs more to import than timm does is imported when it is first asked for."""
    if name == "create_video_model":
        from .models.video import create_video_model

        return create_video_model
    if name == "__version__":
        from importlib.metadata import version

        return version("vcreg_hub")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
