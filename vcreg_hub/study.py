"""Several runs side by side: a grid of recipes and seeds, run or resumed, summarised as mean and standard deviation.

Layout: <folder>/<label>/seed<k>/ is one run. A label says what the recipe changes ("alpha=0.64,beta=0.08").
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .analysis.figures import column
from .config import Recipe, differences, override, to_json
from .errors import RunFolderError, UsageError, VCRegError
from .rundir import RunDir, write_json, write_text

Say = Callable[[str], None]
# What a summary row repeats of a metric's row in results.json.
NAMED = ("metric", "unit", "higher_is_better", "dataset", "dataset_config", "split")
# What it repeats where the metric's row has it.
SOMETIMES = ("fold", "sigma")


@dataclass(frozen=True)
class Cell:
    """One run of a study: where it goes below the study's folder, and what it is."""

    label: str
    recipe: Recipe

    @property
    def path(self) -> Path:
        return Path(self.label) / f"seed{self.recipe.train.seed}"


def cells(
    recipe: Recipe, grid: Mapping[str, Sequence[str]], seeds: Iterable[int], label: str | None = None
) -> list[Cell]:
    """Every combination of the grid's values with every seed, ordered so that each combination's first seed comes
    before any second one: an interrupted study has then seen the whole grid.

    grid: path.to.field -> values as on the command line. label: goes before a combination's values. Errors: those of
    `config.override`; UsageError where two combinations are the same run.
    """
    found: list[Cell] = []
    for seed in seeds:
        for values in itertools.product(*grid.values()):
            settings = [f"{path}={value}" for path, value in zip(grid, values, strict=True)]
            name = ",".join(f"{path.rpartition('.')[2]}={value}" for path, value in zip(grid, values, strict=True))
            changed = override(recipe, settings)
            changed = replace(changed, train=replace(changed.train, seed=seed))
            cell = Cell(",".join(filter(None, (label, name))) or recipe.name, changed)
            if twin := next((other for other in found if other.recipe == changed), None):
                raise UsageError(f"the grid repeats a run: {cell.path} is {twin.path}")
            found.append(cell)
    return found


def parse_grid(settings: Sequence[str]) -> dict[str, list[str]]:
    """`["vcreg.alpha=1.28,0.64"]` as {"vcreg.alpha": ["1.28", "0.64"]}. Errors: UsageError.

    >>> parse_grid(["vcreg.alpha=1.28,0.64"])
    {'vcreg.alpha': ['1.28', '0.64']}
    """
    grid: dict[str, list[str]] = {}
    for setting in settings:
        path, _, values = setting.partition("=")
        path = path.strip()
        if path in grid:
            raise UsageError(f"{path} is in the grid twice; give its values in one --grid, between commas")
        grid[path] = [value.strip() for value in _at_commas(values) if value.strip()]
        if not path or not grid[path]:
            raise UsageError(f"a grid is path.to.field=value,value,..., got {setting!r}")
    refuse_seed(grid)
    return grid


def refuse_seed(paths: Iterable[str]) -> None:
    """Raise UsageError where a study's settings name the seed, which its seeds would overrule."""
    if "train.seed" in paths:
        raise UsageError("a study's seeds are given with --seeds, such as --seeds 0,1,2, not as train.seed")


def _at_commas(text: str) -> list[str]:
    """The text split at its commas, but for those within brackets: `[0.9,0.99]` is one value."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def parse_seeds(text: str) -> list[int]:
    """`"0,1,2"` as [0, 1, 2]. Errors: UsageError."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"seeds are whole numbers such as 0,1,2, got {text!r}") from None
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds repeat in {text!r}: each run must differ")
    return seeds


def run_cells(todo: Sequence[Cell], out: Path, jobs: int = 1, say: Say = print) -> list[str]:
    """Run the cells that are not complete below `out`, `jobs` processes at a time; returns what failed.

    Each cell is a process of its own (`vcreg train`), so that one that fails takes no other with it, and each gets its
    share of the CPU's threads. Interrupting loses at most the running epochs; the same call goes on from there.
    """
    waiting = [cell for cell in todo if not _done(cell, RunDir(out / cell.path))]
    say(f"{len(todo)} runs, {len(todo) - len(waiting)} complete already, {jobs} at a time")
    running: list[tuple[Cell, subprocess.Popen[bytes], float]] = []
    failed: list[str] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running.append((cell, _start(cell, out, threads), time.monotonic()))
            time.sleep(0.2)
            for entry in [e for e in running if e[1].poll() is not None]:
                running.remove(entry)
                cell, process, started = entry
                minutes = (time.monotonic() - started) / 60
                if process.returncode:
                    failed.append(f"{cell.path}: {_last_line(out / cell.path.parent / f'{cell.path.name}.log')}")
                    say(f"failed  {failed[-1]}")
                else:
                    say(f"done    {cell.path}  {minutes:.1f} min, {len(waiting) + len(running)} to go")
    finally:
        for _, process, _ in running:
            process.terminate()
        for _, process, _ in running:
            process.wait()
    return failed


def _done(cell: Cell, run: RunDir) -> bool:
    """Whether the cell's run is complete. Errors: UsageError when its folder holds another recipe's run."""
    if run.begun() and (there := run.recipe()) != cell.recipe:
        changed = ", ".join(differences(there, cell.recipe))
        raise UsageError(f"{run.path} holds another recipe's run (differs in {changed}); choose another --out")
    return run.complete()


def _start(cell: Cell, out: Path, threads: int) -> subprocess.Popen[bytes]:
    folder = out / cell.path
    recipe = folder.parent / f"{folder.name}.recipe.json"
    write_text(recipe, to_json(cell.recipe) + "\n")
    log = open(folder.parent / f"{folder.name}.log", "ab")
    command = [sys.executable, "-m", "vcreg_hub", "train", str(recipe), "--out", str(folder), "--no-bar"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "VCREG_THREADS": str(threads)}
    with log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"see {log}"


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
    if vcreg is not None:
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
    from . import pairs

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
    from .analysis.figures import bars
    from .analysis.noise_curves import draw
    from .folds import over_folds
    from .hub.paper import PAPER_NUMBERS

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


def check(failed: Sequence[str]) -> None:
    """Raise for the cells that failed, so that no table is read as complete when it is not."""
    if failed:
        raise VCRegError(f"{len(failed)} runs failed; the others are kept:\n  " + "\n  ".join(failed))
