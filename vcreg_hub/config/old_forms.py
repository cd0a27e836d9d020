"""Reads the old forms of recipes and settings: names in `eval.protocols`. To be deleted after version 0.1.0."""

from __future__ import annotations

import logging

from ..files import JSON
from .recipe import Recipe

_logger = logging.getLogger("vcreg_hub")

# What a protocol of `eval.protocols` is called now; of clips, `classification` meant several views.
_PROBE = "linear_probe"
_EVALUATIONS = {"probe": _PROBE}
_OF_CLIPS = {"classification": "multi_view"}
# Where the fields of `eval` are now.
_FIELDS = {"probe_labels": "labels", "probe_lambda": "penalty"}
_SETTINGS = {
    "eval.protocols": "evals",
    **{f"eval.{old}": f"evals.{_PROBE}.{new}" for old, new in _FIELDS.items()},
}


def renewed(values: JSON) -> JSON:
    """A recipe's JSON with `evals` instead of `eval.protocols`, `eval.probe_labels` and `eval.probe_lambda`."""
    evaluation = values.get("eval")
    old = {"protocols", *_FIELDS}
    if not isinstance(evaluation, dict) or "evals" in values or not old & evaluation.keys():
        return values
    probe = {new: evaluation[name] for name, new in _FIELDS.items() if name in evaluation}
    tags = [_tag(name, values.get("video") is not None) for name in evaluation.get("protocols", ("classification",))]
    evals = [{"type": tag, **(probe if tag == _PROBE else {})} for tag in tags]
    kept = {name: value for name, value in evaluation.items() if name not in old}
    changed = {name: kept if name == "eval" else value for name, value in values.items()}
    return changed | {"evals": evals}


def renewed_setting(recipe: Recipe, path: str, text: str) -> tuple[str, str]:
    """A setting's path and value in their present form, with a warning for an old one."""
    if path not in _SETTINGS:
        return path, text
    new = _SETTINGS[path]
    if new == "evals":
        names = [name.strip(" \"'") for name in text.strip().strip("[]").split(",")]
        text = f"[{','.join(_tag(name, recipe.video is not None) for name in names if name)}]" if text.strip() else ""
    _logger.warning("%s is an old name that goes with the next version: use --set %s=%s", path, new, text)
    return new, text


def _tag(name: str, clips: bool) -> str:
    return (_EVALUATIONS | (_OF_CLIPS if clips else {})).get(name, name)
