"""Reports finished runs: gathers them, tabulates mean and spread of every metric, and keeps all of it as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..config import Recipe, to_dict
from ..errors import RunFolderError
from ..files import write_json, write_text
from ..paper import PAPER_NUMBERS
from ..rundir import PLANNED, RunDir
from .aggregate import (
    BETWEEN_BASELINES,
    Column,
    Group,
    Summary,
    differences,
    over_seeds,
    over_splits,
    recipe_id,
    why_absent,
)  # fmt: skip
from .axis_figure import draw_axis
from .figures import draw_metrics, draw_noise
from .rows import read_results
from .tables import Table

# Rows that older files have among their metrics, and that are settings. They are read, and stay out of tables.
_SETTINGS = ("logreg_penalty",)


def summarise(folders: Iterable[Path], baselines: Mapping[str, str] | None = None) -> list[Summary]:
    """A summary for each (recipe apart from its seed, metric) of the runs in `folders`.

    folders: run folders, or folders that hold them at any depth. Runs whose recipes differ in anything but the seed are
    never pooled. baselines: `recipe_id` -> that of the baseline; None compares each recipe with VCReg to the one that
    differs in nothing else. Errors: RunFolderError when no complete run is found.
    """
    runs = find_runs(folders)
    recipes = [run.recipe() for run in runs]
    baselines = _baselines_of(recipes) if baselines is None else baselines
    labels: dict[str, str] = {}
    measured = []
    for run, recipe in zip(runs, recipes, strict=True):
        label = labels.setdefault(recipe_id(recipe), _label(run.path, labels.values()))
        group = Group.of(recipe, label)
        group = replace(group, baseline=baselines.get(group.id))
        results = read_results(run.results(), run.path / "results.json")
        measured.append((group, recipe.train.seed, results))
    return over_seeds(measured)


def find_runs(folders: Iterable[Path]) -> list[RunDir]:
    """Finds the finished runs in `folders`, at any depth, in order of path. Errors: RunFolderError for none, and for a
    folder that is not there."""
    folders = list(folders)
    if absent := [str(folder) for folder in folders if not Path(folder).is_dir()]:
        raise RunFolderError(f"no complete run: there is no folder {', '.join(absent)}")
    inside = {found.parent for folder in folders for found in Path(folder).rglob("results.json")}
    runs = [run for path in sorted(inside) if (run := RunDir(path)).complete()]
    if not runs:
        planned = len(missing_runs(folders))
        among = f" (of {planned} planned)" if planned else ""
        raise RunFolderError(f"no complete run below {', '.join(map(str, folders))}{among}")
    return runs


def missing_runs(folders: Iterable[Path]) -> list[str]:
    """The planned, incomplete runs below `folders`, each with its state.

    A sweep or experiment plans a run by its recipe beside the folder: `<label>/seed0.recipe.json`.
    """
    plans = sorted(plan for folder in folders for plan in Path(folder).rglob(f"*{PLANNED}"))
    runs = [RunDir(plan.with_name(plan.name.removesuffix(PLANNED))) for plan in plans]
    return [f"{run.path} ({'begun' if run.begun() else 'not begun'})" for run in runs if not run.complete()]


def tabulated(summaries: Sequence[Summary], metrics: Sequence[str] | None = None) -> Table:
    """A line for each label and a column for each metric: mean, standard deviation for n > 1, n.

    Last, for each group whose baseline is there, the differences seed by seed with the 95% interval of their mean.
    """
    summaries = [one for one in summaries if one.quantity.block is None]
    columns = [
        of
        for of in dict.fromkeys(one.column for one in summaries)
        if (of[0] not in _SETTINGS if metrics is None else of[0] in metrics)
    ]
    names = _names(summaries)
    cells: dict[str, dict[Column, Summary]] = {}
    for one in summaries:
        cells.setdefault(one.group.id, {})[one.column] = one
    rows = []
    for group, found in cells.items():
        texts = [found[of].shown if of in found else why_absent(of, found.values()) for of in columns]
        rows.append((names[group], *texts, max((found[of].n for of in columns if of in found), default=0)))
    compared: dict[str, dict[Column, tuple[str, int]]] = {}
    for pair in differences(summaries):
        label = f"{names[pair.one.group.id]} - {names[pair.baseline.group.id]}"
        compared.setdefault(label, {})[pair.one.column] = (pair.shown, pair.n)
    for label, by_column in compared.items():
        texts = [by_column[of][0] if of in by_column else "" for of in columns]
        rows.append((label, *texts, max(n for _, n in by_column.values())))
    several = len({data for *_, data in columns}) > 1
    named = (f"{metric} ({f'{data}, ' if several else ''}{config}, {split})" for metric, config, split, data in columns)
    return Table.of(["run", *named, "seeds"], rows)


def write_report(folder: Path, summaries: Sequence[Summary]) -> None:
    """summary.json, report.md and report.png in `folder`; noise.png for runs with different noise, axis.png for runs
    that vary another setting.

    Where a recipe was run on several train/test splits, summaries of their mean follow those of `summaries`.
    """
    paper = {(n.architecture, n.data): (n.plain, n.vcreg) for n in PAPER_NUMBERS if n.table == "Table 2"}
    if not draw_noise(summaries, folder / "noise.png", paper):
        draw_axis(summaries, folder / "axis.png")
    summaries = [*summaries, *over_splits(summaries)]
    rows, compared = ([one.to_json() for one in found] for found in (summaries, differences(summaries)))
    write_json(folder / "summary.json", {"format": 1, "rows": rows, "differences": compared})
    write_text(folder / "report.md", tabulated(summaries).markdown() + "\n")
    draw_metrics(summaries, folder / "report.png")


def read_summary(folder: Path) -> list[Summary]:
    """The summaries by `write_report`. Errors: RunFolderError."""
    try:
        rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
        return [Summary.from_json(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder} has no readable summary.json: {error}") from None


def _names(summaries: Iterable[Summary]) -> dict[str, str]:
    """Group id -> its label, with the id where reports that were put together use one label twice."""
    labels = {one.group.id: one.group.label for one in summaries}
    taken = Counter(labels.values())
    return {group: label if taken[label] == 1 else f"{label} ({group[:6]})" for group, label in labels.items()}


def _label(run: Path, taken: Iterable[str]) -> str:
    """The folder that names a run, <label>/seed<k> or <label>; the whole path where another recipe has that name."""
    name = run.parent.name if run.name.startswith("seed") else run.name
    return str(run) if name in taken else name


def _baselines_of(recipes: Iterable[Recipe]) -> dict[str, str]:
    """`recipe_id` of each recipe with VCReg -> that of the one without it that differs in nothing else but where it
    was placed, its name and what is incidental. Of several such the first counts."""
    recipes = list(recipes)
    plain: dict[str, str] = {}
    for recipe in recipes:
        if recipe.vcreg is None:
            plain.setdefault(_apart_from_vcreg(recipe), recipe_id(recipe))
    with_vcreg = (recipe for recipe in recipes if recipe.vcreg is not None)
    return {recipe_id(recipe): plain[key] for recipe in with_vcreg if (key := _apart_from_vcreg(recipe)) in plain}


def _apart_from_vcreg(recipe: Recipe) -> str:
    """The recipe without what tells it from its baseline; the split does not count to that here."""
    values = to_dict(recipe)
    for path in set(BETWEEN_BASELINES) - {"video.split"}:
        room, _, name = path.rpartition(".")
        (values.get(room) or {} if room else values).pop(name, None)
    return json.dumps(values, sort_keys=True)
