"""Accuracy against sigma: which runs share a curve, and what is drawn. Runs are written as folders and summarised."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vcreg_hub.cli import app
from vcreg_hub.config import Data, Model, Recipe, Video
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.figures import _noise_curves as noise_curves
from vcreg_hub.results.figures import _Panel as Panel
from vcreg_hub.results.figures import draw_noise
from vcreg_hub.results.report import summarise, tabulated
from vcreg_hub.rundir import RunDir

PLAIN = Recipe("shapes", Model("videomae_small"), Data("action_shapes"), video=Video())
VCREG = replace(PLAIN, vcreg=VCReg(alpha=1.0, beta=0.1))
PANEL = Panel("videomae_small", "action_shapes", "normalised", "top1", "test")


def run(root: Path, label: str, recipe: Recipe, top1: float, *, sigma: float = 0.0, seed: int = 0, fold: int = 1,
        tested: float | None = None) -> Recipe:  # fmt: skip
    """A finished run as the walk writes it: the noise of a test is in its row unless there was none."""
    video = replace(recipe.video, noise=sigma, split=fold)
    recipe = replace(recipe, video=video, train=replace(recipe.train, seed=seed))
    folder = root / label / f"seed{seed}"
    write_tensors(folder / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(folder).write_recipe(recipe)
    row = {"metric": "top1", "value": top1, "unit": "%", "higher_is_better": True, "dataset": recipe.data.name,
           "dataset_config": "class", "split": "test", "fold": fold}  # fmt: skip
    rows = [row | ({"sigma": sigma} if sigma else {})]
    if tested is not None:
        rows.append(row | {"sigma": tested, "value": top1 / 2})
    write_json(folder / "results.json", {"metrics": rows})
    write_json(folder / "env.json", {})
    return recipe


def test_plain_and_vcreg_with_seeds(tmp_path: Path) -> None:
    values = {
        ("plain", 0.0): [80.0, 84.0],
        ("plain", 2.0): [40.0, 50.0],
        ("vcreg", 0.0): [81.0, 82.0],
        ("vcreg", 2.0): [60.0],
    }
    for (kind, sigma), of_seed in values.items():
        for seed, value in enumerate(of_seed):
            run(tmp_path, f"{kind}-{sigma}", PLAIN if kind == "plain" else VCREG, value, sigma=sigma, seed=seed)
    found = noise_curves(summarise([tmp_path]))
    assert list(found) == [PANEL] and list(found[PANEL]) == ["plain", "VCReg"]
    for kind, points in found[PANEL].items():
        assert [point.sigma for point in points] == [0.0, 2.0]
        for point in points:
            expected = values[kind.lower(), point.sigma]
            assert point.values == tuple(expected) and point.mean == statistics.fmean(expected)
            assert point.std == (statistics.stdev(expected) if len(expected) > 1 else None)


def test_splits_are_averaged_seed_by_seed(tmp_path: Path) -> None:
    for sigma in (0.0, 1.0):
        for fold in (1, 2, 3):
            for seed in (0, 1, 2) if fold < 3 else (0, 2):
                label = f"plain-{sigma}-{fold}"
                run(tmp_path, label, PLAIN, 10.0 * fold + seed - sigma, sigma=sigma, seed=seed, fold=fold)
    (points,) = noise_curves(summarise([tmp_path]))[PANEL].values()
    assert [(point.sigma, point.folds) for point in points] == [(0.0, (1, 2, 3)), (1.0, (1, 2, 3))]
    assert points[0].values == (20.0, 22.0), "seed 1 has no third split"
    assert points[1].values == (19.0, 21.0)


def test_coefficients_chosen_level_by_level_are_one_curve_and_a_grid_is_several(tmp_path: Path) -> None:
    other = replace(PLAIN, vcreg=VCReg(alpha=5.0, beta=0.3))
    run(tmp_path, "a", VCREG, 80.0)
    run(tmp_path, "b", other, 60.0, sigma=1.0)
    assert list(noise_curves(summarise([tmp_path]))[PANEL]) == ["VCReg"]
    run(tmp_path, "c", VCREG, 55.0, sigma=1.0)
    run(tmp_path, "d", other, 79.0)
    series = noise_curves(summarise([tmp_path]))[PANEL]
    assert {name: [point.mean for point in points] for name, points in series.items()} == {
        "VCReg alpha 1, beta 0.1": [80.0, 55.0],
        "VCReg alpha 5, beta 0.3": [79.0, 60.0],
    }
    longer = replace(VCREG, train=replace(VCREG.train, epochs=9))
    run(tmp_path, "longer", longer, 58.0, sigma=1.0)
    names = list(noise_curves(summarise([tmp_path]))[PANEL])
    assert len(names) == 3 and "VCReg alpha 5, beta 0.3" in names, "recipes that differ in more than noise keep apart"


def test_noise_at_test_time_alone_is_another_column_and_no_point(tmp_path: Path) -> None:
    run(tmp_path, "plain", PLAIN, 80.0, tested=1.5)
    run(tmp_path, "noisy", PLAIN, 70.0, sigma=1.5)
    rows = summarise([tmp_path])
    (points,) = noise_curves(rows)[PANEL].values()
    assert [(point.sigma, point.mean) for point in points] == [(0.0, 80.0), (1.5, 70.0)]
    table = tabulated(rows).markdown().splitlines()
    assert "top1 (class, test) | top1 (class, σ 1.5, test)" in table[0]
    assert any("80.00 % | 40.00 %" in line for line in table)


def test_nothing_to_draw(tmp_path: Path) -> None:
    run(tmp_path / "runs", "plain", PLAIN, 80.0)
    run(tmp_path / "runs", "pixels", replace(PLAIN, video=replace(PLAIN.video, noise_place="pixels")), 70.0, sigma=1.0)
    assert noise_curves(summarise([tmp_path / "runs"])) == {}, "other places of noise are not compared"
    assert not draw_noise(summarise([tmp_path / "runs"]), tmp_path / "noise.png")
    assert not (tmp_path / "noise.png").exists()


def test_the_report_has_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    labels: list[str] = []
    shown: list[str] = []
    drawn: list[tuple[list[float], list[float], list[float]]] = []
    errorbar, xlabel = Axes.errorbar, Axes.set_xlabel
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda self, x, y, yerr, **how: (
            drawn.append((x, y, yerr)),
            shown.append(how["label"]),
            errorbar(self, x, y, yerr, **how),
        )[-1],
    )
    monkeypatch.setattr(
        Axes, "set_xlabel", lambda self, text, **how: (labels.append(text), xlabel(self, text, **how))[1]
    )
    for sigma, value in ((0.0, 80.0), (1.0, 60.0), (1.5, 50.0), (2.0, 41.0)):
        for seed in (0, 1):
            run(tmp_path / "runs", f"plain{sigma}", PLAIN, value - seed, sigma=sigma, seed=seed)
            run(tmp_path / "runs", f"vcreg{sigma}", VCREG, value + sigma, sigma=sigma, seed=seed)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert drawn[0] == ([0.0, 1.0, 1.5, 2.0], [79.5, 59.5, 49.5, 40.5], [pytest.approx(0.5**0.5)] * 4)
    assert drawn[1][1] == [80.0, 61.0, 51.5, 43.0]
    assert shown[:2] == ["plain (mean ± s.d. of 2 seeds, split 1)", "VCReg (mean ± s.d. of 2 seeds, split 1)"]
    assert any("standard deviation σ of the noise (on normalised values)" in label for label in labels)
