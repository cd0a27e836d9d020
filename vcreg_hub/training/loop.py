"""The training loop: one flat walk over epochs and steps, on accelerate, told as events.

It does not know the method. The module that it trains says what the loss of a batch is, and `watch` (the identity, or
an attachment's) is told every loss before its backward pass. Whoever iterates over the events validates, reports, and
may stop the run by raising.

Resuming goes by whole epochs: the order of the samples, the augmentation and the dropout of an epoch depend only on
(seed, epoch, process), so a run that was interrupted and resumed is the run that was not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Recipe
from ..errors import ConfigError, DivergedError
from ..files import write_tensors, write_text
from ..rundir import RunDir
from .ema import Ema, build_ema
from .optim import build_optimizer
from .schedule import lr_at, peak_lr
from .state import load_state, save_state

_STATE = "state/state.safetensors"
# How often processes agree on whether a loss was not finite, and how often a GPU is waited for to look.
_AGREE_EVERY = 25

Row = dict[str, float]


@dataclass
class Progress:
    """How far a run is; part of its state."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A step's gradients are there and it is about to be taken. epoch: of the run, from 1; place: in the epoch, from 1;
    count: steps of an epoch. agreed: whether processes look at one another at this step, the same one for all: only
    then, and at the end of an epoch, may one be stopped, so that none waits for one that has gone."""

    epoch: int
    place: int
    count: int
    agreed: bool


@dataclass(frozen=True)
class EpochEnd:
    """A trained, not yet saved epoch. network: the one to evaluate, the average if one is kept. row: its line
    of metrics.csv, open for validation's columns."""

    network: nn.Module
    row: Row


@dataclass(frozen=True)
class Saved:
    """An epoch is in the run folder. improved: whether it is the best so far by the task's `monitor`."""

    row: Row
    improved: bool


@dataclass(frozen=True)
class Finished:
    """The last event. network: the one to evaluate."""

    network: nn.Module
    progress: Progress


def fit(
    recipe: Recipe,
    module: nn.Module,
    batches: Any,
    *,
    folder: RunDir,
    accelerator: Any,
    watch: Callable[[Tensor], Tensor] = lambda loss: loss,
    blocks: Sequence[str] = (),
) -> Generator[Step | EpochEnd | Saved | Finished]:
    """Train `module` in place as `recipe` says.

    module: called with a batch, gives {"loss": ...}, and told the epoch; its `network` is what is evaluated and saved
    as weights. batches:
    this process's batches of one epoch, with `len` and `set_epoch(epoch)`. watch: told each micro-batch's loss before
    it is scaled for accumulation. blocks: of the network, for layer-wise decay where it does not say its own.
    Errors: DivergedError with step and place when a loss is not finite (the weights of the epoch before stay in
    last.safetensors); ConfigError when the batches of an epoch do not fill one optimizer step.
    """
    train, optim = recipe.train, recipe.optim
    rank, device = accelerator.process_index, accelerator.device
    alone = accelerator.num_processes == 1 and device.type == "cpu"
    peak = peak_lr(optim, train.batch_size)
    steps_per_epoch = len(batches) // train.accumulation
    # Each group of classes has a schedule of its own.
    epochs_per_schedule = train.epochs // train.class_groups
    steps_per_schedule = steps_per_epoch * epochs_per_schedule
    if steps_per_epoch == 0:
        raise ConfigError(
            f"an epoch has {len(batches)} batches on each process and a step takes {train.accumulation}: "
            "lower train.batch_size or train.accumulation, or give more images"
        )
    network = module.get_submodule("network")
    optimizer = build_optimizer(module, optim, peak, blocks)
    ema = build_ema(network, train, optim.warmup_epochs, steps_per_epoch)
    run = _Run(recipe, folder, accelerator, module, ema, optimizer)
    progress = run.resume()
    # The wrapper of several processes comes last, when hooks are on and the network is compiled.
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    final = ema.module if ema is not None else network

    if not train.epochs:
        run.save(final, {})

    def ended() -> bool:
        return train.max_steps is not None and progress.step >= train.max_steps

    while progress.epoch < train.epochs and not ended():
        epoch, started = progress.epoch, time.monotonic()
        _seed(train.seed, epoch, rank)
        batches.set_epoch(epoch)
        module.set_epoch(epoch)  # type: ignore[operator]
        module.train()
        sums: dict[str, Tensor] = {}
        bad = torch.zeros((), device=device, dtype=torch.long)  # 1 + first step of a loss that is not finite
        steps = 0
        for group in _groups(batches, train.accumulation, steps_per_epoch):
            lr = lr_at(optim, progress.step % steps_per_schedule, steps_per_epoch, epochs_per_schedule, peak)
            for parameters in optimizer.param_groups:
                parameters["lr"] = lr * parameters.get("lr_scale", 1.0)
            for i, batch in enumerate(group):
                batch = _to(batch, device, train.channels_last)
                last = i == len(group) - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                    out = wrapped(batch)
                    accelerator.backward(watch(out["loss"]) / train.accumulation)
                for name, value in out.items():
                    sums[name] = sums.get(name, 0) + value.detach() / train.accumulation
                bad = torch.where((bad == 0) & ~torch.isfinite(out["loss"].detach()), progress.step + 1, bad)
            steps += 1
            agreed = alone or progress.step % _AGREE_EVERY == 0
            if agreed:
                run.stop_if_bad(bad, batch)
            yield Step(epoch + 1, steps, steps_per_epoch, agreed)
            if train.clip_norm is not None:
                accelerator.clip_grad_norm_(module.parameters(), train.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            if ema is not None:
                ema.update(network, progress.step)
            if ended():
                break
        finite = _still_finite(module, batch)  # on every process alike: a synchronised norm waits for all of them
        if not bad and not finite:
            bad = bad + progress.step + 1
        run.stop_if_bad(bad, batch)

        progress.epoch += 1
        progress.seconds += time.monotonic() - started
        row: Row = {"epoch": progress.epoch, "step": progress.step, "lr": lr}
        row |= {f"train_{name}": accelerator.reduce(value / steps, "mean").item() for name, value in sums.items()}
        speed = steps * train.batch_size / (time.monotonic() - started)
        row |= {"seconds": round(progress.seconds, 2), "samples_per_second": round(speed, 1)}
        yield EpochEnd(final, row)
        progress.rows.append(row)
        yield Saved(row, run.save(final, row))
    yield Finished(final, progress)


@dataclass
class _Run:
    """What of a run is saved after an epoch and read again by the process that goes on."""

    recipe: Recipe
    folder: RunDir
    accelerator: Any
    module: nn.Module
    ema: Ema | None
    optimizer: Any
    progress: Progress = field(default_factory=Progress)

    def resume(self) -> Progress:
        path = self.folder.path / _STATE
        if path.exists():
            parts = load_state(path)
            self.module.load_state_dict(parts["model"])
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": parts["optimizer"]})
            if self.ema is not None:
                self.ema.load_state_dict(parts["ema"])
            if self.accelerator.scaler is not None and parts["scaler"]:
                self.accelerator.scaler.load_state_dict(parts["scaler"])
            self.progress = Progress(**parts["progress"])
        return self.progress

    def save(self, final: nn.Module, row: Row) -> bool:
        """Write the evaluated weights, the best ones, the table, and last of all the state that says so; whether these
        are the best."""
        progress, task, path = self.progress, self.recipe.task, self.folder.path
        value = row.get(task.monitor)
        improved = value is not None and _better(value, progress.best, task.lower_is_better)
        if improved:
            progress.best, progress.best_epoch = value, progress.epoch
        if self.accelerator.is_main_process:
            write_tensors(path / "last.safetensors", final.state_dict())
            if improved:
                write_tensors(path / "best.safetensors", final.state_dict())
            write_text(path / "metrics.csv", _csv(progress.rows))
            scaler = self.accelerator.scaler
            parts = {
                "model": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict()["state"],
                "ema": None if self.ema is None else self.ema.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "progress": vars(progress),
            }
            save_state(path / _STATE, parts)
        self.accelerator.wait_for_everyone()
        return improved

    def stop_if_bad(self, bad: Tensor, batch: Any) -> None:
        """Errors: DivergedError where any process met a loss that is not finite; `bad` is 1 + the step, or 0."""
        if self.accelerator.num_processes > 1:
            bad = self.accelerator.reduce(bad, "max")
        step = int(bad)
        if not step:
            return
        epoch = self.progress.epoch
        kept = f"the weights after epoch {epoch} are in {self.folder.path / 'last.safetensors'}"
        raise DivergedError(
            f"the loss of step {step} (epoch {epoch + 1}) is not finite; first seen in "
            f"{_first_nonfinite(self.module, batch)}. "
            f"Lower optim.lr or the regularizer's alpha and beta, or set train.clip_norm; "
            + (kept if epoch else "no epoch had ended, so no weights were saved")
        )


def _better(value: float, best: float | None, lower: bool) -> bool:
    return best is None or (value < best if lower else value > best)


def _first_nonfinite(module: nn.Module, batch: Any) -> str:
    """Where a non-finite value first appears when the batch is run forward: "weights of <name>", "output of <name>"
    or "the loss". Costs one forward pass; for the message of a diverged run."""
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
            module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss"


@torch.no_grad()
def _still_finite(module: nn.Module, batch: Any) -> bool:
    """Whether the loss is finite after the epoch's last step too, which no later step of it looks at: what that step
    broke must not take the place of the good weights. Leaves the network as it is."""
    # As in training, where batch normalisation depends on this batch alone: after few steps its running statistics
    # say little. They are put back.
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        return bool(torch.isfinite(module(batch)["loss"]))
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Dropout, stochastic depth and mixup of an epoch; spread so that no two (seed, epoch, rank) are neighbours."""
    from accelerate.utils import set_seed

    mixed = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)
    set_seed(int(torch.randint(2**31 - 1, (1,), generator=mixed)))


def _groups(batches: Iterable[Any], size: int, count: int) -> Iterator[list[Any]]:
    """`count` lists of `size` batches; a rest that does not fill a step is left out."""
    iterator = iter(batches)
    for _ in range(count):
        yield list(itertools.islice(iterator, size))


def _to(batch: Any, device: torch.device, channels_last: bool) -> list[Any]:
    moved = [part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in batch]
    if channels_last and moved[0].ndim == 4:
        moved[0] = moved[0].contiguous(memory_format=torch.channels_last)
    return moved


def _csv(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
