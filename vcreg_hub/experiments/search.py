"""Searches a recipe's settings: drawn at random, or proposed by Optuna from earlier results.

A space is spelled as `vcreg.alpha=0.1..10:log`, `optim.lr=1e-4..1e-2`, `train.epochs=5..20`, or `optim.name=adamw,sgd`.
Optuna judges by held-out training data. The samples that are tested choose nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Recipe, override
from ..errors import ConfigError, UsageError
from ..results.aggregate import Summary, recipe_id
from ..results.report import summarise
from .grid import Trial, expand_grid, parse_grid

# Digits of a drawn number, which its folder's name and its command have too.
_DIGITS = 4


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included. log: evenly spread in their logarithm. whole: whole numbers only."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def spelled(self, share: float) -> str:
        """The number at a share from 0 to 1 of the way, as the command line spells it.

        >>> Range(0.01, 100, log=True).spelled(0.5), Range(1, 4, whole=True).spelled(0.99)
        ('1', '4')
        """
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high + self.whole) - math.log(self.low)))
        else:
            value = self.low + share * (self.high + self.whole - self.low)
        return str(min(int(value), int(self.high))) if self.whole else f"{value:.{_DIGITS}g}"


Space = Mapping[str, Range | Sequence[str]]


def parse_space(settings: Sequence[str], recipe: Recipe) -> dict[str, Range | Sequence[str]]:
    """Path -> a range, or the values to choose among. Errors: UsageError; those of `config.override` for a field.

    A range is one of whole numbers where its field of the recipe takes no others.
    """
    choices = parse_grid(settings)
    return {path: _range(path, values[0], recipe) if ".." in values[0] else values for path, values in choices.items()}


def draw_random(space: Space, count: int, seed: int = 0) -> list[tuple[tuple[str, str], ...]]:
    """`count` different combinations of settings, the same for the same seed. Errors: UsageError for too small a space.

    The first ones of a larger count are those of a smaller one.
    """
    stream = random.Random(seed)
    found: dict[tuple[tuple[str, str], ...], None] = {}
    for _ in range(100 * count):
        if len(found) == count:
            break
        drawn = ((path, _drawn(values, stream.random())) for path, values in space.items())
        found.setdefault(tuple(drawn))
    if len(found) < count:
        raise UsageError(f"the space has fewer than {count} different combinations; lower --trials or use --grid")
    return list(found)


def plain_trials(recipe: Recipe, settings: Iterable[tuple[tuple[str, str], ...]], seeds: Sequence[int]) -> list[Trial]:
    """The recipe without a regularizer, once for each combination of its other settings.

    Errors: UsageError where the recipe has none to leave out.
    """
    if recipe.vcreg is None and not any(
        path.startswith("vcreg") for combination in settings for path, _ in combination
    ):
        raise UsageError("--plain adds the recipe without VCReg, and this recipe has none")
    found: list[Trial] = []
    others = dict.fromkeys(
        tuple((path, value) for path, value in combination if not _is_of_regularizer(path)) for combination in settings
    )
    for combination in others:
        found += trials_of(override(recipe, ["vcreg=null"]), [combination], seeds, "plain")
    return found


def trials_of(
    recipe: Recipe, settings: Iterable[tuple[tuple[str, str], ...]], seeds: Sequence[int], label: str | None = None
) -> list[Trial]:
    """A trial for each combination of settings and each seed, the first seed of all of them before any second one."""
    combinations = list(settings)
    by_seed = (
        trial
        for seed in seeds
        for combination in combinations
        for trial in expand_grid(recipe, {path: [value] for path, value in combination}, [seed], label)
    )
    return list(by_seed)


def search_with_optuna(
    recipe: Recipe,
    space: Space,
    *,
    metric: str,
    count: int,
    at_once: int,
    seeds: Sequence[int],
    out: Path,
    run: Callable[[Sequence[Trial]], None],
    seed: int = 0,
) -> tuple[Summary, Trial]:
    """Has Optuna propose `count` combinations, `at_once` at a time; returns the one with the best mean of `metric`.

    recipe: measures on held-out training data (`held_out`). seeds: each combination is run with all of them. run:
    trains trials below `out`. The sampler (TPE) is a function of `seed` and of the results, so the same call goes on
    where an interrupted one stopped. Errors: UsageError without Optuna, or for a metric that no run reports.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=at_once > 1)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    best: tuple[Summary, Trial] | None = None
    for first in range(0, count, at_once):
        asked = [study.ask() for _ in range(min(at_once, count - first))]
        proposed = [tuple((path, _proposed(trial, path, values)) for path, values in space.items()) for trial in asked]
        batch = trials_of(recipe, dict.fromkeys(proposed), seeds)
        run(batch)
        by_id = {one.group.id: one for one in summarise([out]) if one.quantity.metric == metric}
        for asked_trial, settings in zip(asked, proposed, strict=True):
            trial = next(trial for trial in batch if trial.settings == settings)
            id_ = recipe_id(trial.recipe)
            if id_ not in by_id:
                raise UsageError(f"no run reports {metric}; name one of the recipe's metrics with --metric")
            found = by_id[id_]
            # Optuna maximises; a metric that is better low is told with its sign turned.
            sign = 1 if found.quantity.higher_is_better else -1
            study.tell(asked_trial, sign * found.mean)
            if best is None or sign * found.mean > sign * best[0].mean:
                best = found, trial
    assert best is not None
    return best


def held_out(recipe: Recipe) -> Recipe:
    """The recipe, measured on held-out training data instead of the test data. Errors: UsageError for none held out."""
    if not recipe.data.val_fraction:
        raise UsageError("a search is judged on held-out training data: add --set data.val_fraction=0.2")
    return override(recipe, ["eval.split=val"])


def _range(path: str, text: str, recipe: Recipe) -> Range:
    body, _, kind = text.partition(":")
    low, _, high = body.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise UsageError(f"{path}: a range is LOW..HIGH or LOW..HIGH:log, got {text!r}") from None
    log = kind == "log"
    if (
        kind not in ("", "log")
        or not (math.isfinite(ends[0]) and ends[0] < ends[1] < math.inf)
        or (log and ends[0] <= 0)
    ):
        raise UsageError(f"{path}: a range is LOW..HIGH with LOW below HIGH, and above 0 with :log, got {text!r}")
    try:
        override(recipe, [f"{path}={ends[0] + 0.4567 * (ends[1] - ends[0])!r}"])
        whole = False
    except ConfigError:
        whole = True
    if whole and not all(end.is_integer() for end in ends):
        raise UsageError(f"{path} takes whole numbers, got the range {text!r}")
    for end in ends:
        override(recipe, [f"{path}={int(end) if whole else end!r}"])
    return Range(*ends, log=log, whole=whole)


def _drawn(values: Range | Sequence[str], share: float) -> str:
    return values.spelled(share) if isinstance(values, Range) else values[int(share * len(values))]


def _proposed(trial: Any, path: str, values: Range | Sequence[str]) -> str:
    if not isinstance(values, Range):
        return str(trial.suggest_categorical(path, list(values)))
    if values.whole:
        return str(trial.suggest_int(path, int(values.low), int(values.high), log=values.log))
    return f"{trial.suggest_float(path, values.low, values.high, log=values.log):.{_DIGITS}g}"


def _is_of_regularizer(path: str) -> bool:
    return path in ("vcreg", "where") or path.startswith("vcreg.")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("--search optuna needs Optuna: pip install 'vcreg_hub[optuna]'") from None
    return optuna
