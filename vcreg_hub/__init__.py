"""Variance-Covariance Regularization for timm and transformers models; the import registers the `*_vcreg` names."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import VCRegError
    from .hub.share import export, push
    from .models.libraries.transformers import create_image_model
    from .models.video import create_video_model
    from .models.zoo import register_model
    from .placement.sites import Site, find_blocks
    from .regularizer.attachment import Attachment, attach
    from .regularizer.loss import vcreg_gradient, vcreg_loss
    from .regularizer.vcreg import VCReg
    from .run.checkpoint import evaluate
    from .run.features import features
    from .run.predict import predict
    from .run.train import train

__all__ = [
    "Attachment",
    "Site",
    "VCReg",
    "VCRegError",
    "attach",
    "create_image_model",
    "create_video_model",
    "evaluate",
    "export",
    "features",
    "find_blocks",
    "predict",
    "push",
    "register_model",
    "train",
    "vcreg_gradient",
    "vcreg_loss",
]

# Where each name lives. A file is imported when a name of it is first asked for: torch alone takes seconds.
_HOMES = {
    "Attachment": "regularizer.attachment",
    "Site": "placement.sites",
    "VCReg": "regularizer.vcreg",
    "VCRegError": "errors",
    "attach": "regularizer.attachment",
    "create_image_model": "models.libraries.transformers",
    "create_video_model": "models.video",
    "evaluate": "run.checkpoint",
    "export": "hub.share",
    "features": "run.features",
    "find_blocks": "placement.sites",
    "predict": "run.predict",
    "push": "hub.share",
    "register_model": "models.zoo",
    "train": "run.train",
    "vcreg_gradient": "regularizer.loss",
    "vcreg_loss": "regularizer.loss",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("vcreg_hub")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_names(_timm: object) -> None:
    """Registers the `*_vcreg` names with timm."""
    importlib.import_module(f"{__name__}.models.zoo")


if "timm" in sys.modules:
    _register_names(sys.modules["timm"])
else:
    from wrapt import register_post_import_hook

    register_post_import_hook(_register_names, "timm")
