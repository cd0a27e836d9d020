"""Grids: every combination of values and seeds as trials, and grids and seeds as the command line spells them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Recipe, override
from ..errors import UsageError


@dataclass(frozen=True)
class Trial:
    """One run of a study. label: names its folder below the study's. settings: the changed values, path.to.field ->
    value as on the command line. A trial is read here or in its run's recipe.json, never off its label."""

    label: str
    recipe: Recipe
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        return Path(self.label) / f"seed{self.recipe.train.seed}"


def expand_grid(
    recipe: Recipe, grid: Mapping[str, Sequence[str]], seeds: Iterable[int], label: str | None = None
) -> list[Trial]:
    """Every combination of the grid's values with every seed, ordered so that each combination's first seed comes
    before any second one: an interrupted study has then seen the whole grid.

    grid: path.to.field -> values as on the command line. label: goes before a combination's values. Errors: those of
    `config.override`; UsageError where two combinations are the same run.
    """
    found: list[Trial] = []
    for seed in seeds:
        for values in itertools.product(*grid.values()):
            settings = tuple(zip(grid, values, strict=True))
            changed = override(recipe, [f"{path}={value}" for path, value in settings])
            changed = replace(changed, train=replace(changed.train, seed=seed))
            # A label is one folder's name, also where a value is a path.
            named = (f"{path.rpartition('.')[2]}={value}".replace("/", "%2F") for path, value in settings)
            trial = Trial(",".join(filter(None, (label, *named))) or recipe.name, changed, settings)
            if duplicate := next((other for other in found if other.recipe == changed), None):
                raise UsageError(f"the grid repeats a run: {trial.path} is {duplicate.path}")
            found.append(trial)
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
    """Raise UsageError for a seed among a study's settings: its seeds would overrule it."""
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
