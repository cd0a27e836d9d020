"""Experiments: every row fits its recipes, the walk trains what it says, and nothing is chosen on test."""

from __future__ import annotations

import pytest

from vcreg_hub.config import differences, override
from vcreg_hub.errors import VCRegError
from vcreg_hub.experiments import reproduce as experiments
from vcreg_hub.experiments.reproduce import EXPERIMENTS, reproduce, standing
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.recipes import load_recipe
from vcreg_hub.rundir import RunDir


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_row_fits_its_recipes(name):
    experiment = EXPERIMENTS[name]
    plain, regularized = load_recipe(experiment.plain), load_recipe(experiment.vcreg)
    assert set(differences(plain, regularized)) <= {"name", "vcreg", "assumed"}, "twins differ in VCReg alone"
    settings = [f"{path}={value}" for path, values in experiment.grid.items() for value in values]
    assert override(regularized, settings).vcreg is not None
    for path, values in experiment.axis.items():
        for value in values:
            override(plain, [f"{path}={value}"])
    searched = override(regularized, experiment.holding_out)
    assert searched.data.val_fraction > 0, "the search needs clips that training does not see"
    assert not set(experiment.seeds) & set(experiment.selection_seeds)


def fake_runs(monkeypatch, top1):
    """Cells that are "run" by writing down what `top1` says of their recipe."""
    ran = []

    def run_cells(todo, out, jobs, say):
        for cell in todo:
            ran.append(cell)
            path, recipe = out / cell.path, cell.recipe
            write_tensors(path / "model.safetensors", {})
            RunDir(path).write_recipe(recipe)
            row = {
                "metric": "top1", "value": top1(recipe), "unit": "%", "higher_is_better": True,
                "dataset": "action_shapes", "dataset_config": "class", "split": recipe.eval.split,
                "fold": recipe.video.split, "sigma": recipe.video.noise,
            }  # fmt: skip
            write_json(path / "results.json", {"metrics": [row]})
            write_json(path / "env.json", {})
        return []

    monkeypatch.setattr(experiments, "run_cells", run_cells)
    return ran


def test_coefficients_are_picked_on_held_out_clips_and_the_final_runs_vary_the_split(tmp_path, monkeypatch):
    def top1(recipe):
        if recipe.vcreg is None:
            return 50.0
        # The best on val is the worst on test: only val may decide.
        best = recipe.vcreg.alpha == 0.16 and recipe.vcreg.beta == 0.1
        return {"val": 90.0 if best else 10.0, "test": 20.0 if best else 80.0}[recipe.eval.split]

    assert standing("action_shapes", tmp_path) == "not yet run"
    ran = fake_runs(monkeypatch, top1)
    rows = reproduce("action_shapes", tmp_path, say=lambda text: None)
    searched = 3 * 3 * len(EXPERIMENTS["action_shapes"].selection_seeds)
    search, final = ran[:searched], ran[searched:]
    assert all(c.recipe.eval.split == "val" and c.recipe.data.val_fraction == 0.2 for c in search)
    assert {c.recipe.video.split for c in search} == {1}
    assert len(final) == 2 * 3 * 3 and all(c.recipe.eval.split == "test" for c in final)
    assert all(c.recipe.data.val_fraction == 0 for c in final), "the final runs train on every training clip"
    chosen = {(c.recipe.vcreg.alpha, c.recipe.vcreg.beta) for c in final if c.recipe.vcreg}
    assert chosen == {(0.16, 0.1)}
    assert {(c.recipe.video.split, c.recipe.train.seed) for c in final} == {
        (f, s) for f in (1, 2, 3) for s in (0, 1, 2)
    }
    assert len({c.path for c in final}) == len(final)
    assert {row["label"] for row in rows} >= {"plain,split=1", "vcreg,split=3"}
    assert standing("action_shapes", tmp_path) == (
        "plain, mean of 3 splits 50.00 ± 0.00 % (n = 3), vcreg, mean of 3 splits 20.00 ± 0.00 % (n = 3)"
    )


def test_a_pretraining_comes_first_and_both_twins_start_from_it(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 50.0)
    shorter = lambda recipe: override(recipe, ["train.epochs=2"])  # noqa: E731
    reproduce("action_shapes_finetuned", tmp_path, say=lambda text: None, change=shorter)
    first, rest = ran[0].recipe, [cell.recipe for cell in ran[1:]]
    assert (first.data.name, first.train.epochs, first.vcreg) == ("action_shapes_compound", 60, None)
    assert {recipe.model.pretrained for recipe in rest} == {str(tmp_path / ran[0].path)}
    assert {(recipe.data.name, recipe.train.epochs) for recipe in rest} == {("action_shapes", 2)}
    ran.clear()
    monkeypatch.setattr(experiments, "run_cells", lambda todo, out, jobs, say: [f"{todo[0].label}: out of memory"])
    with pytest.raises(VCRegError, match="pretraining: out of memory"):
        reproduce("action_shapes_finetuned", tmp_path / "other", say=lambda text: None)


def test_noise_varies_on_training_and_test_clips_and_is_drawn(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 80.0 - 10 * recipe.video.noise)
    reproduce("noise_action_shapes", tmp_path, say=lambda text: None)
    final = [c for c in ran if c.recipe.eval.split == "test"]
    assert {(c.recipe.video.noise, c.recipe.vcreg is None) for c in final} == {
        (sigma, plain) for sigma in (0.0, 1.0, 1.5, 2.0) for plain in (True, False)
    }
    assert (tmp_path / "final" / "noise.png").read_bytes().startswith(b"\x89PNG")
