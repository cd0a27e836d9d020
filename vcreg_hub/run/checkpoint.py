"""Evaluates any trained network: a run under its own recipe, every other on data named in the call."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from ..config import Data, Evaluation, Model, Recipe, override
from ..data import load_data
from ..data.module import DataModule
from ..errors import DataError, UsageError
from ..evals.extraction import features_folder
from ..evals.suites import Suite, evaluations, is_named
from ..models.checkpoint import Checkpoint, is_imported, is_run, load_checkpoint
from ..models.libraries.library import Preprocessing
from ..results.rows import Result
from .accelerator import accelerator_of
from .build import checked_split
from .evaluate import at_hand, evaluate_run, evaluation_context, measure, refuse_other_classes


def evaluate(
    model: str | Path | nn.Module,
    suite: Suite | None = None,
    *,
    settings: Sequence[str] = (),
    save: bool = False,
    cache: bool = True,
    preprocessing: Preprocessing | None = None,
) -> list[Result]:
    """Evaluate a trained network; returns a row for each metric.

    model: see `models.checkpoint.load_checkpoint`. suite: evaluations, their tags ("logreg,knn"), or the name of one in
        `evals.suites`; None for those of the run's recipe, and for another network those that `settings` name.
        Of a suite by name, the evaluations whose data are not at hand are left out, with a warning of what to fetch.
    settings: as `--set` has them, such as "data.name=digits"; of a run they change evals, eval.*, data.* and the test
        side of video.*. A network that is no run sees the data by its own preprocessing, and has to be told which:
        evaluations without data of their own take `data.name`.
    save: put the rows into the run's results.json. cache: keep frozen features, as `run.features.features` does.
    Errors: those of `load_checkpoint` and of reading the data; UsageError for a setting that does not fit, or for
    evaluations that have nothing to measure on.
    """
    folder = features_folder() if cache else None
    if isinstance(model, str | Path) and is_run(model) and not is_imported(model):
        return evaluate_run(model, settings, save=save, suite=suite, cache=folder)
    if save:
        raise UsageError("save puts rows into a run's results.json, and this is no run folder")
    checkpoint = load_checkpoint(model, preprocessing)
    recipe = _recipe(checkpoint, () if suite is None else evaluations(suite), settings)

    def load(cfg: Data) -> DataModule:
        return checked_split(load_data(checkpoint.shown(cfg), recipe.video), recipe.eval.split)

    missing: dict[int, str] | None = {} if is_named(suite) else None
    data, accelerator = _first(recipe, load, is_named(suite)), accelerator_of(recipe.train.precision)
    context = evaluation_context(recipe, data, checkpoint.network, accelerator, missing, load=load, cache=folder)
    recipe = replace(recipe, evals=at_hand(recipe, missing or {}))
    refuse_other_classes(recipe, context, checkpoint.view.classes)
    return measure(recipe, context, f"weights of {checkpoint.name}")


def _blank(name: str, evals: tuple[Evaluation, ...] = ()) -> Recipe:
    return Recipe(re.sub(r"[/\\\0]", "_", name), Model(name), Data(""), evals=evals)


def _recipe(checkpoint: Checkpoint, evals: tuple[Evaluation, ...], settings: Sequence[str]) -> Recipe:
    """What is measured of a network that is no run, and on which data."""
    blank = replace(_blank(checkpoint.name, evals), video=checkpoint.video)
    recipe = override(blank, settings)
    if not recipe.evals:
        raise UsageError(f"which evaluations of {checkpoint.name}? Give a suite, such as logreg or knn,linear_probe")
    if not recipe.data.name and any(evaluation.data is None for evaluation in recipe.evals):
        raise UsageError(
            f"{checkpoint.name} is no run, so it has no data of its own: say which to measure on, as in "
            "--set data.name=digits"
        )
    return recipe


def _first(recipe: Recipe, load: Callable[[Data], DataModule], tolerant: bool) -> DataModule:
    """The data of the recipe, or else of its first evaluation. tolerant: of the first one with data at hand."""
    if recipe.data.name:
        return load(recipe.data)
    own = [evaluation.data for evaluation in recipe.evals if evaluation.data is not None]
    reason: DataError | None = None
    for cfg in own if tolerant else own[:1]:
        try:
            return load(cfg)
        except DataError as error:
            reason = reason or error
    assert reason is not None
    raise reason
