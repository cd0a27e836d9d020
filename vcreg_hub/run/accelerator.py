"""accelerate's Accelerator for a recipe."""

from __future__ import annotations

import os
from typing import Any

from ..config import Recipe
from ..errors import ConfigError


def make_accelerator(recipe: Recipe) -> Any:
    """accelerate's Accelerator for this recipe, checked against what the launcher promised.

    Errors: ConfigError for a precision the device lacks, a batch size that processes and accumulation do not divide,
    or processes that do not know of each other.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    train = recipe.train
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    if train.precision == "fp16" and not accelerated:
        raise ConfigError("train.precision=fp16 needs a GPU; here pass --set train.precision=bf16 or no")
    # A second run of this Python process may want another precision; the processes' own connection stays.
    AcceleratorState._reset_state()
    # Without cpu=True two processes that torchrun started on a CPU machine would train apart and never meet.
    accelerator = Accelerator(cpu=not accelerated, mixed_precision=train.precision)
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != promised:
        raise ConfigError(
            f"the launcher started {promised} processes but accelerate joined {accelerator.num_processes}; "
            "start with `accelerate launch` on GPUs, or `torchrun` on a CPU"
        )
    if str(accelerator.distributed_type).rpartition(".")[2] in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise ConfigError("sharded training (FSDP, DeepSpeed) is not supported: a run folder holds whole weights")
    shares = accelerator.num_processes * train.accumulation
    if train.batch_size % shares:
        raise ConfigError(
            f"train.batch_size={train.batch_size} is not divisible by {accelerator.num_processes} processes "
            f"x {train.accumulation} accumulation steps"
        )
    return accelerator
