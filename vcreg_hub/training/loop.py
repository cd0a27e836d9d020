"""The training loop: one flat walk over epochs and steps, on accelerate.

It does not know the method. A task says what the loss of a batch is, and `watch` (the identity, or an attachment's)
is told every loss before its backward pass.

Resuming goes by whole epochs: the order of the samples, the augmentation and the dropout of an epoch depend only on
(seed, epoch, process), so a run that was interrupted and resumed is the run that was not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Recipe
from ..errors import ConfigError, DivergedError
from ..files import write_tensors, write_text
from ..rundir import RunDir
from .ema import build_ema
from .optim import build_optimizer, peak_lr
from .schedule import lr_at
from .state import load_state, save_state
from .tasks import Task, first_nonfinite_module

STATE = "state/state.safetensors"
# How often processes agree on whether a loss was not finite, and how often a GPU is waited for to look.
CHECK_EVERY = 25


@dataclass
class Progress:
    """How far a run is; part of its state."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def fit(
    recipe: Recipe,
    model: nn.Module,
    task: Task,
    batches: Any,
    *,
    folder: RunDir,
    accelerator: Any,
    watch: Callable[[Tensor], Tensor] = lambda loss: loss,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    check: Callable[[], None] = lambda: None,
    observe: Callable[[], dict[str, float]] = dict,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    bar: bool = False,
) -> tuple[nn.Module, Progress]:
    """Train `model` in place as `recipe` says; returns the network to evaluate (its average where one is kept).

    batches: this process's batches of one epoch, with `len` and `set_epoch(epoch)`; targets are class ids, or
        probabilities after mixup.
    watch: told each micro-batch's loss before it is scaled for accumulation. validate: metrics on held-out data after
        each epoch, "top1" decides what is best. check: raises where the run is to end; every process calls it at the
        same steps, so that none waits for one that has gone, and before anything is saved. observe: what else goes into
        an epoch's row. report: gets the row.
    Errors: DivergedError with step and place when a loss is not finite (the weights of the epoch before stay in
        last.safetensors); ConfigError when the batches of an epoch do not fill one optimizer step.
    """
    train, optim = recipe.train, recipe.optim
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    steps_per_epoch = len(batches) // train.accumulation
    if steps_per_epoch == 0:
        raise ConfigError(
            f"an epoch has {len(batches)} batches on each process and a step takes {train.accumulation}: "
            "lower train.batch_size or train.accumulation, or give more images"
        )
    optimizer = build_optimizer(model, optim, peak_lr(optim, train.batch_size))
    ema = build_ema(model, train, optim.warmup_epochs, steps_per_epoch)
    progress = Progress()
    raw = model
    state_file = folder.path / STATE
    if state_file.exists():
        progress = _resume(load_state(state_file), raw, optimizer, ema, accelerator)
    # Compile after the hooks are on and before the wrapper of several processes.
    wrapped = torch.compile(model) if train.compile else model
    wrapped, optimizer = accelerator.prepare(wrapped, optimizer)
    final = ema.module if ema is not None else raw

    while progress.epoch < train.epochs:
        if train.max_steps is not None and progress.step >= train.max_steps:
            break
        epoch, started = progress.epoch, time.monotonic()
        _seed(train.seed, epoch, rank)
        batches.set_epoch(epoch)
        raw.train()
        sums: dict[str, Tensor] = {}
        bad = torch.zeros((), device=device, dtype=torch.long)  # 1 + first step of a loss that is not finite
        steps = 0
        groups = _groups(batches, train.accumulation, steps_per_epoch)
        for group in _with_bar(groups, steps_per_epoch, f"epoch {epoch + 1}/{train.epochs}", bar):
            lr = lr_at(optim, progress.step, steps_per_epoch, train.epochs, peak_lr(optim, train.batch_size))
            for parameters in optimizer.param_groups:
                parameters["lr"] = lr * parameters.get("lr_scale", 1.0)
            for i, batch in enumerate(group):
                batch = _to(batch, device, train.channels_last)
                last = i == len(group) - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                    out = task(wrapped, batch)
                    accelerator.backward(watch(out["loss"]) / train.accumulation)
                for name, value in out.items():
                    sums[name] = sums.get(name, 0) + value.detach() / train.accumulation
                bad = torch.where((bad == 0) & ~torch.isfinite(out["loss"].detach()), progress.step + 1, bad)
            if (world == 1 and device.type == "cpu") or progress.step % CHECK_EVERY == 0:
                _stop_if_bad(bad, accelerator, raw, batch, task, folder, progress)
                check()
            if train.clip_norm is not None:
                accelerator.clip_grad_norm_(raw.parameters(), train.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            steps += 1
            if ema is not None:
                ema.update(raw, progress.step)
            if train.max_steps is not None and progress.step >= train.max_steps:
                break
        finite = _still_finite(raw, batch, task)  # on every process alike: a synchronised norm waits for all of them
        if not bad and not finite:
            bad = bad + progress.step + 1
        _stop_if_bad(bad, accelerator, raw, batch, task, folder, progress)
        check()

        progress.epoch += 1
        progress.seconds += time.monotonic() - started
        row: dict[str, Any] = {"epoch": progress.epoch, "step": progress.step, "lr": lr}
        row |= {f"train_{name}": accelerator.reduce(value / steps, "mean").item() for name, value in sums.items()}
        samples = steps * train.batch_size
        row |= {
            "seconds": round(progress.seconds, 2),
            "samples_per_second": round(samples / (time.monotonic() - started), 1),
        }
        row |= observe()
        if validate is not None:
            row |= {f"val_{name}": value for name, value in validate(final).items()}
            check()
        progress.rows.append(row)
        _save(folder, raw, final, optimizer, ema, accelerator, progress, row)
        report(row)
    return final, progress


def _save(
    folder: RunDir, raw: nn.Module, final: nn.Module, optimizer: Any, ema: Any, accelerator: Any,
    progress: Progress, row: dict[str, Any],
) -> None:  # fmt: skip
    """After an epoch: the evaluated weights, the best ones, the table, and last of all the state that says so."""
    best = row.get("val_top1")
    improved = best is not None and (progress.best is None or best > progress.best)
    if improved:
        progress.best, progress.best_epoch = best, progress.epoch
    if accelerator.is_main_process:
        write_tensors(folder.path / "last.safetensors", final.state_dict())
        if improved:
            write_tensors(folder.path / "best.safetensors", final.state_dict())
        write_text(folder.path / "metrics.csv", _csv(progress.rows))
        scaler = accelerator.scaler
        parts = {
            "model": raw.state_dict(),
            "optimizer": optimizer.state_dict()["state"],
            "ema": None if ema is None else ema.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "progress": vars(progress),
        }
        save_state(folder.path / STATE, parts)
    accelerator.wait_for_everyone()


def _resume(parts: dict[str, Any], model: nn.Module, optimizer: Any, ema: Any, accelerator: Any) -> Progress:
    model.load_state_dict(parts["model"])
    optimizer.load_state_dict(optimizer.state_dict() | {"state": parts["optimizer"]})
    if ema is not None:
        ema.load_state_dict(parts["ema"])
    if accelerator.scaler is not None and parts["scaler"]:
        accelerator.scaler.load_state_dict(parts["scaler"])
    return Progress(**parts["progress"])


def _stop_if_bad(
    bad: Tensor, accelerator: Any, model: nn.Module, batch: Any, task: Task, folder: RunDir, progress: Progress
) -> None:
    if accelerator.num_processes > 1:
        bad = accelerator.reduce(bad, "max")
    step = int(bad)
    if not step:
        return
    place = first_nonfinite_module(model, batch, task)
    kept = f"the weights after epoch {progress.epoch} are in {folder.path / 'last.safetensors'}"
    raise DivergedError(
        f"the loss of step {step} (epoch {progress.epoch + 1}) is not finite; first seen in {place}. "
        f"Lower optim.lr or the regularizer's alpha and beta, or set train.clip_norm; "
        + (kept if progress.epoch else "no epoch had ended, so no weights were saved")
    )


@torch.no_grad()
def _still_finite(model: nn.Module, batch: Any, task: Task) -> bool:
    """Whether the loss is finite after the epoch's last step too, which no later step of it looks at: what that step
    broke must not take the place of the good weights. Leaves the network as it is."""
    # As in training, where batch normalisation depends on this batch alone: after few steps its running statistics
    # say little. They are put back.
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        return bool(torch.isfinite(task(model, batch)["loss"]))
    finally:
        for name, buffer in model.named_buffers():
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


def _with_bar(items: Iterable[Any], total: int, title: str, show: bool) -> Iterable[Any]:
    if not show:
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc=title, leave=False, unit="step", dynamic_ncols=True)


def _csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
