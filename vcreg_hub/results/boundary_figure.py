"""Draws decision boundaries in the plane, averaged over seeds, as Figures 2 and 5 do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import replacing

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_COLORS = ("#c0392b", "#1f6fb2")


@dataclass(frozen=True)
class BoundaryPanel:
    """The mean over seeds of one variant's scores, and the training points of one seed.

    scores: (count, count) on the square from -half_width to half_width, the first axis x, the second y. points: (n, 2).
    labels: (n,) of 0 and 1. note: a line below the title.
    """

    title: str
    scores: np.ndarray
    half_width: float
    points: np.ndarray
    labels: np.ndarray
    note: str = ""


def draw_boundaries(panels: Sequence[BoundaryPanel], path: Path, across: int = 4) -> None:
    """Write a panel for each variant: filled levels of the mean score, and its zero line, the averaged boundary."""
    from matplotlib.figure import Figure

    across = min(across, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(2.7 * across, 3.0 * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw(axes: Axes, panel: BoundaryPanel) -> None:
    import numpy as np

    line = np.linspace(-panel.half_width, panel.half_width, len(panel.scores))
    # Colours show the side and how sure the mean is; scores grow without end, so each panel has its own scale.
    largest = float(np.quantile(np.abs(panel.scores), 0.95)) or 1.0
    levels = np.linspace(-largest, largest, 11)
    axes.contourf(line, line, panel.scores.T, levels=levels, cmap="RdBu", alpha=0.8, extend="both")
    axes.contour(line, line, panel.scores.T, levels=[0.0], colors="black", linewidths=1.6)
    for label, color in enumerate(_COLORS):
        x, y = panel.points[panel.labels == label].T
        axes.scatter(x, y, s=6, color=color, edgecolors="white", linewidths=0.3)
    axes.set_title(panel.title + (f"\n{panel.note}" if panel.note else ""), fontsize=8)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
