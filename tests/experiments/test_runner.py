"""Trials as processes: what is complete is skipped, what fails is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import UsageError, VCRegError
from vcreg_hub.experiments import runner
from vcreg_hub.experiments.grid import expand_grid
from vcreg_hub.experiments.runner import run_trials
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.rundir import RunDir

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits"), vcreg=VCReg())


def finished(path, recipe, **values):
    write_tensors(path / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(path).write_recipe(recipe)
    row = {"unit": "%", "higher_is_better": True, "dataset": "digits", "dataset_config": "class", "split": "val"}
    write_json(path / "results.json", {"metrics": [{"metric": m, "value": v, **row} for m, v in values.items()]})
    write_json(path / "env.json", {})
    return path


def test_a_failing_run_is_named_and_the_complete_ones_are_skipped(tmp_path):
    broken = replace(RECIPE, data=replace(RECIPE.data, name="no_such_data"))
    done, failing = expand_grid(RECIPE, {}, [0], "done")[0], expand_grid(broken, {}, [0], "failing")[0]
    finished(tmp_path / done.path, done.recipe, top1=50.0)
    said = []
    with pytest.raises(VCRegError, match=r"^1 runs failed; the others are kept:\n  failing/seed0: .*no_such_data.*$"):
        run_trials([done, failing], tmp_path, jobs=2, log=said.append)
    assert said[0] == "2 runs, 1 complete already, 2 at a time" and said[1].startswith("failed  failing/seed0: ")


def test_a_study_never_shows_another_recipe_s_runs(tmp_path):
    trial = expand_grid(RECIPE, {}, [0], "a")[0]
    finished(tmp_path / trial.path, trial.recipe, top1=50.0)
    run_trials([trial], tmp_path, log=lambda _: None)
    changed = expand_grid(replace(RECIPE, where="final"), {}, [0], "a")
    with pytest.raises(UsageError, match=r"differs in where"):
        run_trials(changed, tmp_path, log=lambda _: None)


def test_runs_share_the_processors_unless_somebody_said_how(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "vcreg_hub.experiments.runner.subprocess.Popen", lambda command, **how: started.append(how["env"])
    )
    (trial,) = expand_grid(RECIPE, {}, [0])
    monkeypatch.delenv("VCREG_THREADS", raising=False)
    runner._start(trial, tmp_path, 3)
    monkeypatch.setenv("VCREG_THREADS", "7")
    runner._start(trial, tmp_path, 3)
    assert [env["VCREG_THREADS"] for env in started] == ["3", "7"]
