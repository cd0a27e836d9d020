"""From a recipe to a run folder, and from a run folder back to its network and its numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..config import Recipe, differences, override, to_dict
from ..errors import UsageError, WeightsNotFoundError, unknown_name
from ..files import write_json
from ..models.head import renew_head
from ..results.rows import identity
from ..rundir import RunDir
from ..training.schedule import check_warmup
from .accelerator import make_accelerator
from .claim import alone_in, claimed
from .emissions import measured
from .material import Material, load_material
from .outcome import finish, select
from .protocols import PROTOCOLS, evaluate
from .start import note_start
from .tracker import check_tracker, start_tracker
from .training import attach_regularizer, train_model

Say = Callable[[str], None]

# What an evaluation may change. Not `video.split`: the test clips of one split are training clips of another.
_EVALUATED = (
    "eval.",
    "data.",
    *(f"video.{name}" for name in ("stride", "clips", "crops", "merge", "noise", "max_failed", "decoder")),
)
# What a person calls the parts of a data set.
_PARTS = {"train": "training", "val": "held-out training", "test": "test"}


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    bar: bool = False,
    say: Say = print,
    tracker: str | None = None,
) -> RunDir:
    """Train and evaluate one recipe; returns its run folder (without `out` a dated one below runs/).

    A folder that holds an unfinished run of the same recipe is resumed from its last whole epoch; one that holds the
    finished run is returned as it is. Under several processes (`accelerate launch`, `torchrun`) each calls this.

    Errors: UsageError when the folder holds another recipe's run and `overwrite` is false, or another process trains
    there; DataError, ConfigError,
    DivergedError from the steps; nothing already saved is lost by any of them.
    """
    _check_names(recipe)
    check_warmup(recipe.optim, recipe.train.epochs)
    check_tracker(tracker)
    accelerator = make_accelerator(recipe)
    say = say if accelerator.is_main_process else _silent
    with claimed(out, recipe, overwrite, accelerator) as folder:
        _train(recipe, folder, accelerator, bar, say, tracker)
    return folder


def _train(recipe: Recipe, folder: RunDir, accelerator: Any, bar: bool, say: Say, tracker: str | None) -> None:
    """`train` in a folder that is taken."""
    if folder.complete():
        folder.results()  # a damaged one must not pass for a finished run
        say(f"{folder.path} is complete already; --overwrite runs it again")
        return
    if tracker is not None:
        start_tracker(accelerator, tracker, folder.path, to_dict(recipe))
    say(f"processes: {accelerator.num_processes}, device: {accelerator.device}, precision: {recipe.train.precision}")
    material, model = build(recipe)
    if accelerator.is_main_process:
        note_start(folder, model)
    attachment = attach_regularizer(material, model)
    say(_describe(material, model, attachment))
    # Of a run that goes on the beginning is not known, and half a figure would pass for a whole one.
    with measured(accelerator.is_main_process and not (folder.path / "state").exists()) as emissions:
        outcome = train_model(material, model, attachment, folder, accelerator, bar, say)
    selected = select(folder, outcome, recipe.train.keep)
    metrics = evaluate(material, outcome.model, accelerator, selected)
    undecodable = material.undecodable(accelerator)
    for part, paths in undecodable.items():
        say(f"{len(paths)} {_PARTS[part]} clips did not decode; results.json lists them")
    if accelerator.is_main_process:
        finish(folder, material, outcome, metrics, undecodable, selected, emissions, accelerator.num_processes)
    accelerator.wait_for_everyone()
    if tracker is not None:
        accelerator.end_training()


def load_run(path: str | Path) -> tuple[Recipe, Any, nn.Module]:
    """The recipe, data (images or videos) and plain trained network of a finished run. Errors: RunFolderError."""
    material, model = _load(RunDir(path), RunDir(path).recipe())
    return material.recipe, material.sets, model


def evaluate_run(path: str | Path, settings: Sequence[str] = (), *, save: bool = False) -> list[dict[str, Any]]:
    """Evaluate a finished run's weights again, under its recipe with `settings` applied: `eval.*`, `data.*`, and of
    `video.*` what concerns testing, such as `video.noise=1.5`.

    save: put the rows into the run's results.json, in place of older rows of the same metric, data, split and noise;
    meanwhile no other run or saving evaluation gets into the folder.
    Errors: UsageError for a setting that would change what was trained, or a folder in use; RunFolderError.
    """
    folder = RunDir(path)
    trained = folder.recipe()
    recipe = override(trained, settings)
    _check_names(recipe)
    foreign = [name for name in differences(trained, recipe) if not name.startswith(_EVALUATED)]
    if foreign:
        raise UsageError(f"an evaluation changes eval.*, data.* and the test side of video.*, not {', '.join(foreign)}")
    accelerator = make_accelerator(recipe)
    with alone_in(folder, accelerator) if save else contextlib.nullcontext():
        material, model = _load(folder, trained)  # built for the classes it was trained on
        results = folder.results()
        if recipe != trained:
            material = load_material(recipe)
            _refuse_other_classes(recipe, results.get("data", {}).get("classes"), material.sets.class_names)
        rows = evaluate(material, model, accelerator, results["training"]["selected"])
        if save and accelerator.is_main_process:
            fresh = {identity(row) for row in rows}
            kept = [row for row in results["metrics"] if identity(row) not in fresh]
            write_json(folder.path / "results.json", results | {"metrics": kept + rows})
    return rows


def _refuse_other_classes(recipe: Recipe, trained: Sequence[str] | None, tested: Sequence[str]) -> None:
    """UsageError where logits would be compared with labels of other classes. A probe learns its own."""
    if "classification" not in recipe.eval.protocols or not trained or list(trained) == list(tested):
        return
    other = next((name for name, own in zip(tested, trained) if name != own), None)
    differ = f"such as {other!r}" if other else f"{len(tested)} instead of {len(trained)}"
    raise UsageError(
        f"{recipe.data.name} has other classes than this network was trained for ({differ}), so its own classifier "
        "says nothing there; --set eval.protocols=probe measures the features"
    )


def build(recipe: Recipe) -> tuple[Material, nn.Module]:
    """Data and plain network of a recipe. Twins that differ only in `vcreg` start from the same weights.

    Errors: those of the data set and of the model.
    """
    from accelerate.utils import set_seed

    material = load_material(recipe)
    set_seed(recipe.train.seed)
    try:
        model = material.model()
    except OSError as error:  # what huggingface_hub raises offline, and torch on a failed download
        raise WeightsNotFoundError(
            f"the pretrained weights of {recipe.model.name} could not be had ({str(error).strip().splitlines()[0]}); "
            "give a folder or file with --set model.pretrained=PATH, or --set model.pretrained=false for a random start"
        ) from error
    if recipe.model.pretrained:
        renew_head(model, recipe.model, material.sets.class_names, material.example_input())
    if recipe.train.channels_last:
        import torch

        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return material, model


def _load(folder: RunDir, recipe: Recipe) -> tuple[Material, nn.Module]:
    tensors = folder.tensors()
    material, model = build(replace(recipe, model=replace(recipe.model, pretrained=False)))
    model.load_state_dict(tensors)
    return material, model


def _check_names(recipe: Recipe) -> None:
    """What is only needed at the end is looked up at the start: a typo must not cost a training."""
    from ..training.tasks import TASKS

    for name in recipe.eval.protocols:
        if name not in PROTOCOLS:
            raise unknown_name("evaluation protocol", name, PROTOCOLS)
    if recipe.task not in TASKS:
        raise unknown_name("task", recipe.task, TASKS)


def _describe(material: Material, model: nn.Module, attachment: Any) -> str:
    recipe, sets = material.recipe, material.sets
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    sites = 0 if attachment is None else len(attachment.sites)
    regularizer = f"VCReg at {sites} site{'s' * (sites != 1)} ({recipe.where})" if sites else "plain"
    fold = "" if recipe.video is None else f" split {recipe.video.split}"
    return (
        f"{recipe.name}: {recipe.model.name}, {parameters:.2f}M parameters, {regularizer}; "
        f"{recipe.data.name}/{recipe.data.labels}{fold}: {len(sets.train)} train, {len(sets.val)} val, "
        f"{len(sets.test)} test, {sets.num_classes} classes"
    )


def _silent(_text: str) -> None:
    """Other processes say nothing."""
