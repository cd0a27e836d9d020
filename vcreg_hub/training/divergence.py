"""What a training does at a loss or gradient that is not finite: `train.on_nan`.

    stop       the run ends with the step and the place, before the step is taken; what is saved stays
    skip       the step is not taken and the network's buffers are put back: for a batch that is broken itself
    rollback   weights, optimizer and average go back to those of the last saved state, and the run goes on with the
               batches that come next. What led there is not shown again, as in the trainings of PaLM (Chowdhery et al.
               2022, section 5.1)

Steps that were not taken count: the learning rate and the end of the run are those of the recipe. With `skip` processes
and GPU wait for one another at every step, else where they look at one another anyway.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .snapshots import Snapshots, random_state_kept

# So many steps left out in a row, or returns to one state, say that the network itself is broken.
_SKIPS, _ROLLBACKS = 10, 3


@dataclass(frozen=True)
class LeftOut:
    """A loss or gradient was not finite, and the run goes on. step: of the run, from 1. place: where it was first seen.
    steps: how many are undone or not taken."""

    step: int
    place: str
    steps: int


class Guard:
    """Keeps what `train.on_nan` needs to go on, and decides. It is told every loss, and of every saved state."""

    def __init__(self, run: Snapshots, device: torch.device) -> None:
        self.run, self.mode = run, run.recipe.train.on_nan
        self.every_step = self.mode == "skip"
        # 1 + the first step of a loss or gradient that is not finite since the last decision.
        self.bad = torch.zeros((), device=device, dtype=torch.long)
        self._buffers: dict[str, Tensor] = {}
        self._kept: dict[str, Any] = {}
        self._taken = self._count = 0

    def remember(self, sums: dict[str, Tensor], taken: int = 0) -> None:
        """Keep this moment, that of a saved state, to come back to. sums: of the running epoch, `taken` steps."""
        self._count = 0
        if self.mode == "rollback":
            run = self.run
            parts = {"model": run.module.state_dict(), "optimizer": run.optimizer.state_dict(), "sums": sums}
            parts |= {"ema": None if run.ema is None else run.ema.state_dict()}
            self._kept, self._taken = _copied(parts), taken

    def before_step(self) -> None:
        """Keep what a forward pass changes by itself: running statistics."""
        if self.mode == "skip":
            self._buffers = {name: buffer.clone() for name, buffer in self.run.module.named_buffers()}

    def see_loss(self, loss: Tensor) -> None:
        self._see(torch.isfinite(loss.detach()))

    def see_gradient(self) -> None:
        """Of the whole step. Under float16 a GradScaler leaves such steps out by itself."""
        gradients = [p.grad for p in self.run.module.parameters() if p.grad is not None]
        if self.run.accelerator.scaler is None and gradients:
            largest = torch.nn.utils.get_total_norm(gradients, math.inf)
            self._see(torch.isfinite(largest.full_tensor() if hasattr(largest, "full_tensor") else largest))

    def _see(self, finite: Tensor) -> None:
        self.bad = torch.where((self.bad == 0) & ~finite, self.run.progress.step + 1, self.bad)

    @torch.no_grad()
    def see_weights(self, batch: Any) -> None:
        """Whether the loss is still finite after the last step, which no later one looks at: what that step broke must
        not take the place of a good state. Leaves the network and the random numbers as they are."""
        module = self.run.module
        # As in training, where batch normalisation depends on this batch alone: after few steps its running statistics
        # say little. They are put back.
        kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with random_state_kept(self.bad.device):
            found: Tensor = module(batch)["loss"]
        _put_back(module, kept)
        self._see(torch.isfinite(found))

    def judge(self, batch: Any, sums: dict[str, Tensor], place: int, taken: bool = False) -> LeftOut | None:
        """Decide together, on every process alike; None where all is well.

        sums: of the running epoch, which are put back too. place: steps of it that are over with this one. taken:
        whether the step is taken already. Errors: DivergedError where the run cannot go on.
        """
        step = self.run.meet(self.bad)
        if not step:
            return None
        where = self._place(batch)
        self._count += 1
        self.run.note("diverged", step=step, place=where, action=self.mode)
        helpless = self._count > (_SKIPS if self.mode == "skip" else _ROLLBACKS)
        if self.mode == "stop" or helpless or (self.mode == "skip" and taken):
            raise self._error(step, where)
        progress = self.run.progress
        self.bad = torch.zeros_like(self.bad)
        if self.mode == "skip":
            _put_back(self.run.module, self._buffers)
            progress.left_out += 1
            return LeftOut(step, where, 1)
        undone = place - progress.left_out - self._taken
        self._go_back(sums)
        progress.left_out = place - self._taken
        return LeftOut(step, where, undone)

    def went_well(self) -> None:
        """A step was taken after those left out."""
        if self.mode == "skip":
            self._count = 0

    def _go_back(self, sums: dict[str, Tensor]) -> None:
        run, kept = self.run, _copied(self._kept)
        run.module.load_state_dict(kept["model"])
        run.optimizer.load_state_dict(kept["optimizer"])
        if run.ema is not None:
            run.ema.load_state_dict(kept["ema"])
        sums.clear()
        sums.update({name: value.to(self.bad.device) for name, value in kept["sums"].items()})

    def _place(self, batch: Any) -> str:
        """Where it was first seen by the first process that saw it."""
        from accelerate.utils import gather_object

        with random_state_kept(self.bad.device):
            found = _first_nonfinite(self.run.module, batch) if self.bad else None
        several = self.run.accelerator.num_processes > 1
        names = [name for name in (gather_object([found]) if several else [found]) if name]
        return str(names[0])

    def _error(self, step: int, where: str) -> DivergedError:
        epoch, path = self.run.progress.epoch, self.run.folder.path
        kept = f"the weights after epoch {epoch} are in {path / 'last.safetensors'}"
        tried = {"stop": "", "skip": f" after {self._count - 1} steps left out in a row",
                 "rollback": f" after {self._count - 1} returns to the last state"}[self.mode]  # fmt: skip
        return DivergedError(
            f"the loss or gradient of step {step} (epoch {epoch + 1}) is not finite{tried}; first seen in {where}. "
            f"Lower optim.lr or the regularizer's alpha and beta, or set train.clip_norm "
            f"(vcreg train {path} --continue-with optim.lr=... goes on from the last state); "
            + (kept if epoch else "no epoch had ended, so no weights were saved")
        )


def _copied(value: Any) -> Any:
    """Nested tensors on the CPU, in memory of their own."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, (list, tuple)) else copy.copy(value)


def _put_back(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def _first_nonfinite(module: nn.Module, batch: Any) -> str:
    """Where a non-finite value first appears: "weights of <name>", "output of <name>", "the loss", or, where the loss
    of the batch is finite, "gradient of <name>", the nearest to the loss. Costs one forward pass; buffers change."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weights of {name.removeprefix('network.')}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, (tuple, list)) and output else output
            if not found and isinstance(value, Tensor) and not torch.isfinite(value).all():
                found.append(f"output of {name or 'the model'}")

        return hook

    network = module.get_submodule("network")
    handles = [inner.register_forward_hook(look(name)) for name, inner in network.named_modules()]
    try:
        with torch.no_grad():
            loss = module(batch)["loss"]
    finally:
        for handle in handles:
            handle.remove()
    if found or not torch.isfinite(loss):
        return found[0] if found else "the loss"
    broken = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return f"gradient of {broken[-1].removeprefix('network.')}" if broken else "the loss"
