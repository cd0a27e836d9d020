"""Runs summarised: mean and standard deviation over seeds of every metric, as rows, a table and figures."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Recipe, VCReg, to_json
from ..errors import RunFolderError, UsageError
from ..files import write_json, write_text
from ..rundir import RunDir
from . import pairs
from .figures import column

# What a summary row repeats of a metric's row in results.json.
NAMED = ("metric", "unit", "higher_is_better", "dataset", "dataset_config", "split")
# What it repeats where the metric's row has it.
SOMETIMES = ("fold", "sigma")


def summarise(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """One row for each (recipe apart from its seed, metric): mean, sample standard deviation, n and the seeds.

    folders: run folders, or folders that hold them at any depth. Runs whose recipes differ in anything but the seed are
    never pooled. Errors: RunFolderError when no complete run is found.
    """
    pooled: dict[tuple[str, ...], dict[str, Any]] = {}
    values: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    labels: dict[str, str] = {}
    runs = _runs(folders)
    if not runs:
        raise RunFolderError(f"no complete run below {', '.join(map(str, folders))}")
    for run in runs:
        recipe = run.recipe()
        identity = to_json(replace(recipe, train=replace(recipe.train, seed=0)))
        label = labels.setdefault(identity, _label(run.path, labels.values()))
        for metric in run.results()["metrics"]:
            named = {name: metric[name] for name in NAMED} | {n: metric[n] for n in SOMETIMES if n in metric}
            key = (identity, json.dumps(named))
            pooled.setdefault(key, {"label": label, "recipe": recipe.name, **_made_of(recipe), **named})
            values[key][recipe.train.seed] = metric["value"]
    return [row | spread(values[key]) for key, row in pooled.items()]


def _label(run: Path, taken: Iterable[str]) -> str:
    """The folder that names a run, <label>/seed<k> or <label>; the whole path where another recipe has that name."""
    name = run.parent.name if run.name.startswith("seed") else run.name
    return str(run) if name in taken else name


def _made_of(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe its summary rows repeat, so that figures can group them. family: recipes that differ in their
    noise, split and seed alone share it."""
    vcreg, video = recipe.vcreg, recipe.video
    made: dict[str, Any] = {"model": recipe.model.name, "vcreg": None}
    if isinstance(vcreg, VCReg):
        made["vcreg"] = f"alpha {vcreg.alpha:g}, beta {vcreg.beta:g}"
    if video is not None:
        clean = replace(recipe, name="", video=replace(video, noise=0.0, split=1), train=replace(recipe.train, seed=0))
        family = hashlib.sha256(to_json(clean).encode()).hexdigest()[:12]
        made |= {"trained_sigma": video.noise, "noise_place": video.noise_place, "family": family}
    return made


def _runs(folders: Iterable[Path]) -> list[RunDir]:
    inside = {found.parent for folder in folders for found in Path(folder).rglob("results.json")}
    return [RunDir(path) for path in sorted(inside) if RunDir(path).complete()]


def spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one seed), n, seeds and values of a summary row."""
    values = list(by_seed.values())
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": sorted(by_seed),
        "values": [by_seed[seed] for seed in sorted(by_seed)],
    }


def choose(rows: Sequence[Mapping[str, Any]], metric: str, split: str = "val") -> Mapping[str, Any]:
    """The row with the best mean of `metric` on `split`. Errors: UsageError for the test split or an absent metric."""
    if split == "test":
        raise UsageError("coefficients are chosen on held-out training images (--set eval.split=val), never on test")
    candidates = [row for row in rows if row["metric"] == metric and row["split"] == split]
    if not candidates:
        raise UsageError(
            f"no run reports {metric} on {split}; there are " + ", ".join(sorted({r["metric"] for r in rows}))
        )
    sign = 1 if candidates[0]["higher_is_better"] else -1
    return max(candidates, key=lambda row: sign * row["mean"])


def markdown(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str] | None = None) -> str:
    """A table with a line for each label and a column for each metric: mean, standard deviation where n > 1, n.

    Last, for each VCReg run that has its plain twin beside it, the differences seed by seed.
    """
    columns = [c for c in dict.fromkeys(map(column, rows)) if metrics is None or c[0] in metrics]
    cell = {(r["label"], *column(r)): r for r in rows}
    head = ["run", *(f"{m} ({config}, {split})" for m, config, split in columns), "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for label in dict.fromkeys(r["label"] for r in rows):
        found = [cell.get((label, *named)) for named in columns]
        count = max((r["n"] for r in found if r), default=0)
        lines.append("| " + " | ".join([label, *(shown(r) for r in found), str(count)]) + " |")
    units = {column(r): r["unit"] for r in rows}
    for label, by_column in pairs.differences(rows).items():
        differing = [pairs.shown(by_column[c], units[c]) if c in by_column else "" for c in columns]
        count = max(map(len, by_column.values()))
        lines.append("| " + " | ".join([label, *differing, str(count)]) + " |")
    return "\n".join(lines)


def shown(row: Mapping[str, Any] | None) -> str:
    """`83.10 ± 0.52 %`, or a dash for what has not been run."""
    if row is None:
        return "not yet run"
    spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
    return f"{row['mean']:.2f}{spread} {row['unit']}"


def write_report(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """summary.json, report.md and report.png in `folder`; noise.png where runs differ in their noise.

    Where a recipe was run on several train/test splits, rows of their mean follow those of `rows`.
    """
    from ..paper import PAPER_NUMBERS
    from .figures import bars
    from .folds import over_folds
    from .noise_curves import draw

    paper = {(n.architecture, n.data): (n.plain, n.vcreg) for n in PAPER_NUMBERS if n.table == "Table 2"}
    draw(rows, folder / "noise.png", paper)
    rows = [*rows, *over_folds(rows)]
    write_json(folder / "summary.json", {"format": 1, "rows": rows})
    write_text(folder / "report.md", markdown(rows) + "\n")
    bars(rows, folder / "report.png")


def read_summary(folder: Path) -> list[dict[str, Any]]:
    """The rows that `write_report` wrote. Errors: RunFolderError."""
    try:
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{folder} has no readable summary.json: {error}") from None
