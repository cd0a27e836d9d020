"""From a recipe to a run folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Recipe, continued
from ..data.module import DataModule
from ..errors import ConfigError, StoppedError, VCRegError, counted
from ..evals import classification
from ..evals.context import Context
from ..recipes import read_recipe
from ..regularizer.attachment import Attachment
from ..rundir import RunDir
from ..tasks.task import TaskModule
from ..training.divergence import LeftOut
from ..training.journal import Journal
from ..training.loop import EpochEnd, Finished, Saved, Step, Stopped, fit
from ..training.optim import says_its_layers
from ..training.snapshots import Counting, Resumed
from .accelerator import check_tracker, make_accelerator, start_tracker
from .build import build, example_input, with_view_of_weights
from .claim import claimed
from .emissions import measured
from .evaluate import evaluation_context, lost_files, measure, write_details
from .monitor import Monitor
from .outcome import Outcome, finish, note_start, select
from .preview import attached, fitted_to, headline
from .processes import Peers, refuse_other_shares
from .signals import Signals
from .telling import Bar, regularizer_row, report_epoch, say_resumed, warn_of_strength

_Log = Callable[[str], None]

# What a person calls the parts of a data set.
_PARTS = {"train": "training", "val": "held-out training", "test": "test"}


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    bar: bool = False,
    log: _Log = print,
    tracker: str | None = None,
    continue_with: Sequence[str] = (),
) -> RunDir:
    """Train and evaluate one recipe; returns its run folder (without `out` a dated one below runs/).

    recipe: or its address, `module:function`, or the recipe.json of a run, or its folder, which is then `out` too.
    continue_with: settings, such as "optim.lr=1e-4", with which an unfinished run goes on; its record says from where.
    A folder that holds an unfinished run of the same recipe is resumed from its last state; one that holds the
    finished run is returned as it is. Under several processes (`accelerate launch`, `torchrun`) each calls this.
    A signal that asks to stop (SIGTERM, SIGUSR1) has the state saved first.

    Errors: UsageError when the folder holds another recipe's run and `overwrite` is false, or another process trains
    there; DataError, ConfigError, DivergedError from the steps; RunFolderError where no state can be used;
    StorageError for a full or read-only disk; StoppedError after a signal; nothing saved is lost by any of them.
    """
    if not isinstance(recipe, Recipe):
        out = recipe if out is None and Path(recipe).is_dir() else out
        recipe = read_recipe(recipe)
    before, recipe = recipe, continued(recipe, continue_with)
    recipe.check()
    check_tracker(tracker)
    accelerator = make_accelerator(recipe)
    log = log if accelerator.is_main_process else _silent
    changing, peers = before if continue_with else None, Peers(accelerator, recipe.train.collective_timeout)
    with (
        peers.watched(),
        Signals() as signals,
        claimed(
            out,
            recipe,
            overwrite,
            accelerator,
            changing,
            partial(refuse_other_shares, recipe, accelerator=accelerator, settings=continue_with),
        ) as folder,
        _signal_noted(signals, Journal(folder.path), accelerator.is_main_process),
    ):
        if folder.complete():
            folder.results()  # a damaged one must not pass for a finished run
            log(f"{folder.path} is complete already; --overwrite runs it again")
            return folder
        if tracker is not None:
            start_tracker(accelerator, tracker, folder.path, recipe)
        processes = accelerator.num_processes
        log(f"processes: {processes}, device: {accelerator.device}, precision: {recipe.train.precision}")
        recipe = with_view_of_weights(recipe, log)
        data, network = build(recipe, log)
        recipe = fitted_to(recipe, data, processes, log)
        _synchronise(recipe, network, accelerator)
        context = evaluation_context(recipe, data, network, accelerator)
        if accelerator.is_main_process:
            note_start(folder, network)
        attachment = attached(recipe, network, data)
        log(headline(recipe, data, network, attachment))
        # Of a run that goes on the beginning is not known, and half a figure would pass for a whole one.
        with measured(accelerator.is_main_process and not (folder.path / "state").exists()) as emissions:
            outcome = _fitted(recipe, context, attachment, folder, bar, log, signals, peers)
        journal = Journal(folder.path)
        if accelerator.is_main_process:
            journal.append("measuring")
        selected = select(folder, outcome, recipe.train.keep, data.noun)
        context = replace(context, network=outcome.network)
        metrics = measure(recipe, context, selected)
        lost = lost_files(data, accelerator)
        for part, paths in lost.items():
            log(f"{len(paths)} {_PARTS[part]} {data.noun} did not decode; results.json lists them")
        if accelerator.is_main_process:
            write_details(recipe, context, folder)
            finish(recipe, folder, data, outcome, metrics, lost, selected, emissions, processes)
            journal.append("end")
        accelerator.wait_for_everyone()
        if tracker is not None:
            accelerator.end_training()
    return folder


# ---- the training itself -----------------------------------------------------------------------------------------


def _synchronise(recipe: Recipe, module: nn.Module, accelerator: Any) -> None:
    """Let batch normalisation within a module count the samples of all processes, where the recipe asks for it.

    Errors: ConfigError on a device for which torch has no such thing.
    """
    if not recipe.train.sync_batchnorm or accelerator.num_processes == 1:
        return
    if accelerator.device.type == "cpu":
        raise ConfigError("train.sync_batchnorm needs GPUs; on CPUs pass --set train.sync_batchnorm=false")
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # in place, but for a module that is itself such a layer


def _fitted(
    recipe: Recipe, context: Context, attachment: Attachment | None, folder: RunDir, bar: bool, log: _Log,
    signals: Signals, peers: Peers,
) -> Outcome:  # fmt: skip
    """Train the context's network in place, or go on where `folder` stopped; afterwards the regularizer is off.

    Errors: StoppedError, or KeyboardInterrupt for Ctrl-C, after a signal.
    """
    data, network, accelerator = context.trained_on, context.network, context.accelerator
    module = TaskModule(recipe.task, network, recipe.train, example_input(data), data.class_counts)
    _synchronise(recipe, module.heads, accelerator)
    batches = data.train_batches(recipe.train, accelerator.process_index, accelerator.num_processes, recipe.task.views)
    held_out = context.batches(data, "val") if data.size("val") and recipe.task.monitor.startswith("val_") else None

    monitor = Monitor.of(recipe, data, network, accelerator)

    def refuse_lost() -> None:
        data.refuse_lost(lost_files(data, accelerator))

    if recipe.train.gradient_checkpointing:
        _checkpoint_gradients(network)
    if recipe.train.compile:
        module.compile_network()
    watch = attachment.watch if attachment is not None else _same
    beside: dict[str, Counting] = {"lost": _Lost(data)}
    if attachment is not None:
        beside["regularizer"] = attachment
    events = fit(recipe, module, batches, folder=folder, accelerator=accelerator, watch=watch,
                 blocks=_blocks(recipe, network), beside=beside,
                 stop=lambda: signals.asked() or peers.orphaned(), wait=peers.meet)  # fmt: skip
    progress_bar = Bar(bar and accelerator.is_main_process)
    journal = _Started(folder, accelerator)
    with (
        _changed_in_place_told(recipe.where), _compiled_code_forgotten(recipe.train.compile), closing(events),
        progress_bar as shown, signals.deferred(),
    ):  # fmt: skip
        for event in events:
            journal.start(event)
            match event:
                case Resumed():
                    say_resumed(event, batches, folder, log)
                case Step():
                    if event.agreed:
                        refuse_lost()
                    shown.step(event, recipe.train.epochs)
                    journal.progress(event, recipe.train.batch_size)
                case LeftOut(step, place, steps):
                    undone = f"{counted(steps, 'step')} {'left out' if recipe.train.on_nan == 'skip' else 'undone'}"
                    log(f"warning: step {step} was not finite, first seen in {place}: {undone} (train.on_nan)")
                case EpochEnd(final, row):
                    shown.close()
                    refuse_lost()
                    recipe.task.end_epoch(module, final, batches)
                    row.update(regularizer_row(attachment))
                    if row["epoch"] == 1:
                        warn_of_strength(row, log)
                    if held_out is not None:
                        found = classification.evaluate(final, held_out, accelerator, data.num_classes)
                        row.update({f"val_{name}": value for name, value in found})
                        refuse_lost()
                    if monitor is not None and monitor.due(int(row["epoch"]), row["step"] == recipe.train.max_steps):
                        row.update(monitor.row(final))
                case Saved(row):
                    report_epoch(row, recipe.train.epochs, accelerator, log)
                case Stopped(step):
                    if peers.orphaned() and not signals.asked():
                        raise StoppedError(
                            f"the launcher is gone; stopped after step {step}, which is saved; the same command goes on"
                        )
                    raise signals.error(step)
                case Finished(final, progress):
                    sites = [] if attachment is None else attachment.statistics()
    if attachment is not None:
        attachment.detach()
    return Outcome(final, progress, sites)


class _Started:
    """The journal of a training as this process tells it: the first process alone writes there."""

    def __init__(self, folder: RunDir, accelerator: Any) -> None:
        self.processes, self.started = accelerator.num_processes, False
        self.journal = Journal(folder.path) if accelerator.is_main_process else None

    def start(self, event: object) -> None:
        """Note at the first event where this process begins."""
        if self.journal is None or self.started:
            return
        self.started = True
        step = event.step if isinstance(event, Resumed) else 0
        self.journal.append("start", step=step, processes=self.processes, threads=torch.get_num_threads())

    def progress(self, event: Step, batch_size: int) -> None:
        if self.journal is not None:
            self.journal.progress(event.epoch, event.step, event.steps, batch_size, event.loss)


@contextmanager
def _signal_noted(signals: Signals, journal: Journal, first: bool) -> Iterator[None]:
    """Where a signal ends the block, the journal says so."""
    try:
        yield
    except (KeyboardInterrupt, StoppedError):
        saved = [line["step"] for line in journal.lines("saved")]
        if first:
            journal.append("signal", name=signals.name or "to another process", step=saved[-1] if saved else 0)
        raise


@dataclass(frozen=True)
class _Lost:
    """The unreadable samples that were met, as a part of the state: a file that failed before the interruption is
    counted by the process that goes on."""

    data: DataModule

    def state_dict(self) -> dict[str, Any]:
        flags = self.data.lost()
        return {} if flags is None else {"flags": flags.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        flags = self.data.lost()
        if flags is not None and "flags" in state:
            flags.copy_(state["flags"])


@contextmanager
def _compiled_code_forgotten(compiled: bool) -> Iterator[None]:
    """torch keeps compiled code by class: the next network of this one would run it, with or without hooks."""
    try:
        yield
    finally:
        if compiled:
            torch.compiler.reset()


@contextmanager
def _changed_in_place_told(where: str) -> Iterator[None]:
    """A place that the next layer overwrites is torch's RuntimeError in the first forward pass."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, VCRegError) or not (found := re.search(r"VCReg at (.+?): .*inplace", str(error))):
            raise
        raise ConfigError(
            f"where={where!r} has the place {found[1]}, whose output the next layer overwrites in place, so that it "
            "cannot be regularized: leave it out, or take blocks"
        ) from error


def _blocks(recipe: Recipe, network: nn.Module) -> list[str]:
    """The blocks of a network that does not say which layer is which, where layers learn at rates of their own."""
    if recipe.optim.layer_decay is None or says_its_layers(network):
        return []
    from ..placement.sites import find_blocks

    return [site.name for site in find_blocks(network, "blocks")]


def _checkpoint_gradients(model: nn.Module) -> None:
    """Recompute activations in the backward pass. Errors: ConfigError for a model that offers no such thing."""
    timm_s = getattr(model, "set_grad_checkpointing", None)
    # transformers 5.23 has renamed its own, and warns of the old name.
    renamed = getattr(model, "activation_checkpointing_enable", None)
    transformers_s = getattr(model, "gradient_checkpointing_enable", None)
    if callable(timm_s):
        timm_s(True)
    elif callable(renamed):
        renamed(activation_checkpointing_kwargs={"use_reentrant": False})
    elif callable(transformers_s):
        transformers_s(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise ConfigError(
            f"train.gradient_checkpointing: {type(model).__name__} offers none; timm and transformers models do"
        )


def _same(loss: torch.Tensor) -> torch.Tensor:
    return loss


def _silent(_text: str) -> None:
    """Other processes say nothing."""
