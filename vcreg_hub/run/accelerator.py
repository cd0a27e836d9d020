"""Makes accelerate's Accelerator for a recipe, and starts any of accelerate's experiment trackers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..config import Recipe, to_dict
from ..errors import ConfigError, UsageError, VCRegError, unknown_name
from ..files import JSON

_PROJECT = "vcreg"


def accelerator_of(precision: str) -> Any:
    """accelerate's Accelerator for the processes there are, checked against what the launcher promised.

    precision: `no`, `bf16` or `fp16`. Errors: ConfigError for another one, for one that the device lacks, and for
    processes that do not know of each other.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision not in ("no", "bf16", "fp16"):
        raise ConfigError(f"precision is 'no', 'bf16' or 'fp16', got {precision!r}")
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    if precision == "fp16" and not accelerated:
        raise ConfigError("precision fp16 needs a GPU; here take bf16 or no (train.precision)")
    # A second run of this Python process may want another precision; the processes' own connection stays.
    AcceleratorState._reset_state()
    # Without cpu=True two processes that torchrun started on a CPU machine would train apart and never meet.
    accelerator = Accelerator(cpu=not accelerated, mixed_precision=precision)
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != promised:
        raise ConfigError(
            f"the launcher started {promised} processes but accelerate joined {accelerator.num_processes}; "
            "start with `accelerate launch` on GPUs, or `torchrun` on a CPU"
        )
    return accelerator


def make_accelerator(recipe: Recipe) -> Any:
    """accelerate's Accelerator for this recipe, checked against the launcher's promise.

    Errors: ConfigError for a precision the device lacks, a batch size that processes and accumulation do not divide,
    or processes that do not know of each other.
    """
    train = recipe.train
    accelerator = accelerator_of(train.precision)
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
