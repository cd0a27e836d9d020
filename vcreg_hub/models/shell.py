"""A model by name without its weights: the modules of the real one, with tensors on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UsageError, unknown_name


def build_shell(name: str, **kwargs: Any) -> nn.Module:
    """The network `name` on the meta device: a timm architecture, `hf:<id, folder or config.json>` or
    `torchvision:<name>`; `kwargs` go to the library's own constructor.

    Raises UnknownNameError for a name the library does not have, UsageError for a config that is not there or has no
    vision classifier.
    """
    library, _, rest = name.partition(":")
    if library == "hf":
        return _transformers(rest, **kwargs)
    if library == "torchvision":
        return _torchvision(rest, **kwargs)
    import timm

    if not rest and not timm.is_model(name.split(".")[0]):  # with a prefix (hf-hub:, local-dir:) timm looks elsewhere
        raise unknown_name("timm architecture", name, timm.list_models())
    return _without_weights(lambda: timm.create_model(name, pretrained=False, **kwargs))


def _without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        # torchvision's RegNet computes its widths with tensors and reads them, and so did timm up to 1.0.20 with its
        # stochastic depth: those are built whole and emptied.
        return build().to("meta")


def _torchvision(name: str, **kwargs: Any) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        raise unknown_name("torchvision model", name, models.list_models())
    return _without_weights(lambda: models.get_model(name, weights=None, **kwargs))


def _transformers(source: str, **kwargs: Any) -> nn.Module:
    import transformers
    from transformers.models.auto import modeling_auto

    if Path(source).name == "config.json":
        source = str(Path(source).parent)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **kwargs)
    except OSError as error:
        raise UsageError(f"no transformers config at {source!r}: {str(error).strip().splitlines()[0]}") from error
    stated = getattr(transformers, (config.architectures or [""])[0], None)
    with torch.device("meta"):
        if stated is not None:
            return stated(config)
        for auto, mapping in (
            (transformers.AutoModelForImageClassification, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING),
            (transformers.AutoModelForVideoClassification, modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING),
        ):
            if type(config) in mapping:
                return auto.from_config(config)
    raise UsageError(f"{source}: transformers has no image or video classifier of type {config.model_type!r}")
