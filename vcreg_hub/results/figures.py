"""Draws summaries as PNG, without a screen: every seed of a metric, and accuracy against noise (Figures 3 and 4)."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import replacing
from .aggregate import Column, Difference, Group, Sample, Summary, differences, why_absent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN, _REGULARIZED = "#7f8c99", "#1f6fb2"
_FURTHER = ("#c2571a", "#2a8a57", "#8a4fa3", "#b8930b")
# The end of the name of a metric that is a setting: what an evaluation chose, not how well it went.
_SETTING = "_penalty"
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


def draw_metrics(summaries: Sequence[Summary], path: Path) -> None:
    """A row a metric: each seed as a dot, the mean with its 95% interval; beside it the differences to the baseline,
    seed by seed, where a baseline is there.

    The tables have every metric; a picture has those that say something (see `telling`). A label that has no value of
    a metric says why. The axes do not start at zero, and nothing is drawn whose length would stand for a value.
    """
    columns = telling(summaries)
    labels = {one.group.id: one.group for one in summaries}
    compared: dict[Column, dict[str, Difference]] = {}
    for pair in differences(summaries):
        compared.setdefault(pair.one.column, {})[pair.one.group.id] = pair
    across = 2 if any(of in compared for of in columns) else 1
    with _grid(path, len(columns), across, (5.0, 3.4), 0.95 + 0.34 * len(labels)) as rows:
        for (of, found), (values, *beside) in zip(columns.items(), rows, strict=True):
            _draw_values(values, labels, found, summaries)
            for axes in beside:
                _draw_differences(axes, labels, found, compared.get(of, {}))


def telling(summaries: Sequence[Summary]) -> dict[Column, dict[str, Summary]]:
    """Column -> group id -> summary, of the columns that a picture shows.

    Left out are the settings that an evaluation chose, what is told of blocks one by one, "loss" and "top5" beside a
    "top1", what is the same in every run, and what repeats the column before it; unless nothing would be left.
    """
    columns: dict[Column, dict[str, Summary]] = {}
    for one in summaries:
        if one.quantity.block is None:
            columns.setdefault(one.column, {})[one.group.id] = one
    shown: dict[Column, dict[str, Summary]] = {}
    seen: list[dict[str, list[float]]] = []
    for of, found in columns.items():
        metric, *rest = of
        values = {label: [round(value, 2) for value in one.values] for label, one in found.items()}
        varied = len({value for one in found.values() for value in one.values}) > 1
        beside_top1 = metric in ("loss", "top5") and ("top1", *rest) in columns
        if metric.endswith(_SETTING) or beside_top1 or not varied or values in seen:
            continue
        seen.append(values)
        shown[of] = found
    return shown or columns


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
    with _grid(path, len(curves), 1, (6.0,), 3.8) as rows:
        for (axes,), (panel, series) in zip(rows, curves.items(), strict=True):
            _draw_curves(axes, panel, series, (paper or {}).get((panel.model, panel.dataset)))
    return True


@contextlib.contextmanager
def _grid(path: Path, down: int, across: int, widths: Sequence[float], height: float) -> Iterator[list[list[Axes]]]:
    """`down` rows of `across` pairs of axes, in inches; the figure is written when the block ends well."""
    from matplotlib.figure import Figure

    widths = widths[:across]
    figure = Figure(figsize=(sum(widths), height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, gridspec_kw={"width_ratios": widths})
    for axes in grid.flat:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    yield [list(row) for row in grid]
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _draw_values(
    axes: Axes, groups: Mapping[str, Group], found: Mapping[str, Summary], summaries: Sequence[Summary]
) -> None:
    first = next(iter(found.values()))
    of = first.quantity
    counts = {one.n for one in found.values()}
    for i, (label, group) in enumerate(groups.items()):
        one = found.get(label)
        if one is None:
            why = why_absent(first.column, [other for other in summaries if other.group.id == label])
            _write(axes, i, why)
        else:
            _draw_sample(axes, i, one, _PLAIN if group.vcreg is None else _REGULARIZED)
    names = [
        _shortened(group.label) + (f" (n = {found[label].n})" if len(counts) > 1 and label in found else "")
        for label, group in groups.items()
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.6)
    _widen(axes, of.unit)
    direction = f"{'higher' if of.higher_is_better else 'lower'} is better"
    parts = (of.unit, direction, "each dot a seed, the bar the 95% interval of the mean")
    axes.set_xlabel(", ".join(filter(None, parts)), fontsize=7)
    seeds = f", {_seeds(counts.pop())}" if len(counts) == 1 else ""
    meaning = of.protocol.partition(";")[0]
    named = f"{of.metric}: {meaning}" if meaning else of.metric
    _, config, split, data = first.column
    axes.set_title(f"{named}\n{data}, {config} labels, {split}{seeds}", fontsize=8, loc="left")


def _draw_differences(
    axes: Axes, groups: Mapping[str, Group], found: Mapping[str, Summary], compared: Mapping[str, Difference]
) -> None:
    """One row a group, beside its values; a group without a difference says why."""
    if not compared:
        axes.axis("off")
        return
    axes.axvline(0, color="black", linewidth=0.8, alpha=0.5)
    baselines = {pair.baseline.group.id for pair in compared.values()}
    for i, label in enumerate(groups):
        if label in compared:
            _draw_sample(axes, i, compared[label], _REGULARIZED, signed=True)
        elif label in found:
            why = "the baseline" if label in baselines else "no baseline with its seeds"
            _write(axes, i, why)
    axes.set_yticks([])
    axes.set_ylim(len(groups) - 0.5, -0.6)
    pair = next(iter(compared.values()))
    _widen(axes, pair.one.quantity.unit)
    unit = "points" if pair.one.quantity.unit == "%" else pair.one.quantity.unit
    axes.set_xlabel(", ".join(filter(None, (unit, "the same seed in both"))), fontsize=7)
    counts = {one.n for one in compared.values()}
    seeds = f", {_seeds(counts.pop())}" if len(counts) == 1 else ""
    axes.set_title(f"minus the baseline{seeds}", fontsize=8, loc="left")


def _draw_sample(axes: Axes, place: int, one: Sample, color: str, signed: bool = False) -> None:
    """Every seed as a dot below the line, the mean as a tick on the bar of its interval, and in figures."""
    if one.interval is not None:
        axes.plot(one.interval, [place, place], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
    axes.plot([one.mean], [place], "|", color=color, markersize=13, markeredgewidth=2)
    axes.plot(one.values, [place + 0.28] * one.n, "o", color=color, markersize=3.5, alpha=0.75, markeredgewidth=0)
    axes.text(one.mean, place - 0.24, f"{one.mean:{'+' if signed else ''}.2f}", ha="center", va="bottom", fontsize=7)


def _write(axes: Axes, place: int, text: str) -> None:
    """A word in the place of a sample."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    where = axes.get_yaxis_transform()
    axes.text(0.02, place, text, va="center", transform=where, fontsize=7, style="italic", bbox=box)


def _widen(axes: Axes, unit: str) -> None:
    """Leave room at both ends, and show one point of a percentage or more: a tenth of one is not a large step."""
    low, high = axes.get_xlim()
    room = max(1.0 - (high - low), 0.0) / 2 if unit == "%" else 0.0
    margin = 0.06 * (high - low) + room
    axes.set_xlim(low - margin, high + margin)


def _seeds(n: int) -> str:
    return "1 seed, so no interval" if n == 1 else f"n = {n} seeds"


def _shortened(label: str, width: int = 34) -> str:
    return label if len(label) <= width else f"{label[: width // 2 - 1]}…{label[-width // 2 :]}"


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
