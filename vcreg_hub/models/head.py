"""Whose classes a pretrained network's head tells apart. Another data set may have as many and mean others."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.find import resolve
from ..config import Model
from ..errors import VCRegError
from ..placement.sites import find_blocks
from ..releases import CONFIG
from . import huggingface, zoo

_logger = logging.getLogger("vcreg_hub")


def trained_classes(cfg: Model) -> tuple[str, ...] | None:
    """Names of the classes that a recipe's pretrained weights were trained for, in the order of their logits; None
    where there are no such weights, or they do not say."""
    kind, _, rest = cfg.name.rpartition(":")
    if isinstance(cfg.pretrained, str):
        source = cfg.pretrained
    elif cfg.pretrained and (kind == "hf" or rest.partition(".")[0].endswith(zoo.SUFFIX)):
        source = rest
    else:
        return None
    return classes_at(source)


def classes_at(source: str) -> tuple[str, ...] | None:
    """The same of the weights at `source`, whatever `pretrained=` takes."""
    path = Path(source).expanduser()
    if path.exists():
        folder = path if path.is_dir() else path.parent
        return _of_run(folder / "results.json") or _of_config(_read(folder / CONFIG))
    if path.suffix in (".pth", ".pt"):
        return None
    try:
        config = huggingface.load_config(source).to_dict() if _is_hub_id(source) else resolve(source).config
    except VCRegError:  # of a Hub id that is timm's: transformers knows nothing of it
        config = resolve(source).config
    return _of_config(config or {})


def renew_head(model: nn.Module, cfg: Model, classes: Sequence[str], example_input: Tensor) -> bool:
    """Draw the head of a network that `build_model` made anew where its weights' classes are others than `classes`, and
    say so; whether it did. A head for another number of classes is fresh already.

    example_input: one sample, as the network takes it.
    """
    known = trained_classes(cfg)
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


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith("hf-hub:")


def _of_run(results: Path) -> tuple[str, ...] | None:
    names = _read(results).get("data", {}).get("classes")
    return tuple(map(str, names)) if names else None


def _of_config(config: dict[str, Any]) -> tuple[str, ...] | None:
    """From config.json of transformers, timm or torchvision, as each is exported."""
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if not names and (labels := config.get("id2label")):
        names = [labels[key] for key in sorted(labels, key=int)]
        if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):  # what transformers says for want of names
            names = None
    return tuple(map(str, names)) if names else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
