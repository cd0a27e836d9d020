"""The walk of an experiment trains what it says, and nothing is chosen on test."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from vcreg_hub.config import Data, Model, Recipe, Train, override
from vcreg_hub.errors import UsageError, VCRegError
from vcreg_hub.experiments import reproduce as module
from vcreg_hub.experiments import runner
from vcreg_hub.experiments.experiment import Experiment, Variant
from vcreg_hub.experiments.grid import Trial
from vcreg_hub.experiments.reproduce import current_results, run_experiment
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.recipes import load_recipe
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.aggregate import Group, differences, over_seeds
from vcreg_hub.results.rows import Result
from vcreg_hub.run import train
from vcreg_hub.rundir import RunDir


def fake_runs(monkeypatch, top1):
    """Trials that are "run" by writing down what `top1` says of their recipe."""
    ran = []

    def run_trials(todo, out, jobs, log):
        for trial in todo:
            ran.append(trial)
            path, recipe = out / trial.path, trial.recipe
            write_tensors(path / "model.safetensors", {})
            RunDir(path).write_recipe(recipe)
            row = {
                "metric": "top1", "value": top1(recipe), "unit": "%", "higher_is_better": True,
                "dataset": "action_shapes", "dataset_config": "class", "split": recipe.eval.split,
                "fold": recipe.video.split, "sigma": recipe.video.noise,
            }  # fmt: skip
            write_json(path / "results.json", {"metrics": [row]})
            write_json(path / "env.json", {})

    monkeypatch.setattr(module, "run_trials", run_trials)
    return ran


def test_coefficients_are_picked_on_held_out_clips_and_the_final_runs_vary_the_split(tmp_path, monkeypatch):
    def top1(recipe):
        if recipe.vcreg is None:
            return 50.0
        # The best on val is the worst on test: only val may decide.
        best = recipe.vcreg.alpha == 0.16 and recipe.vcreg.beta == 0.1
        return {"val": 90.0 if best else 10.0, "test": 20.0 if best else 80.0}[recipe.eval.split]

    assert current_results(EXPERIMENTS["action_shapes"], tmp_path) == "not yet run"
    ran = fake_runs(monkeypatch, top1)
    rows = run_experiment(EXPERIMENTS["action_shapes"], tmp_path, log=lambda text: None)
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
    assert {row.group.label for row in rows} >= {"plain,split=1", "vcreg,split=3"}
    assert current_results(EXPERIMENTS["action_shapes"], tmp_path) == (
        "plain, mean of 3 splits 50.00 ± 0.00 % (n = 3), vcreg, mean of 3 splits 20.00 ± 0.00 % (n = 3)"
    )


def test_a_pretraining_comes_first_and_both_twins_start_from_it(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 50.0)
    shorter = lambda recipe: override(recipe, ["train.epochs=2"])  # noqa: E731
    run_experiment(EXPERIMENTS["action_shapes_finetuned"], tmp_path, log=lambda text: None, change=shorter)
    first, rest = ran[0].recipe, [trial.recipe for trial in ran[1:]]
    assert (first.data.name, first.train.epochs, first.vcreg) == ("action_shapes_compound", 60, None)
    assert {recipe.model.pretrained for recipe in rest} == {str(tmp_path / ran[0].path)}
    assert {(recipe.data.name, recipe.train.epochs) for recipe in rest} == {("action_shapes", 2)}
    ran.clear()

    def fail(todo, out, jobs, log):
        raise VCRegError(f"{todo[0].label}: out of memory")

    monkeypatch.setattr(module, "run_trials", fail)
    with pytest.raises(VCRegError, match="pretraining: out of memory"):
        run_experiment(EXPERIMENTS["action_shapes_finetuned"], tmp_path / "other", log=lambda text: None)


def test_noise_varies_on_training_and_test_clips_and_is_drawn(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 80.0 - 10 * recipe.video.noise)
    run_experiment(EXPERIMENTS["noise_action_shapes"], tmp_path, log=lambda text: None)
    final = [c for c in ran if c.recipe.eval.split == "test"]
    assert {(c.recipe.video.noise, c.recipe.vcreg is None) for c in final} == {
        (sigma, plain) for sigma in (0.0, 1.0, 1.5, 2.0) for plain in (True, False)
    }
    assert (tmp_path / "final" / "noise.png").read_bytes().startswith(b"\x89PNG")


TINY = Recipe(
    "tiny", Model("test_convnext"), Data("digits", val_fraction=0.2, train_images=64, image_size=32, workers=0),
    train=Train(epochs=1, batch_size=32),
)  # fmt: skip
# A value with a comma, and two variants that are searched, one of them for the optimizer's settings as well.
SEVERAL = Experiment(
    variants=(
        Variant("plain", "lab:plain", baseline=True),
        Variant("blocks", "lab:blocks", {"vcreg.alpha": ("0.1", "0.3"), "optim.betas": ("[0.9,0.99]",)}),
        Variant("decayed", "lab:decayed", {"optim.weight_decay": ("0.1", "0.2")}),
        Variant("final", "lab:final"),
    ),
    metric="top1",
    selection_seeds=(100,),
    seeds=(0, 1),
)


class InProcess:
    """Stands for the process that a study starts for a trial, without the seconds that starting one takes."""

    ran: ClassVar[list[Path]] = []

    def __init__(self, trial: Trial, out: Path, threads: int, launch: object = None) -> None:
        self.ran.append(out / trial.path)
        self.returncode = 0 if train(trial.recipe, out / trial.path, log=lambda text: None).complete() else 1

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def lab(monkeypatch):
    """Recipes from outside the package, and runs without processes of their own."""
    lab = types.ModuleType("lab")
    lab.plain = lambda: TINY
    lab.blocks = lambda: replace(TINY, name="tiny_blocks", vcreg=VCReg())
    lab.decayed = lambda: replace(TINY, name="tiny_decayed", vcreg=VCReg(), where="final")
    lab.final = lambda: replace(TINY, name="tiny_final", vcreg=VCReg(alpha=0.5), where="final")
    monkeypatch.setitem(sys.modules, "lab", lab)
    monkeypatch.setattr(runner, "_start", InProcess)
    monkeypatch.setattr(runner.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(InProcess, "ran", [])


def test_several_variants_are_searched_and_compared_to_one_baseline(tmp_path, lab):
    said: list[str] = []
    found = run_experiment(SEVERAL, tmp_path, log=said.append)
    names = ["plain", "blocks", "decayed", "final"]
    ran = [str(path.relative_to(tmp_path)) for path in InProcess.ran]
    searched = ["blocks/alpha=0.1,betas=[0.9,0.99]", "blocks/alpha=0.3,betas=[0.9,0.99]", "decayed/weight_decay=0.1",
                "decayed/weight_decay=0.2"]  # fmt: skip
    assert ran[:4] == [f"selection/{label}/seed100" for label in searched], "each with the same seeds"
    assert ran[4:] == [f"final/{name}/seed{seed}" for seed in (0, 1) for name in names]
    chosen = json.loads((tmp_path / "chosen.blocks.json").read_text())
    assert chosen["split"] == "val" and chosen["settings"]["optim.betas"] == "[0.9,0.99]"
    trained = RunDir(tmp_path / "final/blocks/seed1").recipe()
    assert trained.optim.betas == (0.9, 0.99) and str(trained.vcreg.alpha) == chosen["settings"]["vcreg.alpha"]
    decay = json.loads((tmp_path / "chosen.decayed.json").read_text())["settings"]["optim.weight_decay"]
    assert RunDir(tmp_path / "final/decayed/seed0").recipe().optim.weight_decay == float(decay)
    table = (tmp_path / "final/report.md").read_text()
    labels = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert labels == [*sorted(names), *(f"{name} - plain" for name in sorted(names) if name != "plain")]
    by_label = {one.group.label: one for one in found if one.quantity.metric == "top1"}
    for pair in differences(list(by_label.values())):
        own, plain = by_label[pair.one.group.label], by_label["plain"]
        assert pair.seeds == (0, 1)
        assert pair.values == tuple(a - b for a, b in zip(own.values, plain.values, strict=True))
    assert current_results(SEVERAL, tmp_path).count("(n = 2)") == 4
    # Once more: everything is there already.
    assert run_experiment(SEVERAL, tmp_path, log=said.append) == found and len(InProcess.ran) == len(ran)
    assert said[-1] == "8 runs, 8 complete already, 1 at a time"


def test_two_variants_that_come_out_as_one_run_are_refused(tmp_path, lab):
    twice = replace(SEVERAL, variants=(SEVERAL.baseline, Variant("again", "lab:plain")))
    with pytest.raises(UsageError, match="two variants are the same run: again/seed0 is plain/seed0"):
        run_experiment(twice, tmp_path, log=lambda text: None)


def test_a_study_of_two_keeps_its_folders_and_a_run_of_another_grid_is_not_chosen(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 50.0 if recipe.vcreg is None else 10 * recipe.vcreg.beta)
    stray = override(load_recipe("action_shapes:videomae_tiny_vcreg"), ["eval.split=val", "vcreg.beta=9"])
    module.run_trials([Trial("alpha=0.16,beta=9", stray)], tmp_path / "selection", 1, print)
    ran.clear()
    said: list[str] = []
    run_experiment(EXPERIMENTS["action_shapes"], tmp_path, log=said.append)
    assert str(ran[0].path) == "alpha=0.16,beta=0.02/seed100" and str(ran[-1].path) == "vcreg,split=3/seed2"
    assert "chosen: alpha=0.16,beta=0.3 (top1 3.00 % on val)" in said
    chosen = json.loads((tmp_path / "chosen.json").read_text())
    assert chosen["label"] == "alpha=0.16,beta=0.3"
    assert chosen["settings"] == {"vcreg.alpha": "0.16", "vcreg.beta": "0.3"}
    labels = {line.split(" | ")[0] for line in (tmp_path / "final/report.md").read_text().splitlines()}
    assert {"| plain,split=1", "| vcreg,split=3 - plain,split=3", "| vcreg, mean of 3 splits - plain, mean of 3 splits"
            } <= labels  # fmt: skip


def test_nothing_is_chosen_on_test():
    def summary(label, value, **changes):
        row = {"metric": "top1", "unit": "%", "higher_is_better": True, "dataset": "d", "dataset_config": "class"}
        result = Result(**{**row, "split": "val", **changes}, value=value)
        return over_seeds([(Group(label=label, id=label), 0, [result])])[0]

    rows = [summary("a", 1.0), summary("b", 2.0), summary("c", 3.0), summary("a", 9.0, split="test")]
    assert module._choose(rows, "top1", {"a", "b", "c"}).group.label == "c"
    assert module._choose(rows, "top1", {"a", "b"}).group.label == "b", "only what this search tried"
    lower = [replace(one, quantity=replace(one.quantity, higher_is_better=False)) for one in rows]
    assert module._choose(lower, "top1", {"a", "b", "c"}).group.label == "a"
    with pytest.raises(UsageError, match="no run reports probe_top1 on val; there are top1"):
        module._choose(rows, "probe_top1", {"a"})
    with pytest.raises(UsageError, match="no run reports top1 on val"):
        module._choose(rows[3:], "top1", {"a"})


def test_settings_reach_every_variant_and_a_variant_s_own_come_after(tmp_path, monkeypatch):
    ran = fake_runs(monkeypatch, lambda recipe: 50.0)
    recipe = "action_shapes:videomae_tiny"
    variants = (
        Variant("plain", recipe, baseline=True),
        Variant("vcreg", f"{recipe}_vcreg"),
        Variant("variance alone", f"{recipe}_vcreg", settings=("vcreg.beta=0", "train.epochs=4")),
    )
    experiment = Experiment(variants, "top1", (100,), (0, 1), settings=("train.epochs=3",))
    found = run_experiment(experiment, tmp_path, log=lambda text: None)
    assert {trial.label: trial.recipe.train.epochs for trial in ran} == {"plain": 3, "vcreg": 3, "variance alone": 4}
    assert {trial.label: trial.recipe.vcreg and trial.recipe.vcreg.beta for trial in ran}["variance alone"] == 0
    assert {pair.label for pair in differences(found)} == {"vcreg - plain", "variance alone - plain"}
