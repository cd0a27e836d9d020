"""The two moons end to end, in seconds: small networks, two seeds, and the averaged boundary as a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from vcreg_hub.experiments import boundaries, reproduce
from vcreg_hub.experiments.reproduce import run_experiment
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.run import train


def test_the_moons_are_trained_compared_and_drawn(tmp_path, monkeypatch):
    row = EXPERIMENTS["moons_short"]
    kept = tuple(replace(one, grid={}) for one in row.variants if one.name in ("plain", "vcreg"))
    small = replace(row, variants=kept, seeds=(0, 1),
                    settings=("train.max_steps=40", "model.kwargs.hidden=[16,16]"))  # fmt: skip
    drawn = []

    def here(todo, out, jobs, log):
        """In this process: four processes of their own would spend their time on imports."""
        for trial in todo:
            train(trial.recipe, out / trial.path, log=log)

    monkeypatch.setattr(reproduce, "run_trials", here)
    monkeypatch.setattr(boundaries, "draw_boundaries", lambda panels, path: drawn.extend([panels, path]))
    found = run_experiment(small, tmp_path, log=lambda text: None)
    assert {(one.group.label, one.quantity.metric) for one in found} >= {
        (label, metric) for label in ("plain", "vcreg") for metric in ("top1", "overlap_top1", "margin", "margin_p1")
    }
    assert {one.n for one in found} == {2}
    panels, path = drawn
    assert path == tmp_path / "final" / "boundary.png"
    assert [panel.title for panel in panels] == ["plain (2 seeds)", "vcreg (2 seeds)"]
    assert panels[0].points.shape == (300, 2) and not np.array_equal(panels[0].scores, panels[1].scores)

    from vcreg_hub.results.boundary_figure import draw_boundaries

    draw_boundaries(panels, path)
    with Image.open(path) as picture:
        assert picture.size[0] > 500
