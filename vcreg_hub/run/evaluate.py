"""The evaluations of a recipe on a trained network, as rows of results.json; and those of a finished run again."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..config import Data, Evaluation, Place, Recipe, differences, override
from ..config.tagged import tag_of
from ..data.module import DataModule
from ..errors import ConfigError, DataError, DivergedError, UsageError
from ..evals.context import Context
from ..evals.suites import Suite, evaluations, is_named, seen_by
from ..files import write_json
from ..results.rows import Result, identity
from ..rundir import DETAILS, RunDir
from .accelerator import make_accelerator
from .build import load_run, recipe_as_run, recipe_data
from .claim import alone_in
from .tune import tuned

_logger = logging.getLogger("vcreg_hub")

# What an evaluation may change. Not `video.split`: the test clips of one split are training clips of another.
_EVALUATED = (
    "eval.",
    "evals",
    "data.",
    *(f"video.{name}" for name in ("stride", "clips", "crops", "merge", "noise", "max_failed", "decoder", "antialias")),
)

# Classes of the smallest ImageNet.
_IMAGENET = 1000


def evaluate_run(
    path: str | Path,
    settings: Sequence[str] = (),
    *,
    save: bool = False,
    suite: Suite | None = None,
    cache: Path | None = None,
) -> list[Result]:
    """Evaluate a finished run's weights again, under its recipe with `settings` applied: `evals`, `eval.*`, `data.*`,
    and of `video.*` what concerns testing, such as `video.noise=1.5`.

    suite: evaluations, or their tags, in place of the run's; or a name of `evals.suites`, whose images are shown to the
    network as its training images were. Those whose data are not at hand are left out, with a warning that says
    what to fetch.
    save: put the rows into the run's results.json, in place of older rows of the same metric, data, settings, split and
    noise, and what evaluations tell in detail into its folder `evals`; meanwhile no other run or saving evaluation gets
    into the folder.
    cache: the folder that frozen features are kept in.
    Errors: UsageError for a setting that would change what was trained, or a folder in use; RunFolderError; DataError
    where no data of a suite are at hand.
    """
    folder = RunDir(path)
    trained = recipe_as_run(folder)
    recipe = override(trained if suite is None else replace(trained, evals=evaluations(suite)), settings)
    foreign = [name for name in differences(trained, recipe) if not name.startswith(_EVALUATED)]
    if foreign:
        raise UsageError(
            f"an evaluation changes evals, eval.*, data.* and the test side of video.*, not {', '.join(foreign)}"
        )
    accelerator = make_accelerator(recipe)
    with alone_in(folder, accelerator) if save else contextlib.nullcontext():
        _, data, network = load_run(path)  # built for the classes it was trained on
        results = folder.results()
        if is_named(suite):
            recipe = replace(recipe, evals=seen_by(recipe.evals, data.cfg.image_size, data.mean, data.std))
        elif recipe != trained:
            data = recipe_data(recipe)
        missing: dict[int, str] | None = {} if is_named(suite) else None
        context = evaluation_context(recipe, data, network, accelerator, missing, cache=cache)
        recipe = replace(recipe, evals=at_hand(recipe, missing or {}))
        refuse_other_classes(recipe, context, results.get("data", {}).get("classes"))
        rows = measure(recipe, context, results["training"]["selected"])
        if save and accelerator.is_main_process:
            write_details(recipe, context, folder)
            fresh = {row.identity for row in rows}
            kept = [row for row in results["metrics"] if identity(row) not in fresh]
            metrics = kept + [row.to_json() for row in rows]
            write_json(folder.path / "results.json", results | {"metrics": metrics})
    return rows if save else [replace(row, extra=_without_file(row.extra)) for row in rows]


def _without_file(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extra.items() if name != "details"}


def at_hand(recipe: Recipe, missing: Mapping[int, str]) -> tuple[Evaluation, ...]:
    """The evaluations with data; the others are named in warnings. missing: see `evaluation_context`."""
    for text in dict.fromkeys(missing.values()):
        _logger.warning("not measured: %s", text)
    found = tuple(one for one in recipe.evals if id(one) not in missing)
    if missing and not found:
        raise DataError(f"none of the {len(missing)} data sets of the suite is at hand; the warnings say what to fetch")
    return found


def evaluation_context(
    recipe: Recipe,
    data: DataModule,
    network: nn.Module,
    accelerator: Any,
    missing: dict[int, str] | None = None,
    *,
    load: Callable[[Data], DataModule] | None = None,
    cache: Path | None = None,
) -> Context:
    """The material of the recipe's evaluations; their data sets are read, and unfit ones refused.

    It is made before the training: a typo must not cost one. missing: gets what is said of an evaluation, by its `id`,
    whose data cannot be read; None raises that. load: reads a data set as the network sees it; None for `recipe_data`.
    cache: see `Context`.
    """
    context = Context(
        network,
        data,
        recipe.eval,
        accelerator,
        load=load or (lambda cfg: recipe_data(recipe, cfg)),
        cache=cache,
        tune=lambda own, other, optim, train: tuned(recipe, own, other, optim, train, accelerator),
    )
    measured: dict[tuple[str, ...], str] = {}
    for evaluation in recipe.evals:
        try:
            data = context.data(evaluation)
        except DataError as error:
            if missing is None:
                raise
            missing[id(evaluation)] = str(error)
            continue
        evaluation.check(data)
        for metric in evaluation.metrics:
            number = metric, data.cfg.name, data.cfg.labels, _settings(evaluation, data) or ""
            if number in measured:
                raise ConfigError(
                    f"evals: {measured[number]} and {tag_of(evaluation)} would both report {metric} on {data} under "
                    "the same settings, and a run holds one such number: leave one out"
                )
            measured[number] = tag_of(evaluation)
    return context


def measure(recipe: Recipe, context: Context, selected: str) -> list[Result]:
    """Every metric of the recipe's evaluations, as rows of results.json. selected: the kind of weights.

    Errors: DivergedError for a value that is not finite; nothing is written then.
    """
    rows: list[Result] = []
    context.network.to(context.accelerator.device)
    for evaluation in recipe.evals:
        data, began = context.data(evaluation), len(rows)
        for name, value, *place in evaluation.run(context):
            at = place[0] if place else Place()
            if name not in evaluation.metrics:
                known = ", ".join(evaluation.metrics) or "none"
                raise ConfigError(f"{tag_of(evaluation)} reports {name!r}, but its metrics are {known}")
            metric = evaluation.metrics[name]
            rows.append(
                Result(
                    metric=name,
                    value=round(float(value), 6),
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                    dataset=data.cfg.name,
                    dataset_config=at.labels or data.cfg.labels,
                    split=at.split or recipe.eval.split,
                    protocol=f"{metric.meaning.format(views=evaluation.views(data))}; {selected}",
                    seed=recipe.train.seed,
                    fold=data.fold,
                    sigma=data.sigma,
                    settings=_settings(evaluation, data),
                    block=at.block or None,
                )
            )
        extra, details = context.noted(evaluation)
        if details is not None:
            extra = extra | {"details": _file_of(evaluation, context)}
        rows[began:] = [replace(row, extra=extra) for row in rows[began:]]
    broken = [f"{row.metric} on {row.split}" for row in rows if not math.isfinite(row.value)]
    if broken:
        raise DivergedError(
            f"not finite: {', '.join(broken)}. The network gives no usable numbers; lower optim.lr or the "
            "regularizer's alpha and beta, or set train.clip_norm, and train again"
        )
    return rows


def write_details(recipe: Recipe, context: Context, folder: RunDir) -> None:
    """The files that rows of `evaluate` name as `details`."""
    for evaluation in recipe.evals:
        _, details = context.noted(evaluation)
        if details is not None:
            write_json(folder.path / _file_of(evaluation, context), details)


def _file_of(evaluation: Evaluation, context: Context) -> str:
    """Name in the run folder of what an evaluation tells in detail: one for each number that a run may hold."""
    data = context.data(evaluation)
    parts = [tag_of(evaluation), data.cfg.name, data.cfg.labels, _settings(evaluation, data), context.settings.split]
    parts += [f"fold {data.fold}"] * (data.fold is not None) + [f"sigma {data.sigma}"] * (data.sigma is not None)
    return f"{DETAILS}/{re.sub(r'[^A-Za-z0-9.+]+', '_', ' '.join(filter(None, parts)))}.json"


def _settings(evaluation: Evaluation, data: DataModule) -> str | None:
    """What an evaluation's settings are where they are not its defaults: "penalty 10"."""
    found = evaluation.settings(data)
    return ", ".join(f"{name} {_plain(value)}" for name, value in found.items()) or None


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def lost_files(data: DataModule, accelerator: Any) -> dict[str, list[str]]:
    """The files unreadable to any process so far: "train", "val" or "test" -> paths, without empty parts.
    Every process must call it."""
    flags: Tensor | None = data.lost()
    if flags is None:
        return {}
    # Each process met files of its own.
    return data.lost_paths(accelerator.reduce(flags.to(accelerator.device).long(), "sum").cpu())


def refuse_other_classes(recipe: Recipe, context: Context, trained: Sequence[str] | None) -> None:
    """UsageError where logits would be compared with labels of other classes. A probe learns its own."""
    for evaluation in recipe.evals:
        data = context.data(evaluation)
        tested = data.class_names
        if not evaluation.uses_classifier or not trained or list(trained) == list(tested):
            continue
        if len(trained) == len(tested) >= _IMAGENET:  # whose classes are spelt in several ways
            continue
        other = next((name for name, own in zip(tested, trained) if name != own), None)
        differ = f"such as {other!r}" if other else f"{len(tested)} instead of {len(trained)}"
        raise UsageError(
            f"{data.cfg.name} has other classes than this network was trained for ({differ}), so its own classifier "
            "says nothing there; --set evals=linear_probe measures the features"
        )
