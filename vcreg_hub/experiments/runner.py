"""Several runs side by side: a grid of recipes and seeds, run or resumed.

Layout: <folder>/<label>/seed<k>/ is one run. A label says what the recipe changes ("alpha=0.64,beta=0.08").
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Recipe, differences, override, to_json
from ..errors import UsageError, VCRegError
from ..files import write_text
from ..rundir import RunDir

Say = Callable[[str], None]


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
            # A label is one folder's name, also where a value is a path.
            named = (
                (path.rpartition(".")[2], value.replace("/", "%2F")) for path, value in zip(grid, values, strict=True)
            )
            name = ",".join(f"{leaf}={value}" for leaf, value in named)
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
    # Whoever sets them knows better.
    environment = {"OMP_NUM_THREADS": str(threads), "VCREG_THREADS": str(threads)} | os.environ
    with log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"see {log}"


def check(failed: Sequence[str]) -> None:
    """Raise for the cells that failed, so that no table is read as complete when it is not."""
    if failed:
        raise VCRegError(f"{len(failed)} runs failed; the others are kept:\n  " + "\n  ".join(failed))
