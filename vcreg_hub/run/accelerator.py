"""Makes accelerate's Accelerator for a recipe, and starts any of accelerate's experiment trackers."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..config import Recipe, to_dict
from ..errors import ConfigError, UsageError, VCRegError, unknown_name
from ..files import JSON

_PROJECT = "vcreg"
_UNSHARDED = (
    "the launcher asks for {name}, but on {device} accelerate has none and would train unsharded: start several GPU "
    "processes, or leave {name} out"
)


def accelerator_of(precision: str, minutes: float | None = None) -> Any:
    """accelerate's Accelerator for the processes there are, checked against what the launcher promised.

    precision: `no`, `bf16` or `fp16`. minutes: that a collective may take; None for torch's own limit. Errors:
    ConfigError for another precision, for one that the device lacks, for processes that do not know of each other, and
    for sharding that was asked for and cannot be had.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import InitProcessGroupKwargs

    if precision not in ("no", "bf16", "fp16"):
        raise ConfigError(f"precision is 'no', 'bf16' or 'fp16', got {precision!r}")
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    if precision == "fp16" and not accelerated:
        raise ConfigError("precision fp16 needs a GPU; here take bf16 or no (train.precision)")
    if not accelerated and (asked := _asked_sharding()):
        raise ConfigError(_UNSHARDED.format(name=asked, device="a CPU"))
    # A second run of this Python process may want another precision; the processes' own connection stays.
    AcceleratorState._reset_state()
    # Without cpu=True two processes that torchrun started on a CPU machine would train apart and never meet.
    # A GPU's collectives are waited for twice as long: processes meet on the host before, which names who hangs.
    limit = None if minutes is None else timedelta(minutes=minutes * (2 if accelerated else 1))
    handlers = [] if limit is None else [InitProcessGroupKwargs(timeout=limit)]
    accelerator = Accelerator(cpu=not accelerated, mixed_precision=precision, kwargs_handlers=handlers)
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != promised:
        raise ConfigError(
            f"the launcher started {promised} processes but accelerate joined {accelerator.num_processes}; "
            "start with `accelerate launch` on GPUs, or `torchrun` on a CPU"
        )
    if _asked_sharding() and str(accelerator.distributed_type).rpartition(".")[2] == "NO":
        raise ConfigError(_UNSHARDED.format(name=_asked_sharding(), device=f"1 x {accelerator.device}"))
    return accelerator


def _asked_sharding() -> str | None:
    """The sharding that accelerate's launcher asks this process for."""
    names = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
    return next((one for one in names if os.environ.get(f"ACCELERATE_USE_{one}", "false").lower() == "true"), None)


def make_accelerator(recipe: Recipe) -> Any:
    """accelerate's Accelerator for this recipe, checked against the launcher's promise.

    Errors: ConfigError for a precision the device lacks, a batch size that processes and accumulation do not divide,
    or processes that do not know of each other.
    """
    train = recipe.train
    accelerator = accelerator_of(train.precision, train.collective_timeout)
    if str(accelerator.distributed_type).rpartition(".")[2] in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise ConfigError("sharded training (FSDP, DeepSpeed) is not supported: a run folder holds whole weights")
    shares = accelerator.num_processes * train.accumulation
    if train.batch_size % shares:
        raise ConfigError(
            f"train.batch_size={train.batch_size} is not divisible by {accelerator.num_processes} processes "
            f"x {train.accumulation} accumulation steps"
        )
    return accelerator


def check_tracker(name: str | None) -> None:
    """Refuse an unavailable tracker; accelerate itself goes on without it. None is none.

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


def start_tracker(accelerator: Any, name: str, folder: Path, recipe: Recipe) -> None:
    """Start `name` on the main process; a tracker with files keeps them below `folder`.

    Errors: VCRegError with the tracker's own reason, such as a missing login.
    """
    from accelerate.tracking import filter_trackers

    # Not at the Accelerator's construction: the folder is agreed on by processes that it has to connect first.
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(name, accelerator.logging_dir)
    try:
        accelerator.init_trackers(_PROJECT, config=_flat(to_dict(recipe)))
    except Exception as error:
        raise VCRegError(f"tracker {name!r} could not be started: {type(error).__name__}: {error}") from error


def _flat(value: JSON, at: str = "") -> JSON:
    """Nested fields as `optim.lr`, in the types that trackers take."""
    fields: JSON = {}
    for name, inner in value.items():
        if isinstance(inner, tuple) and all(isinstance(part, dict) and "type" in part for part in inner):
            inner = {part["type"]: part for part in inner}
        if isinstance(inner, dict):
            fields |= _flat(inner, f"{at}{name}.")
        else:
            fields[at + name] = inner if isinstance(inner, (bool, int, float, str)) else str(inner)
    return fields
