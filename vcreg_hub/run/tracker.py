"""Any experiment tracker that accelerate knows, beside the metrics.csv that every run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError, VCRegError, unknown_name

PROJECT = "vcreg"


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that cannot be had; accelerate itself goes on without it. None is none.

    Errors: UnknownNameError for a name accelerate does not know, UsageError when its package is not installed.
    """
    if name is None:
        return
    from accelerate import tracking

    known = tracking.LOGGER_TYPE_TO_CLASS
    if name not in known:
        raise unknown_name("tracker", name, known)
    builtin = known[name].__module__ == tracking.__name__
    if builtin and name not in map(str, tracking.get_available_trackers()):
        raise UsageError(f"tracker {name!r} needs its package, which is not installed: pip install {name}")


def start_tracker(accelerator: Any, name: str, folder: Path, config: dict[str, Any]) -> None:
    """Start `name` on the main process; one that keeps files keeps them below `folder`. config: a recipe as a dict.

    Errors: VCRegError with the tracker's own reason, such as a missing login.
    """
    from accelerate.tracking import filter_trackers

    # Not at the Accelerator's construction: the folder is agreed on by processes that it has to connect first.
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(name, accelerator.logging_dir)
    try:
        accelerator.init_trackers(PROJECT, config=_flat(config))
    except Exception as error:
        raise VCRegError(f"tracker {name!r} could not be started: {type(error).__name__}: {error}") from error


def _flat(value: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Nested fields as `optim.lr`, in the types that trackers take."""
    fields: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            fields |= _flat(inner, f"{at}{name}.")
        else:
            fields[at + name] = inner if isinstance(inner, (bool, int, float, str)) else str(inner)
    return fields
