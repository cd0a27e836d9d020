"""The training loop: one flat walk over epochs and steps, on accelerate, told as events.

It does not know the method. The module that it trains says what the loss of a batch is, and `watch` (the identity, or
an attachment's) is told every loss before its backward pass. Whoever iterates over the events validates, reports, and
may stop the run by raising.

The order of the samples, the augmentation and the dropout of an epoch begin with (seed, epoch, process) alone, and the
random numbers of a place within it are part of a state (`snapshots.py`): a run that was interrupted anywhere and
resumed is the run that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Recipe
from ..errors import ConfigError
from ..rundir import RunDir
from .divergence import Guard, LeftOut
from .ema import build_ema
from .optim import build_optimizer
from .schedule import lr_at, peak_lr
from .snapshots import Counting, Progress, Resumed, Row, Snapshots


@dataclass(frozen=True)
class Step:
    """A step's gradients are there and it is about to be taken.

    epoch: of the run, from 1. place: in the epoch, from 1; count: steps of an epoch. step: of the run, from 1; steps:
    of the whole run. agreed: whether processes look at one another at this step, the same one for all: only then, and
    at the end of an epoch, may one be stopped, so that none waits for one that has gone. loss: of its last micro-batch.
    """

    epoch: int
    place: int
    count: int
    step: int
    steps: int
    agreed: bool
    loss: Tensor


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
class Stopped:
    """The last event of a run that was asked to stop: its state after `step` steps is saved."""

    step: int


@dataclass(frozen=True)
class Finished:
    """The last event of a whole run. network: the one to evaluate."""

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
    beside: Mapping[str, Counting] | None = None,
    stop: Callable[[], bool] = lambda: False,
    wait: Callable[[], None] = lambda: None,
) -> Generator[Resumed | Step | LeftOut | EpochEnd | Saved | Stopped | Finished]:
    """Train `module` in place as `recipe` says, or go on from the state in `folder`.

    module: called with a batch, gives {"loss": ...}, and told the epoch; its `network` is what is evaluated and saved
    as weights. batches:
    this process's batches of one epoch, with `len` and `set_epoch(epoch, seen)`. watch: told each micro-batch's loss
    before it is scaled for accumulation. blocks: of the network, for layer-wise decay where it does not say its own.
    beside: what counts along and is part of the state, by name. stop: whether to save a state and end; asked after
    every step, or of several processes at most 5 seconds or 25 steps apart. wait: for the other processes, before each
    look at them.
    Errors: DivergedError with step and place when a loss or gradient is not finite and `train.on_nan` does not go on
    (the weights of the epoch before stay in last.safetensors); ConfigError when the batches of an epoch do not fill one
    optimizer step; RunFolderError where the state cannot be used; StorageError where there is no room for one.
    """
    train, optim, device = recipe.train, recipe.optim, accelerator.device
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
    run = Snapshots(recipe, folder, accelerator, module, ema, optimizer, stop, beside or {}, wait)
    resumed = run.resume()
    progress, steps_in_all = run.progress, min(train.epochs * steps_per_epoch, train.max_steps or math.inf)
    if progress.epoch + (progress.place > 0) > train.epochs:
        raise ConfigError(f"train.epochs={train.epochs}, but the run in {folder.path} has trained more already")
    run.refuse_full_disk()
    if resumed is not None:
        yield resumed
    # The wrapper of several processes comes last, when hooks are on and the network is compiled.
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    final = ema.module if ema is not None else network
    guard = Guard(run, device)
    guard.remember(run.sums, progress.place - progress.left_out)

    if not train.epochs:
        run.save(final, {})

    def ended() -> bool:
        return train.max_steps is not None and progress.step >= train.max_steps

    while progress.epoch < train.epochs and not ended():
        epoch, started = progress.epoch, time.monotonic()
        sums, seen = run.begin_epoch(device)
        batches.set_epoch(epoch, seen * train.accumulation)
        module.set_epoch(epoch)  # type: ignore[operator]
        module.train()
        steps = seen
        for group in _groups(batches, train.accumulation, steps_per_epoch - seen):
            lr = lr_at(optim, progress.step % steps_per_schedule, steps_per_epoch, epochs_per_schedule, peak)
            for parameters in optimizer.param_groups:
                parameters["lr"] = lr * parameters.get("lr_scale", 1.0)
            guard.before_step()
            before = dict(sums)
            for i, batch in enumerate(group):
                batch = _to(batch, device, train.channels_last)
                last = i == len(group) - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                    out = wrapped(batch)
                    accelerator.backward(watch(out["loss"]) / train.accumulation)
                for name, value in out.items():
                    sums[name] = sums.get(name, 0) + value.detach() / train.accumulation
                guard.see_loss(out["loss"])
            guard.see_gradient()
            steps += 1
            agreed = run.meets() or guard.every_step
            left_out = guard.judge(batch, before, steps) if agreed else None
            loss = out["loss"].detach()
            yield Step(epoch + 1, steps, steps_per_epoch, progress.step + 1, int(steps_in_all), agreed, loss)
            if left_out is not None:
                sums = before
                yield left_out
            else:
                if train.clip_norm is not None:
                    accelerator.clip_grad_norm_(module.parameters(), train.clip_norm)
                optimizer.step()
                guard.went_well()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            if ema is not None and left_out is None:
                ema.update(network, progress.step)
            if ended() or steps == steps_per_epoch:
                break
            if run.due():
                guard.see_weights(batch)
                if left_out := guard.judge(batch, sums, steps, taken=True):
                    yield left_out
                run.save_within(steps, sums, time.monotonic() - started)
                guard.remember(sums, steps - progress.left_out)
                if run.stopping:
                    yield Stopped(progress.step)
                    return
        # On every process alike: a synchronised norm waits for all of them.
        guard.see_weights(batch)
        if left_out := guard.judge(batch, sums, steps, taken=True):
            yield left_out

        batches.set_epoch(epoch)
        progress.epoch += 1
        progress.seconds += time.monotonic() - started
        taken, progress.left_out = max(1, steps - progress.left_out), 0
        row: Row = {"epoch": progress.epoch, "step": progress.step, "lr": lr}
        row |= {f"train_{name}": accelerator.reduce(value / taken, "mean").item() for name, value in sums.items()}
        speed = (steps - seen) * train.batch_size / (time.monotonic() - started)
        row |= {"seconds": round(progress.seconds, 2), "samples_per_second": round(speed, 1)}
        yield EpochEnd(final, row)
        progress.rows.append(row)
        yield Saved(row, run.save(final, row))
        guard.remember({})
        run.meet(guard.bad)
        if run.stopping:
            yield Stopped(progress.step)
            return
    yield Finished(final, progress)


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
