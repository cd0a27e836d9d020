"""Finds a command's recipe; checks names of models and trackers before torch and timm are imported.

Of a model or tracker only a name that cannot exist is refused here. The libraries themselves decide on every other.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, unknown_name
from ..releases import RELEASES

if TYPE_CHECKING:
    from ..config import Recipe

_REGISTERED = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
# Of accelerate, without those that somebody registers with it.
_TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
# What `vcreg features` may be asked for; the table is beside the code, which needs torch.
_OUTPUTS = ("pooled", "spatial", "blocks")


def named_recipe(address: str, settings: list[str] | None) -> Recipe:
    """The recipe at an address or in a file, with settings changed. Errors: UsageError for a name of nothing, and for
    values that do not go together."""
    from ..config import override
    from ..data import is_drawn
    from ..data.datasets import OWN_VIDEOS, VIDEO_SETS, find_image_set
    from ..recipes import read_recipe

    sys.path.insert(0, os.getcwd())
    recipe = override(read_recipe(address), settings or [])
    recipe.check()
    check_model(recipe.model.name)
    if recipe.video is None:
        for data in (recipe.data, *(one.data for one in recipe.evals if one.data is not None)):
            # A typo is found before torch is imported. Of a video set the network's own error says more.
            if data.name not in (*VIDEO_SETS, *OWN_VIDEOS) and not is_drawn(data):
                find_image_set(data.name)
    return recipe


def check_model(name: str, kind: str = "model") -> None:
    """Refuses a name unknown to timm and to this package. kind: its word in the message.

    A name with a prefix (`hf:`, `hf-hub:`, `torchvision:`) is left to its library, and so is every name once timm is
    imported: a recipe from outside may have registered its own. Errors: UnknownNameError, with the nearest names.
    """
    architecture = name.partition(".")[0]
    if ":" in name or "timm" in sys.modules:
        return
    sources = list(_sources())
    known = [*sorted({found for text in sources for found in _REGISTERED.findall(text)}), *_own()]
    # Deprecated names are keys of a table: quoted, but no functions.
    if (
        known
        and architecture not in known
        and not any(f'"{architecture}"' in t or f"'{architecture}'" in t for t in sources)
    ):
        raise unknown_name(kind, name, known)


def check_tracker_name(name: str | None) -> None:
    """Refuses a tracker unknown to accelerate, and one whose package is not installed, which is told without importing
    it. Errors: UnknownNameError, with the nearest names; UsageError."""
    if name is None or "accelerate" in sys.modules:  # where somebody may have registered another
        return
    if name not in _TRACKERS:
        raise unknown_name("tracker", name, _TRACKERS)
    packages = (name, "tensorboardX") if name == "tensorboard" else (name,)
    if not any(importlib.util.find_spec(package) for package in packages):
        raise UsageError(f"tracker {name!r} needs its package, which is not installed: pip install {name}")


def check_outputs(names: Sequence[str]) -> None:
    """Refuses an output that `vcreg features` does not know. Errors: UnknownNameError, with the nearest names."""
    for name in names:
        if name not in _OUTPUTS:
            raise unknown_name("output", name, _OUTPUTS)


def _sources() -> Iterator[str]:
    """The source of timm's models and of ours. Without timm's files there is nothing to check with."""
    found = importlib.util.find_spec("timm")
    folders = [Path(folder) / "models" for folder in (found and found.submodule_search_locations) or ()]
    ours = Path(__file__).parents[1] / "models"
    for folder in (*folders, ours) if folders else ():
        for path in folder.glob("*.py"):
            yield path.read_text(encoding="utf-8")


def _own() -> list[str]:
    """The `*_vcreg` names, and those of networks for clips."""
    text = (Path(__file__).parents[1] / "models" / "video_networks.py").read_text(encoding="utf-8")
    clips = [
        ast.literal_eval(key)
        for node in ast.parse(text).body
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target) == "NETWORKS"
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if key is not None
    ]
    return [row.name for row in RELEASES if row.library != "transformers"] + clips
