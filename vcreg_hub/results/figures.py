"""Draws summaries as PNG, without a screen: bars of every metric, and accuracy against noise (Figures 3 and 4)."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import replacing
from .aggregate import Sample, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN, _REGULARIZED = "#7f8c99", "#1f6fb2"
_FURTHER = ("#c2571a", "#2a8a57", "#8a4fa3", "#b8930b")
_SCALES = {"normalised": "on normalised values", "pixels": "on pixels in [0, 1]"}


class _Panel(NamedTuple):
    """What shares a pair of axes: numbers that may be compared."""

    model: str
    dataset: str
    noise_place: str
    metric: str
    split: str


@dataclass(frozen=True)
class _Point(Sample):
    """One level of noise: values by seed, each the mean over `folds`, where the data set has several splits."""

    sigma: float
    folds: tuple[int, ...]


def draw_bars(summaries: Sequence[Summary], path: Path) -> None:
    """One panel a metric: the mean of each label as a bar, its standard deviation as a whisker, each seed as a dot.

    A metric that is the same in every run is left out, unless all are. An axis that starts above zero, where the
    differences would vanish otherwise, says so.
    """
    columns: dict[tuple[str, str, str, str], dict[str, Summary]] = {}
    for one in summaries:
        columns.setdefault(one.column, {})[one.group.label] = one
    differing = {of: found for of, found in columns.items() if len({v for s in found.values() for v in s.values}) > 1}
    labels = list(dict.fromkeys(one.group.label for one in summaries))
    shown = differing or columns
    several = len({data for *_, data in shown}) > 1
    with _panels(path, len(shown), 4.6, 1.0 + 0.32 * len(labels)) as panels:
        for axes, ((metric, config, split, data), found) in zip(panels, shown.items(), strict=True):
            _draw_bars(axes, labels, found)
            axes.set_title(f"{metric}  ({f'{data}, ' if several else ''}{config} labels, {split})", fontsize=8)


def _noise_curves(summaries: Sequence[Summary], metric: str = "top1") -> dict[_Panel, dict[str, list[_Point]]]:
    """The curves that summaries hold, by panel and legend, each by rising sigma.

    Only runs trained and tested under the same noise count, and only panels with two levels or more. Plain is one
    curve and VCReg another, also where each level has coefficients of its own; where a level was run in several ways,
    recipes that differ in more than noise and split keep apart.
    """
    found: dict[_Panel, list[Summary]] = defaultdict(list)
    for one in summaries:
        group, of = one.group, one.quantity
        place = None if one.folds else group.noise_place  # of splits, the mean is taken here
        if of.metric == metric and place is not None and (of.sigma or 0.0) == group.noise:
            found[_Panel(group.model or "", of.dataset, place, metric, of.split)].append(one)
    several = {panel: same for panel, same in found.items() if len({one.group.noise for one in same}) > 1}
    return {panel: _series(same) for panel, same in sorted(several.items())}


def draw_noise(
    summaries: Sequence[Summary],
    path: Path,
    paper: Mapping[tuple[str, str], tuple[float, float]] | None = None,
) -> bool:
    """Write the noise curves to `path`; False, and no file, if no runs differ in their noise alone.

    paper: (model, dataset) -> the paper's accuracies (plain, VCReg) in percent without noise, its only numbers: those
    of its noise figures are not printed. Drawn as hollow marks and named the paper's.
    """
    curves = _noise_curves(summaries)
    if not curves:
        return False
    with _panels(path, len(curves), 4.8, 3.6) as panels:
        for axes, (panel, series) in zip(panels, curves.items(), strict=True):
            _draw_curves(axes, panel, series, (paper or {}).get((panel.model, panel.dataset)))
    return True


@contextlib.contextmanager
def _panels(path: Path, count: int, width: float, height: float) -> Iterator[list[Axes]]:
    """`count` pairs of axes, two across, each of that many inches; the figure is written when the block ends well."""
    from matplotlib.figure import Figure

    across = min(2, count)
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    yield grid[:count]
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _draw_bars(axes: Axes, labels: Sequence[str], found: Mapping[str, Summary]) -> None:
    values = [value for one in found.values() for value in one.values]
    low, high = min(values), max(values)
    margin = max(high - low, 1e-6 + 0.01 * abs(high))
    cut = low > margin  # a bar that does not start at 0 would exaggerate, so there is a mark in its place
    for i, label in enumerate(labels):
        one = found.get(label)
        if one is None:
            place = axes.get_yaxis_transform()
            axes.text(0.02, i, "not yet run", va="center", transform=place, fontsize=7)
            continue
        color = _PLAIN if one.group.vcreg is None else _REGULARIZED
        if cut:
            axes.errorbar(one.mean, i, xerr=one.std, fmt="D", color=color, markersize=7, capsize=3)
        else:
            axes.barh(i, one.mean, xerr=one.std, color=color, height=0.7, capsize=3, alpha=0.85)
        axes.plot(one.values, [i] * one.n, "o", color="black", markersize=2.5, alpha=0.7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    of = next(iter(found.values())).quantity
    note = f"{of.unit}, {'higher' if of.higher_is_better else 'lower'} is better"
    axes.set_ylim(len(labels) - 0.5, -0.5)
    if cut:
        axes.set_xlim(low - margin, high + 0.5 * margin)
        note += "; the axis does not start at 0"
    axes.set_xlabel(note, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _series(summaries: Sequence[Summary]) -> dict[str, list[_Point]]:
    series: dict[str, list[_Point]] = {}
    for kind in ("plain", "VCReg"):
        own = [one for one in summaries if (one.group.vcreg is None) == (kind == "plain")]
        places = {(one.group.noise, one.quantity.fold) for one in own}
        families = sorted({one.group.family for one in own}, key=str) if len(places) < len(own) else [None]
        for family in families:
            same = [one for one in own if family in (None, one.group.family)]
            points = _points(same)
            if points:
                series[kind if family is None else _legend(kind, same, own)] = points
    return series


def _legend(kind: str, summaries: Sequence[Summary], others: Sequence[Summary]) -> str:
    """The coefficients where they name the recipe, else the label of its first run."""
    first = summaries[0].group
    families = {one.group.family for one in others if one.group.vcreg == first.vcreg}
    return f"{kind} {first.vcreg if kind != 'plain' and len(families) == 1 else first.label}"


def _points(summaries: Sequence[Summary]) -> list[_Point]:
    by_level: dict[float, list[Summary]] = defaultdict(list)
    for one in summaries:
        by_level[one.group.noise or 0.0].append(one)
    points = (_point(sigma, same) for sigma, same in sorted(by_level.items()))
    return [point for point in points if point is not None]


def _point(sigma: float, summaries: Sequence[Summary]) -> _Point | None:
    """One value for each seed that every fold has; None where no seed has them all."""
    by_fold: dict[int | None, dict[int, float]] = defaultdict(dict)
    for one in summaries:
        by_fold[one.quantity.fold] |= dict(zip(one.seeds, one.values, strict=True))
    seeds = sorted(set.intersection(*(set(values) for values in by_fold.values())))
    means = tuple(statistics.fmean(values[seed] for values in by_fold.values()) for seed in seeds)
    folds = tuple(sorted(fold for fold in by_fold if fold is not None))
    return _Point(tuple(seeds), means, sigma, folds) if means else None


def _draw_curves(
    axes: Axes, panel: _Panel, series: Mapping[str, list[_Point]], paper: tuple[float, float] | None
) -> None:
    greys = iter((_PLAIN, *_FURTHER * len(series)))
    colors = iter((_REGULARIZED, *_FURTHER * len(series)))
    for name, points in series.items():
        plain = name.startswith("plain")
        axes.errorbar(
            [point.sigma for point in points],
            [point.mean for point in points],
            yerr=[point.std or 0.0 for point in points],
            label=f"{name}{_counted(points)}",
            color=next(greys if plain else colors),
            linestyle="--" if plain else "-",
            marker="s" if plain else "o",
            markersize=5,
            capsize=3,
        )
    if paper is not None:
        for value, color, marker, name in zip(paper, (_PLAIN, _REGULARIZED), "so", ("plain", "VCReg"), strict=True):
            label = f"{name}, the paper's (Table 2)"
            axes.plot(0.0, value, marker, markersize=8, markerfacecolor="none", color=color, label=label)
    axes.set_xticks(sorted({point.sigma for points in series.values() for point in points}))
    scale = _SCALES.get(panel.noise_place, panel.noise_place)
    axes.set_xlabel(f"standard deviation σ of the noise ({scale})", fontsize=8)
    axes.set_ylabel(f"{panel.metric.replace('top', 'top-')} accuracy, {panel.split} (%)", fontsize=8)
    axes.set_title(f"{panel.model} on {panel.dataset}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _counted(points: Sequence[_Point]) -> str:
    """What is behind each point of a curve, for its legend."""
    fewest, most = min(point.n for point in points), max(point.n for point in points)
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    parts = ["1 seed" if most == 1 else f"mean ± s.d. of {seeds} seeds"]
    folds = {point.folds for point in points}
    if len(folds) > 1:
        parts.append("not all of the same splits")
    elif of := folds.pop():
        parts.append(f"split {of[0]}" if len(of) == 1 else f"mean of {len(of)} splits")
    return f" ({', '.join(parts)})"
