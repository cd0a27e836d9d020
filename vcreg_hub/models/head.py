"""Reinitialises a pretrained head for other classes, even for as many of them."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Model
from ..files import JSON, parse_json
from ..placement.sites import find_blocks
from ..releases import CONFIG

_logger = logging.getLogger("vcreg_hub")
_trained: weakref.WeakKeyDictionary[nn.Module, tuple[str, ...]] = weakref.WeakKeyDictionary()


def remember_classes(model: nn.Module, classes: tuple[str, ...] | None) -> None:
    """Note the training classes of the weights just loaded into `model`, in the order of their logits."""
    if classes is None:
        _trained.pop(model, None)
    else:
        _trained[model] = classes


def _trained_classes(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the classes that the pretrained weights of `model` were trained for; None where there are no such
    weights, or they do not say."""
    return _trained.get(model)


def classes_in_folder(folder: Path) -> tuple[str, ...] | None:
    """The same of the weights in a run's, an export's or transformers' folder."""
    data = _read(folder / "results.json").get("data")
    names = data.get("classes") if isinstance(data, dict) else None
    return tuple(map(str, names)) if names else classes_in_config(_read(folder / CONFIG))


def classes_in_config(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The same from config.json of transformers, timm or torchvision, as each is exported, or a timm pretrained_cfg."""
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if not names and (labels := config.get("id2label")):
        names = [labels[key] for key in sorted(labels, key=int)]
        if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):  # what transformers says for want of names
            names = None
    return tuple(map(str, names)) if names else None


def renew_head(model: nn.Module, cfg: Model, classes: Sequence[str], example_input: Tensor) -> bool:
    """Draw a network's head anew if its weights' classes are others than `classes`, and say so; returns whether it
    did. A head for another number of classes is fresh already.

    example_input: one sample, as the network takes it.
    """
    known = _trained_classes(model)
    if known is None or known == tuple(classes) or len(known) != len(classes):
        return False
    heads = find_blocks(model, "final", example_input)
    for site in heads:
        _draw(site.module, getattr(getattr(model, "config", None), "initializer_range", None))
        if (scale := cfg.kwargs.get("head_init_scale")) is not None:
            with torch.no_grad():
                for parameter in site.module.parameters():
                    parameter.mul_(scale)
    _logger.warning(
        "the head (%s) starts fresh: the weights tell apart %s, the data %s",
        ", ".join(site.name for site in heads),
        _some(known),
        _some(classes),
    )
    return True


def head_origin(model: nn.Module, classes: Sequence[str]) -> str:
    """Where the head of a network with pretrained weights comes from, in words."""
    known = _trained_classes(model)
    if known is None:
        return f"fresh, unless the weights have one for {len(classes)} classes, whose names they do not say"
    if known == tuple(classes):
        return "that of the weights, which were trained for these classes"
    return f"fresh, for {len(classes)} classes; the weights tell apart {_some(known)}"


def _draw(head: nn.Module, deviation: float | None) -> None:
    """Fresh values as the library draws them. deviation: of transformers' normal distribution, None for the others."""
    for module in head.modules():
        redraw: Any = getattr(module, "reset_parameters", None)
        if redraw is not None:
            redraw()
        if deviation is not None and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _read(path: Path) -> JSON:
    if not path.is_file():
        return {}
    value = parse_json(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
