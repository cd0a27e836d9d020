"""Draws what a run recorded of itself: its training curve, and what its blocks were like when training ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#1f6fb2", "#c2571a")


def draw_training(epochs: Mapping[str, Sequence[float | None]], path: Path) -> None:
    """A panel of the losses and one of the accuracies, over epochs; a panel without a number is left out.

    epochs: column of metrics.csv -> a value an epoch, None where it has none; "epoch" among them.
    """
    panels = {
        f"{name} of one run, epoch by epoch": {
            column: values for column, values in epochs.items() if column.rpartition("_")[2] == kind
        }
        for name, kind in (("Loss", "loss"), ("Top-1 accuracy (%)", "top1"))
    }
    panels = {title: columns for title, columns in panels.items() if columns}
    figure = _figure(len(panels))
    for place, (title, columns) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for color, (column, values) in zip(_COLORS, columns.items(), strict=False):
            known = [(at, value) for at, value in zip(epochs["epoch"], values, strict=True) if value is not None]
            axes.plot(*zip(*known, strict=True), color=color, marker=".", linewidth=1.2, label=column)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("epoch", fontsize=8)
        axes.legend(fontsize=7, frameon=False)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_blocks(measured: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """A panel a quantity, a dot a block, the blocks from input to output.

    measured: title -> block -> value.
    """
    figure = _figure(len(measured), height=1.0 + 0.17 * max(map(len, measured.values())))
    for place, (title, blocks) in enumerate(measured.items(), start=1):
        axes = figure.add_subplot(1, len(measured), place)
        rows = range(len(blocks))
        axes.plot(list(blocks.values()), rows, "o", color=_COLORS[0], markersize=4)
        axes.set_yticks(rows, list(blocks), fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.05 * max(blocks.values()) or 1.0)  # none of them is negative
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", linewidth=0.4, alpha=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _figure(panels: int, height: float = 2.8) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(4.4 * panels, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
