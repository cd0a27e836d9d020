"""Accuracy against the noise that training and test clips carry, plain beside VCReg: the paper's Figures 3 and 4."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..files import replacing
from .figures import PLAIN, REGULARIZED

_SCALES = {"normalised": "on normalised values", "pixels": "on pixels in [0, 1]"}
_FURTHER = ("#c2571a", "#2a8a57", "#8a4fa3", "#b8930b")


class Panel(NamedTuple):
    """What shares a pair of axes: numbers that may be compared."""

    model: str
    dataset: str
    noise_place: str
    metric: str
    split: str


@dataclass(frozen=True)
class Point:
    """values: one a seed, each the mean over `folds`, train/test splits of the data set, where it has several."""

    sigma: float
    values: tuple[float, ...]
    folds: tuple[int, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def curves(rows: Sequence[Mapping[str, Any]], metric: str = "top1") -> dict[Panel, dict[str, list[Point]]]:
    """The curves that rows of `summary.summarise` hold, by panel and legend, each by rising sigma.

    Only runs trained and tested under the same noise count, and only panels with two levels or more. Plain is one
    curve and VCReg another, also where each level has coefficients of its own; where a level was run in several ways,
    recipes that differ in more than noise and split keep apart.
    """
    found: dict[Panel, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        place = None if "folds" in row else row.get("noise_place")  # of splits, the mean is taken here
        if row["metric"] == metric and place is not None and row.get("sigma", 0.0) == row["trained_sigma"]:
            found[Panel(row["model"], row["dataset"], place, metric, row["split"])].append(row)
    drawn = {panel: _series(same) for panel, same in found.items() if len({row["trained_sigma"] for row in same}) > 1}
    return dict(sorted(drawn.items()))


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for kind in ("plain", "VCReg"):
        own = [row for row in rows if (row["vcreg"] is None) == (kind == "plain")]
        places = {(row["trained_sigma"], row.get("fold")) for row in own}
        families = sorted({row["family"] for row in own}) if len(places) < len(own) else [None]
        for family in families:
            same = [row for row in own if family in (None, row["family"])]
            points = _points(same)
            if points:
                series[kind if family is None else _legend(kind, same, own)] = points
    return series


def _legend(kind: str, rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """The coefficients where they name the recipe, else the label of its first run."""
    families = {row["family"] for row in others if row["vcreg"] == rows[0]["vcreg"]}
    return f"{kind} {rows[0]['vcreg'] if kind != 'plain' and len(families) == 1 else rows[0]['label']}"


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    levels = sorted({row["trained_sigma"] for row in rows})
    points = (_point(sigma, [row for row in rows if row["trained_sigma"] == sigma]) for sigma in levels)
    return [point for point in points if point is not None]


def _point(sigma: float, rows: Sequence[Mapping[str, Any]]) -> Point | None:
    """One value for each seed that every fold has; None where no seed has them all."""
    by_fold: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in rows:
        by_fold[row.get("fold")] |= dict(zip(row["seeds"], row["values"], strict=True))
    seeds = set.intersection(*(set(values) for values in by_fold.values()))
    means = tuple(statistics.fmean(values[seed] for values in by_fold.values()) for seed in sorted(seeds))
    return Point(sigma, means, tuple(sorted(fold for fold in by_fold if fold is not None))) if means else None


def draw(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    paper: Mapping[tuple[str, str], tuple[float, float]] | None = None,
) -> bool:
    """Write the figure to `path` (PNG); False, and no file, where no run differs from another in its noise alone.

    paper: (model, dataset) -> the paper's accuracies (plain, VCReg) in percent without noise, its only numbers: those
    of its noise figures are not printed. Drawn as hollow marks and named the paper's.
    """
    from matplotlib.figure import Figure

    panels = curves(rows)
    if not panels:
        return False
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(4.8 * across, 3.6 * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (panel, series) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, panel, series, (paper or {}).get((panel.model, panel.dataset)))
    for axes in grid[len(panels) :]:
        axes.remove()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return True


def _draw_panel(axes: Any, panel: Panel, series: Mapping[str, list[Point]], paper: tuple[float, float] | None) -> None:
    greys = iter((PLAIN, *_FURTHER * len(series)))
    colors = iter((REGULARIZED, *_FURTHER * len(series)))
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
        for value, color, marker, name in zip(paper, (PLAIN, REGULARIZED), "so", ("plain", "VCReg"), strict=True):
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


def _counted(points: Sequence[Point]) -> str:
    """What is behind each point of a curve, for its legend."""
    fewest, most = min(len(point.values) for point in points), max(len(point.values) for point in points)
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    parts = ["1 seed" if most == 1 else f"mean ± s.d. of {seeds} seeds"]
    folds = {point.folds for point in points}
    if len(folds) > 1:
        parts.append("not all of the same splits")
    elif of := folds.pop():
        parts.append(f"split {of[0]}" if len(of) == 1 else f"mean of {len(of)} splits")
    return f" ({', '.join(parts)})"
