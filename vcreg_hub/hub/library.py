"""Which library loads the weights of a folder, and as what."""

from __future__ import annotations

from typing import Any


def what_loads_it(config: dict[str, Any] | None, recipe: dict[str, Any]) -> dict[str, str]:
    """library (timm, transformers, torchvision, or vcreg_hub for our own architecture), class, architecture, task.

    config: of an export; a run folder has none, and its recipe says what the export will be.
    """
    from ..models.build import kind_of
    from .conversion import TWINS

    config = config or {}
    kind, name = kind_of(recipe["model"]["name"])
    video = kind == "video" or recipe.get("video") is not None
    task = "video-classification" if video else "image-classification"
    if not config and kind == "torchvision":
        kind, name = ("timm", TWINS[name]) if name in TWINS else (kind, name)
    if config.get("library") == "torchvision" or (not config and kind == "torchvision"):
        return {"library": "torchvision", "loader": "", "architecture": name, "task": task}
    if "model_type" in config or (not config and kind in ("hf", "video")):
        loader = "AutoModelForVideoClassification" if video else "AutoModelForImageClassification"
        architecture = name if kind == "video" else str(config.get("model_type") or name)
        return {"library": "transformers", "loader": loader, "architecture": architecture, "task": task}
    architecture = str(config.get("architecture") or name).partition(".")[0].removesuffix("_vcreg")
    library = "vcreg_hub" if _is_our_own(architecture) else "timm"
    return {"library": library, "loader": "", "architecture": architecture, "task": task}


def _is_our_own(architecture: str) -> bool:
    from timm.models import is_model, model_entrypoint

    return is_model(architecture) and model_entrypoint(architecture).__module__.startswith("vcreg_hub.")
