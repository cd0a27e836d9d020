"""Watches the loss of timm's training tasks; importing this module is all it takes.

    python train.py --device-modules vcreg_hub.loops.timm_train --model resnet50_vcreg ...

timm's train.py imports its device modules before it builds the network, so the `*_vcreg` names are registered too, also
that of any other architecture of timm which the command line names. Each `timm.task.TrainingTask` that is built
afterwards tells the regularizers of the network it trains about its loss: so they follow `--grad-accum-steps`, `--amp`
and every other factor that the loop puts on that loss. A loop of your own around such a task works the same way after
`import vcreg_hub.loops.timm_train`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.task import TrainingTask
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ..models.zoo import register_model
from .networks import AttachedNetworks, loss_in


class _WatchTask:
    """Forward hook of a task."""

    def __init__(self) -> None:
        self._networks: AttachedNetworks | None = None

    def __call__(self, task: nn.Module, args: Any, output: Any) -> None:
        if not torch.is_grad_enabled():
            return
        if self._networks is None:  # looked for once, when the loop has wrapped and compiled what it trains
            self._networks = AttachedNetworks(task)
            if not self._networks:
                warnings.warn(
                    f"no network that {type(task).__name__} trains has VCReg, so this training is a plain one: give "
                    "--model a *_vcreg name, without --torchscript",
                    stacklevel=2,
                )
        if self._networks:
            self._networks.watch(loss_in(output, type(task).__name__))


def _meet(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    """Hooks a task when it gets the first of its modules: torch calls this for every module that gets another."""
    if isinstance(module, TrainingTask) and not any(isinstance(h, _WatchTask) for h in module._forward_hooks.values()):
        module.register_forward_hook(_WatchTask())


def _register_named(arguments: Sequence[str]) -> None:
    """Registers the `<architecture>_vcreg` that stand in a command line, of any of timm's architectures."""
    for argument in arguments:
        name = argument.rpartition("=")[2].partition(".")[0]
        architecture = name.removesuffix("_vcreg")
        if architecture != name and timm.is_model(architecture):
            register_model(architecture)


_register_named(sys.argv)
register_module_module_registration_hook(_meet)
