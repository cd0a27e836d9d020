"""Averages results over seeds and over train/test splits, and takes differences to a baseline seed by seed.

A worked example, one metric on two splits:

    seed          0     1          over_seeds    split 1: 61.5 (n = 2), split 2: 70.5 (n = 2)
    split 1     60.0  63.0         over_splits   a seed's value is its mean over the splits: 65.0, 67.0
    split 2     70.0  71.0         difference    65.0 - 64.0 = 1.0, 67.0 - 63.5 = 3.5; mean 2.25 (n = 2)
    baseline    64.0  63.5                       (its own means over the same splits)
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..config import Recipe, Regularizer, VCReg, to_json
from ..files import JSON
from .rows import Quantity, Result

# Settings that change nothing of what was trained: where the data lay, how many workers read it.
_INCIDENTAL = ("data.root", "data.workers", "eval.batch_size")
# In what the runs of one mean may differ, and in what besides a run and its baseline may.
BETWEEN_SEEDS = (*_INCIDENTAL, "name", "train.seed", "video.split")
BETWEEN_BASELINES = (*BETWEEN_SEEDS, "vcreg", "where", "assumed")
# What a row of summary.json repeats of a row of results.json.
_NAMED = ("metric", "unit", "higher_is_better", "dataset", "dataset_config", "split")

_WHERE_GIVEN = ("fold", "sigma", "settings", "block")

# (metric, labels, split, data set): what may be compared.
Column = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one recipe, apart from the seed.

    id: of the recipe. baseline: id of the group this one is compared to, None without one. family: of the recipe apart
    from its noise, its split and its name. noise: standard deviation on the training clips, None for images.
    """

    label: str
    id: str
    baseline: str | None = None
    recipe: str = ""
    model: str | None = None
    vcreg: str | None = None
    family: str | None = None
    noise: float | None = None
    noise_place: str | None = None

    @classmethod
    def of(cls, recipe: Recipe, label: str) -> Group:
        """The group of a recipe's runs, without a baseline."""
        vcreg, video = recipe.vcreg, recipe.video
        group = cls(
            label=label,
            id=recipe_id(recipe),
            recipe=recipe.name,
            model=recipe.model.name,
            vcreg=None if vcreg is None else _named(vcreg),
        )
        if video is None:
            return group
        clean = replace(recipe, name="-", video=replace(video, noise=0.0, split=1), train=replace(recipe.train, seed=0))
        return replace(group, family=_hash(to_json(clean)), noise=video.noise, noise_place=video.noise_place)


def _named(regularizer: Regularizer) -> str:
    """A regularizer as tables and legends name it."""
    if isinstance(regularizer, VCReg):
        return f"alpha {regularizer.alpha:g}, beta {regularizer.beta:g}"
    return regularizer.tag


@dataclass(frozen=True)
class Sample:
    """Values by seed: `values[i]` belongs to `seeds[i]`, seeds rising."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for one seed."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean by Student's t with n - 1 degrees of freedom; None for one seed."""
        if self.std is None:
            return None
        from scipy.stats import t

        half = float(t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Summary(Sample):
    """One quantity of one group, over its seeds. folds: the splits under each value's mean; empty for none."""

    group: Group
    quantity: Quantity
    folds: tuple[int, ...] = ()

    @property
    def column(self) -> Column:
        """(metric, labels, split, data set): summaries of one column may be compared. A noise of the test alone is part
        of the labels."""
        one, trained = self.quantity, self.group.noise
        tested = one.sigma or 0.0
        noisy = trained is not None and tested != trained
        config = replace(one, sigma=None).full_config + (f", σ {tested:g}" if noisy else "")
        return one.metric, config, one.split, one.dataset

    @property
    def shown(self) -> str:
        """`83.10 ± 0.52 %`"""
        return f"{self.mean:.2f}{'' if self.std is None else f' ± {self.std:.2f}'} {self.quantity.unit}"

    def minus(self, baseline: Summary) -> Difference | None:
        """`self - baseline`, seed by seed; None without a common seed or with other splits."""
        own, other = (dict(zip(side.seeds, side.values, strict=True)) for side in (self, baseline))
        shared = own.keys() & other.keys()
        if not shared or self.folds != baseline.folds:
            return None
        return Difference(*_by_seed({seed: own[seed] - other[seed] for seed in shared}), self, baseline)

    def to_json(self) -> JSON:
        """A row of summary.json."""
        group, one = self.group, self.quantity
        noise = {"trained_sigma": group.noise, "noise_place": group.noise_place, "family": group.family}
        row: JSON = {"label": group.label, "recipe": group.recipe, "model": group.model, "vcreg": group.vcreg}
        row |= {} if group.noise is None else noise
        row |= {name: getattr(one, name) for name in _NAMED}
        row |= {name: value for name in _WHERE_GIVEN if (value := getattr(one, name)) is not None}
        row |= {"mean": self.mean, "std": self.std, "n": self.n, "interval": _listed(self.interval)}
        row |= {"seeds": list(self.seeds), "values": list(self.values)}
        row |= {"folds": list(self.folds)} if self.folds else {}
        return row | {"protocol": one.protocol, "group": group.id, "baseline": group.baseline}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Summary:
        """The summary of `to_json`'s values. Errors: KeyError, TypeError."""
        label = row["label"]
        # Rows of before groups had ids come from studies whose labels begin with plain or vcreg.
        head, comma, rest = label.partition(",")
        old_baseline = f"plain{comma}{rest}" if head == "vcreg" else None
        group = Group(
            label=label,
            id=row.get("group", label),
            baseline=row["baseline"] if "group" in row else old_baseline,
            noise=row.get("trained_sigma"),
            recipe=row.get("recipe", ""),
            **{name: row.get(name) for name in ("model", "vcreg", "family", "noise_place")},
        )
        named = {name: row[name] for name in _NAMED} | {name: row.get(name) for name in _WHERE_GIVEN}
        quantity = Quantity(protocol=row.get("protocol", ""), **named)
        return cls(tuple(row["seeds"]), tuple(row["values"]), group, quantity, tuple(row.get("folds", ())))


@dataclass(frozen=True)
class Difference(Sample):
    """A group minus its baseline, over their common seeds. The two start alike and see their data in the same
    order, so much of a seed's effect cancels."""

    one: Summary
    baseline: Summary

    @property
    def label(self) -> str:
        return f"{self.one.group.label} - {self.baseline.group.label}"

    @property
    def shown(self) -> str:
        """`+0.49 ± 0.39 points (95% CI +0.00 to +0.97)`: mean, sample standard deviation, interval of the mean."""
        unit = self.one.quantity.unit
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        interval = "" if self.interval is None else " (95% CI {} to {})".format(*map(_signed, self.interval))
        return f"{_signed(self.mean)}{spread} {'points' if unit == '%' else unit}{interval}"

    def to_json(self) -> JSON:
        """A row of the differences in summary.json."""
        return {
            "label": self.label,
            **{name: getattr(self.one.quantity, name) for name in _NAMED},
            **{"mean": self.mean, "std": self.std, "n": self.n, "interval": _listed(self.interval)},
            **{"seeds": list(self.seeds), "values": list(self.values)},
            **{"group": self.one.group.id, "baseline": self.baseline.group.id},
        }


def recipe_id(recipe: Recipe) -> str:
    """Twelve hexadecimal digits, the same for recipes with a different seed alone.

    How often a state is saved and how long processes wait for one another changes nothing of what was trained.
    """
    apart: dict[str, Any] = {one.name: one.default for one in fields(recipe.train) if not one.compare}
    return _hash(to_json(replace(recipe, train=replace(recipe.train, seed=0, **apart))))


def over_seeds(runs: Iterable[tuple[Group, int, Sequence[Result]]]) -> list[Summary]:
    """A summary for each group and quantity, in order of appearance; a repeated seed counts once.

    runs: of each its group, its seed and its results.
    """
    groups: dict[str, Group] = {}
    pooled: dict[tuple[Any, ...], dict[int, Result]] = {}
    for group, seed, results in runs:
        groups.setdefault(group.id, group)
        for result in results:
            pooled.setdefault((group.id, result.identity), {})[seed] = result
    found = []
    for (named, _), by_seed in pooled.items():
        values = {seed: result.value for seed, result in by_seed.items()}
        first = next(iter(by_seed.values()))
        found.append(Summary(*_by_seed(values), groups[named], first.quantity))
    return found


def over_splits(summaries: Iterable[Summary]) -> list[Summary]:
    """For each recipe with runs on several train/test splits, a summary of each quantity's mean over the splits.

    A seed's value is its mean over the splits, of seeds that every split has. Recipes that differ in more than split
    and seed, and different noise, never meet.
    """
    groups: dict[tuple[Any, ...], dict[int, Summary]] = {}
    for one in summaries:
        if one.quantity.fold is not None:
            same = (one.group.family, one.group.noise, replace(one.quantity, fold=None).identity)
            groups.setdefault(same, {})[one.quantity.fold] = one
    found = (_mean_of_splits(folds) for folds in groups.values() if len(folds) > 1)
    return [one for one in found if one is not None]


def differences(summaries: Sequence[Summary]) -> list[Difference]:
    """The difference of every summary to its group's baseline among `summaries`, in their order."""
    there = {(one.group.id, one.quantity.identity): one for one in summaries}
    pairs = ((one, there.get((one.group.baseline or "", one.quantity.identity))) for one in summaries)
    found = (one.minus(baseline) for one, baseline in pairs if baseline is not None)
    return [one for one in found if one is not None]


def why_absent(column: Column, there: Iterable[Summary]) -> str:
    """Why finished runs have no value of a column, from the summaries of them that there are."""
    metric = column[0]
    elsewhere = [one.column for one in there if one.quantity.metric == metric]
    if not elsewhere:
        return f"its evaluations have no {metric}"
    _, config, split, data = elsewhere[0]
    return f"measured on {data}, {config} labels, {split}"


def _mean_of_splits(folds: dict[int, Summary]) -> Summary | None:
    seeds = set.intersection(*(set(one.seeds) for one in folds.values()))
    if not seeds:
        return None
    by_seed = [dict(zip(one.seeds, one.values, strict=True)) for one in folds.values()]
    values = {seed: statistics.fmean(of[seed] for of in by_seed) for seed in seeds}
    first, in_order = next(iter(folds.values())), [folds[fold].group for fold in sorted(folds)]
    # "plain,split=1" and "plain,split=2" are "plain".
    labels = [one.group.label.split(",") for one in folds.values()]
    common = ",".join(part for part in labels[0] if all(part in label for label in labels)) or first.group.recipe
    baselines = [group.baseline for group in in_order if group.baseline]
    group = replace(
        first.group,
        label=f"{common}, mean of {len(folds)} splits",
        id="+".join(group.id for group in in_order),
        baseline="+".join(baselines) if len(baselines) == len(folds) else None,
    )
    return Summary(*_by_seed(values), group, replace(first.quantity, fold=None), tuple(sorted(folds)))


def _by_seed(values: dict[int, float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    seeds = tuple(sorted(values))
    return seeds, tuple(values[seed] for seed in seeds)


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # not -0.00


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
