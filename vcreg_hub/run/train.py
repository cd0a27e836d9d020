"""From a recipe to a run folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Recipe
from ..data.module import DataModule
from ..env import describe_env
from ..errors import ConfigError
from ..evals import classification
from ..evals.context import Context
from ..files import replacing, tensors_sha256, write_json, write_text
from ..models.build import library_of
from ..recipes import read_recipe
from ..regularizer.attachment import Attachment
from ..results.rows import Result
from ..rundir import START, RunDir
from ..tasks.task import TaskModule
from ..training.loop import EpochEnd, Finished, Progress, Row, Saved, Step, fit
from ..training.optim import says_its_layers
from .accelerator import check_tracker, make_accelerator, start_tracker
from .build import build, example_input, with_view_of_weights
from .claim import claimed
from .emissions import Emissions, measured
from .evaluate import evaluation_context, lost_files, measure, write_details
from .monitor import Monitor
from .preview import attached, fitted_to, headline

_Log = Callable[[str], None]

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
) -> RunDir:
    """Train and evaluate one recipe; returns its run folder (without `out` a dated one below runs/).

    recipe: or its address, `module:function`, or the recipe.json of a run.
    A folder that holds an unfinished run of the same recipe is resumed from its last whole epoch; one that holds the
    finished run is returned as it is. Under several processes (`accelerate launch`, `torchrun`) each calls this.

    Errors: UsageError when the folder holds another recipe's run and `overwrite` is false, or another process trains
    there; DataError, ConfigError,
    DivergedError from the steps; nothing already saved is lost by any of them.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    check_tracker(tracker)
    accelerator = make_accelerator(recipe)
    log = log if accelerator.is_main_process else _silent
    with claimed(out, recipe, overwrite, accelerator) as folder:
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
            outcome = _fitted(recipe, context, attachment, folder, bar, log)
        selected = _select(folder, outcome, recipe.train.keep, data.noun)
        context = replace(context, network=outcome.network)
        metrics = measure(recipe, context, selected)
        lost = lost_files(data, accelerator)
        for part, paths in lost.items():
            log(f"{len(paths)} {_PARTS[part]} {data.noun} did not decode; results.json lists them")
        if accelerator.is_main_process:
            write_details(recipe, context, folder)
            _finish(recipe, folder, data, outcome, metrics, lost, selected, emissions, processes)
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
    recipe: Recipe, context: Context, attachment: Attachment | None, folder: RunDir, bar: bool, log: _Log
) -> _Outcome:
    """Train the context's network in place, or go on where `folder` stopped; afterwards the regularizer is off."""
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
    events = fit(recipe, module, batches, folder=folder, accelerator=accelerator, watch=watch,
                 blocks=_blocks(recipe, network))  # fmt: skip
    progress_bar = _Bar(bar and accelerator.is_main_process)
    with _compiled_code_forgotten(recipe.train.compile), closing(events), progress_bar as shown:
        for event in events:
            match event:
                case Step(agreed=True):
                    refuse_lost()
                    shown.step(event, recipe.train.epochs)
                case Step():
                    shown.step(event, recipe.train.epochs)
                case EpochEnd(final, row):
                    shown.close()
                    refuse_lost()
                    recipe.task.end_epoch(module, final, batches)
                    row.update(_regularizer_row(attachment))
                    if held_out is not None:
                        found = classification.evaluate(final, held_out, accelerator, data.num_classes)
                        row.update({f"val_{name}": value for name, value in found})
                        refuse_lost()
                    if monitor is not None and monitor.due(int(row["epoch"]), row["step"] == recipe.train.max_steps):
                        row.update(monitor.row(final))
                case Saved(row):
                    _report(row, recipe.train.epochs, accelerator, log)
                case Finished(final, progress):
                    sites = [] if attachment is None else attachment.statistics()
    if attachment is not None:
        attachment.detach()
    return _Outcome(final, progress, sites)


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
