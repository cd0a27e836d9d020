"""Figures, drawn without a screen and written as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import replacing

PLAIN, REGULARIZED = "#7f8c99", "#1f6fb2"


def column(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(metric, labels, split) of a row of `summary.summarise`: rows of one column may be compared. A noise that a test
    had and the training had not is part of it."""
    config, sigma = row["dataset_config"], row.get("sigma", 0.0)
    return row["metric"], config if sigma == row.get("trained_sigma", sigma) else f"{config}, σ {sigma:g}", row["split"]


def bars(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel a metric: the mean of each label as a bar, its standard deviation as a whisker, each seed as a dot.

    rows: of `summary.summarise`. A metric that is the same in every run is left out, unless all are. An axis that
    starts above zero, where the differences would vanish otherwise, says so.
    """
    from matplotlib.figure import Figure

    values = {of: {v for row in rows if column(row) == of for v in row["values"]} for of in map(column, rows)}
    columns = [of for of, seen in values.items() if len(seen) > 1] or list(values)
    labels = list(dict.fromkeys(r["label"] for r in rows))
    across = min(2, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(4.6 * across, (1.0 + 0.32 * len(labels)) * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (metric, config, split) in zip(grid, columns, strict=False):
        found = {r["label"]: r for r in rows if column(r) == (metric, config, split)}
        _panel(axes, labels, found)
        axes.set_title(f"{metric}  ({config} labels, {split})", fontsize=8)
    for axes in grid[len(columns) :]:
        axes.remove()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _panel(axes: Any, labels: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> None:
    for i, label in enumerate(labels):
        row = found.get(label)
        if row is None:
            place = axes.get_yaxis_transform()
            axes.text(0.02, i, "not yet run", va="center", transform=place, fontsize=7)
            continue
        color = PLAIN if "plain" in label else REGULARIZED
        axes.barh(i, row["mean"], xerr=row["std"], color=color, height=0.7, capsize=3, alpha=0.85)
        axes.plot(row["values"], [i] * row["n"], "o", color="black", markersize=2.5, alpha=0.7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.invert_yaxis()
    row = next(iter(found.values()))
    note = f"{row['unit']}, {'higher' if row['higher_is_better'] else 'lower'} is better"
    values = [v for row in found.values() for v in row["values"]]
    low, high = min(values), max(values)
    margin = max(high - low, 1e-6 + 0.01 * abs(high))
    if low > margin:
        axes.set_xlim(low - margin, high + 0.5 * margin)
        note += "; the axis does not start at 0"
    axes.set_xlabel(note, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
