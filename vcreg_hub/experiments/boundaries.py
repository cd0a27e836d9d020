"""The averaged decision boundary of each variant of an experiment on points in the plane, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..results.aggregate import Summary
from ..results.boundary_figure import BoundaryPanel, draw_boundaries
from .grid import Trial

_HALF_WIDTH = 2.0  # as in the original figure


def draw_averaged(trials: Mapping[str, Sequence[Trial]], folder: Path, summaries: Sequence[Summary]) -> None:
    """Write boundary.png in `folder`, where the finished runs of `trials` (by variant) are.

    summaries: of these runs; a panel's note is their accuracy on moons that overlap.
    """
    found = {one.group.label: one.shown for one in summaries if one.quantity.metric == "overlap_top1"}
    panels = [_panel(name, of_variant, folder, found.get(name, "")) for name, of_variant in trials.items()]
    draw_boundaries(panels, folder / "boundary.png")


def _panel(name: str, trials: Sequence[Trial], folder: Path, shown: str) -> BoundaryPanel:
    import torch

    from ..data.points import PointModule
    from ..evals.boundary import scores_around
    from ..run.build import load_run

    runs = [load_run(folder / trial.path) for trial in trials]
    with torch.no_grad():
        scores = [scores_around(network.eval(), half_width=_HALF_WIDTH, count=151) for *_, network in runs]
    data = runs[0][1]
    assert isinstance(data, PointModule), "the evaluation `boundary` refused anything else"
    part = data.sets.train
    return BoundaryPanel(
        title=f"{name} ({len(trials)} seed{'s' * (len(trials) > 1)})",
        scores=torch.stack(scores).mean(0).numpy(),
        half_width=_HALF_WIDTH,
        points=part.points,
        labels=part.labels,
        note=f"overlapping moons: {shown}" if shown else "",
    )
