"""Figures, drawn without a screen and written as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..rundir import replacing

PLAIN, REGULARIZED = "#7f8c99", "#1f6fb2"


def bars(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel a metric: the mean of each label as a bar, its standard deviation as a whisker, each seed as a dot.

    rows: of `study.summarise`. The axis starts above zero where the differences would vanish otherwise, and says so.
    """
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys((r["metric"], r["dataset_config"], r["split"]) for r in rows))
    labels = list(dict.fromkeys(r["label"] for r in rows))
    width = max(2.6, 0.55 * len(labels) + 1.2)
    figure = Figure(figsize=(width * len(columns), 3.4), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        found = {r["label"]: r for r in rows if (r["metric"], r["dataset_config"], r["split"]) == column}
        _panel(axes, labels, found)
        axes.set_title(f"{column[0]}\n{column[1]}, {column[2]}", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _panel(axes: Any, labels: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> None:
    for i, label in enumerate(labels):
        row = found.get(label)
        if row is None:
            axes.text(
                i, 0.02, "not yet run", rotation=90, ha="center", transform=axes.get_xaxis_transform(), fontsize=7
            )
            continue
        color = PLAIN if "plain" in label else REGULARIZED
        axes.bar(i, row["mean"], yerr=row["std"], color=color, width=0.7, capsize=3, alpha=0.85)
        axes.plot([i] * row["n"], row["values"], "o", color="black", markersize=2.5, alpha=0.7)
    values = [v for row in found.values() for v in row["values"]]
    low, high = min(values), max(values)
    margin = max(high - low, 1e-6 + 0.02 * abs(high))
    if low > margin:
        axes.set_ylim(low - margin, high + 0.5 * margin)
        axes.text(0.01, 0.01, "axis does not start at 0", transform=axes.transAxes, fontsize=6, color="#555555")
    axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 2 else 0, fontsize=7,
                    ha="right" if len(labels) > 2 else "center")  # fmt: skip
    row = next(iter(found.values()))
    axes.set_ylabel(f"{row['unit']} ({'higher' if row['higher_is_better'] else 'lower'} is better)", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
