"""From a recipe to a run folder."""

from __future__ import annotations

import math
import re
import shutil
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
from ..env import describe_env
from ..errors import ConfigError, StoppedError, VCRegError, counted
from ..evals import classification
from ..evals.context import Context
from ..files import replacing, tensors_sha256, write_json, write_text
from ..models.build import library_of
from ..recipes import read_recipe
from ..regularizer.attachment import Attachment
from ..results.rows import Result
from ..rundir import START, RunDir
from ..tasks.task import TaskModule
from ..training.divergence import LeftOut
from ..training.journal import Journal
from ..training.loop import EpochEnd, Finished, Saved, Step, Stopped, fit
from ..training.optim import says_its_layers
from ..training.snapshots import Counting, Progress, Resumed, Row
from .accelerator import check_tracker, make_accelerator, start_tracker
from .build import build, example_input, with_view_of_weights
from .claim import claimed
from .emissions import Emissions, measured
from .evaluate import evaluation_context, lost_files, measure, write_details
from .monitor import Monitor
from .preview import attached, fitted_to, headline
from .processes import Peers, refuse_other_shares
from .signals import Signals

_Log = Callable[[str], None]

# The columns of each site's share of the gradient.
_SHARES = "vcreg_gradient_share/"
# Characters of the line that tells an epoch.
_LINE = 100
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
            _note_start(folder, network)
        attachment = attached(recipe, network, data)
        log(headline(recipe, data, network, attachment))
        # Of a run that goes on the beginning is not known, and half a figure would pass for a whole one.
        with measured(accelerator.is_main_process and not (folder.path / "state").exists()) as emissions:
            outcome = _fitted(recipe, context, attachment, folder, bar, log, signals, peers)
        journal = Journal(folder.path)
        if accelerator.is_main_process:
            journal.append("measuring")
        selected = _select(folder, outcome, recipe.train.keep, data.noun)
        context = replace(context, network=outcome.network)
        metrics = measure(recipe, context, selected)
        lost = lost_files(data, accelerator)
        for part, paths in lost.items():
            log(f"{len(paths)} {_PARTS[part]} {data.noun} did not decode; results.json lists them")
        if accelerator.is_main_process:
            write_details(recipe, context, folder)
            _finish(recipe, folder, data, outcome, metrics, lost, selected, emissions, processes)
            journal.append("end")
        accelerator.wait_for_everyone()
        if tracker is not None:
            accelerator.end_training()
    return folder


# ---- the training itself -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """What training left. network: the one to evaluate. regularizer: its last statistics, a row a site."""

    network: nn.Module
    progress: Progress
    regularizer: list[dict[str, Any]]


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
) -> _Outcome:  # fmt: skip
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
    progress_bar = _Bar(bar and accelerator.is_main_process)
    journal = _Started(folder, accelerator)
    with (
        _changed_in_place_told(recipe.where), _compiled_code_forgotten(recipe.train.compile), closing(events),
        progress_bar as shown, signals.deferred(),
    ):  # fmt: skip
        for event in events:
            journal.start(event)
            match event:
                case Resumed():
                    _say_resumed(event, batches, folder, log)
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
                    row.update(_regularizer_row(attachment))
                    if row["epoch"] == 1:
                        _warn_of_strength(row, log)
                    if held_out is not None:
                        found = classification.evaluate(final, held_out, accelerator, data.num_classes)
                        row.update({f"val_{name}": value for name, value in found})
                        refuse_lost()
                    if monitor is not None and monitor.due(int(row["epoch"]), row["step"] == recipe.train.max_steps):
                        row.update(monitor.row(final))
                case Saved(row):
                    _report(row, recipe.train.epochs, accelerator, log)
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
    return _Outcome(final, progress, sites)


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


def _say_resumed(event: Resumed, batches: Any, folder: RunDir, log: _Log) -> None:
    for reason in event.unusable:
        log(f"not usable: {reason}")
    place = (
        f", {event.place} steps into epoch {event.epoch + 1}" if event.place else f", the end of epoch {event.epoch}"
    )
    log(f"resumed at step {event.step}{place}, from {folder.path / event.state}")
    if event.place and batches.rereads:
        log(f"the training data are a stream: what the {event.place} steps saw is read once more, and left out")


def _report(row: Row, epochs: int, accelerator: Any, log: _Log) -> None:
    log(_epoch_line(row, epochs))
    if accelerator.trackers:
        accelerator.log({name: value for name, value in row.items() if name not in ("epoch", "step")}, step=row["step"])


def _epoch_line(row: Row, epochs: int) -> str:
    """An epoch's row in at most `_LINE` characters, losses and scores first. All of it is in metrics.csv, and what is
    told of blocks one by one is there alone."""
    names = [name for name in row if name not in ("epoch", "step") and "/" not in name]
    line = f"epoch {row['epoch']}/{epochs}"
    for name in sorted(names, key=lambda name: not name.startswith(("train_", "val_"))):
        part = f"  {name} {_short(row[name])}"
        line += part if len(line + part) <= _LINE else ""
    return line


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


class _Bar:
    """A progress bar for each epoch, where it is asked for."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None

    def step(self, event: Step, epochs: int) -> None:
        if not self.show:
            return
        if self.bar is None:
            from tqdm import tqdm

            title = f"epoch {event.epoch}/{epochs}"
            self.bar = tqdm(total=event.count, desc=title, leave=False, unit="step", dynamic_ncols=True)
        self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


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


def _regularizer_row(attachment: Attachment | None) -> Row:
    """The statistics of the regularizer for an epoch's row: means over the sites, and each site's in columns of its own
    ("vcreg_gradient_share/<site>"). A site that saw fewer than two rows has none, and is left out."""
    if attachment is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    for site in attachment.statistics():
        for name, value in site.items():
            if isinstance(value, float):
                found.setdefault(name, {})[site["site"]] = value
    means = {f"vcreg_{name}": round(sum(of.values()) / len(of), 6) for name, of in found.items()}
    each = {f"vcreg_{name}/{site}": float(f"{value:.6g}") for name, of in found.items() for site, value in of.items()}
    return means | each


def _warn_of_strength(row: Row, log: _Log) -> None:
    """Say it once where the regularizer's gradient is longer than the task's from the start: late in a training, when
    the task's is short, that is normal."""
    strong = {name.partition("/")[2]: share for name, share in row.items() if name.startswith(_SHARES) and share > 1}
    if strong:
        most = max(strong, key=lambda site: strong[site])
        log(
            f"warning: in the first epoch the regularizer's gradient is longer than the task's at "
            f"{counted(len(strong), 'site')}, {strong[most]:.3g} times at {most or 'the model'}: lower its alpha "
            "and beta"
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _same(loss: torch.Tensor) -> torch.Tensor:
    return loss


def _silent(_text: str) -> None:
    """Other processes say nothing."""


# ---- the start by hash: a path or an id would not say which weights ------------------------------------------------


def _note_start(folder: RunDir, network: nn.Module) -> None:
    """Keep the fingerprint of the plain network that a run starts with; a run that goes on keeps its first one."""
    if not folder.begun():
        write_text(folder.path / START, tensors_sha256(network.state_dict()) + "\n")


def _noted_start(folder: RunDir) -> str | None:
    """What `_note_start` kept; None where an older version began the run."""
    path = folder.path / START
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


# ---- the end: the weights that are kept, and the files that make the folder complete -------------------------------


def _select(folder: RunDir, outcome: _Outcome, keep: str, noun: str) -> str:
    """Load the weights to keep into the outcome's network; says which they are."""
    progress = outcome.progress
    if not progress.epoch:
        return "as it started, not trained"
    if keep == "last" or progress.best_epoch is None or progress.best_epoch == progress.epoch:
        return "last epoch"
    outcome.network.load_state_dict(folder.tensors("best.safetensors"))
    return f"epoch {progress.best_epoch}, best on the held-out training {noun}"


def _finish(
    recipe: Recipe, folder: RunDir, data: DataModule, outcome: _Outcome, metrics: list[Result],
    lost: dict[str, list[str]], selected: str, emissions: Emissions, processes: int,
) -> None:  # fmt: skip
    """Write what makes a run complete, model.safetensors first and results.json last."""
    progress = outcome.progress
    keep, other = ("best", "last") if selected.startswith("epoch ") else ("last", "best")
    with replacing(folder.path / "model.safetensors") as temporary:
        shutil.copyfile(folder.path / f"{keep}.safetensors", temporary)
    write_json(folder.path / "env.json", describe_env(processes))
    training = {
        "epochs": progress.epoch,
        "steps": progress.step,
        **({"batch_size": recipe.train.batch_size} if recipe.train.min_steps is not None else {}),
        "seconds": round(progress.seconds, 2),
        "selected": selected,
        "averaged": recipe.train.ema_decay is not None,
        **emissions.row(),
    }
    if base := library_of(recipe.model.name).base_model(recipe.model):
        training["base_model"] = base
    if broken := Journal(folder.path).lines("diverged"):
        training["not_finite"] = [
            {name: line[name] for name in line if name not in ("time", "event")} for line in broken
        ]
    if start := _noted_start(folder):
        training["start_sha256"] = start
    if learned := [*lost.get("train", ()), *lost.get("val", ())]:
        training["undecodable"] = learned
    results = {
        "format": 1,
        "metrics": [row.to_json() for row in metrics],
        "training": training,
        "data": data.describe() | ({"undecodable_test": lost["test"]} if "test" in lost else {}),
        "regularizer": [{name: _finite(value) for name, value in site.items()} for site in outcome.regularizer],
        "sessions": Journal(folder.path).sessions(),
    }
    write_json(folder.path / "results.json", results)
    (folder.path / f"{keep}.safetensors").unlink()
    if other == "best" and progress.best_epoch == progress.epoch:
        (folder.path / "best.safetensors").unlink(missing_ok=True)
    shutil.rmtree(folder.path / "state", ignore_errors=True)
    (folder.path / START).unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    # JSON knows no NaN, and one odd site must not cost a finished training its results.
    return None if isinstance(value, float) and not math.isfinite(value) else value
