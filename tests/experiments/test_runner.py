"""Grids, pooling over seeds, and the choice that never looks at test data."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import RunFolderError, UsageError
from vcreg_hub.experiments import runner as study
from vcreg_hub.experiments.runner import cells, parse_grid, parse_seeds, run_cells
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.summary import choose, markdown, read_summary, summarise, write_report
from vcreg_hub.rundir import RunDir

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits"), vcreg=VCReg())


def finished(path, recipe, **values):
    write_tensors(path / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(path).write_recipe(recipe)
    row = {"unit": "%", "higher_is_better": True, "dataset": "digits", "dataset_config": "class", "split": "val"}
    write_json(path / "results.json", {"metrics": [{"metric": m, "value": v, **row} for m, v in values.items()]})
    write_json(path / "env.json", {})
    return path


def test_cells_cover_the_grid_seed_by_seed():
    found = cells(RECIPE, parse_grid(["vcreg.alpha=1.28,0.64", "vcreg.beta=0.16"]), parse_seeds("3,4"))
    assert [str(cell.path) for cell in found] == [
        "alpha=1.28,beta=0.16/seed3",
        "alpha=0.64,beta=0.16/seed3",
        "alpha=1.28,beta=0.16/seed4",
        "alpha=0.64,beta=0.16/seed4",
    ]
    assert found[0].recipe.vcreg == VCReg(alpha=1.28, beta=0.16)
    assert found[2].recipe.train.seed == 4
    assert parse_grid(["optim.betas=[0.9,0.99],[0.8, 0.9]"]) == {"optim.betas": ["[0.9,0.99]", "[0.8, 0.9]"]}
    betas = [c.recipe.optim.betas for c in cells(RECIPE, parse_grid(["optim.betas=[0.9,0.99],[0.8, 0.9]"]), [0])]
    assert betas == [(0.9, 0.99), (0.8, 0.9)]
    with pytest.raises(UsageError, match=r"repeats a run: alpha=0\.50/seed0 is alpha=0\.5/seed0"):
        cells(RECIPE, parse_grid(["vcreg.alpha=0.5,0.50"]), [0])
    with pytest.raises(UsageError, match=r"vcreg\.alpha is in the grid twice"):
        parse_grid(["vcreg.alpha=0.5", "vcreg.alpha=0.6"])
    with pytest.raises(UsageError, match="--seeds"):
        parse_grid(["train.seed=1,2"])
    for wrong in ("vcreg.alpha", "=1", "vcreg.alpha="):
        with pytest.raises(UsageError):
            parse_grid([wrong])
    for wrong in ("a", "1,1", ""):
        with pytest.raises(UsageError):
            parse_seeds(wrong)


def test_summary_pools_seeds_and_nothing_else(tmp_path):
    values = [80.0, 82.0, 81.0]
    for seed, value in enumerate(values):
        recipe = replace(RECIPE, train=replace(RECIPE.train, seed=seed))
        finished(tmp_path / "vcreg" / f"seed{seed}", recipe, probe_top1=value)
    plain = replace(RECIPE, vcreg=None)
    finished(tmp_path / "plain" / "seed0", plain, probe_top1=70.0)
    longer = replace(plain, train=replace(plain.train, epochs=9))
    finished(tmp_path / "longer" / "seed1", replace(longer, train=replace(longer.train, seed=1)), probe_top1=75.0)
    rows = {row["label"]: row for row in summarise([tmp_path])}
    assert rows.keys() == {"vcreg", "plain", "longer"}
    assert rows["vcreg"]["mean"] == pytest.approx(statistics.fmean(values))
    assert rows["vcreg"]["std"] == pytest.approx(statistics.stdev(values))
    assert rows["vcreg"]["seeds"] == [0, 1, 2] and rows["vcreg"]["n"] == 3
    assert rows["plain"]["std"] is None, "one seed has no standard deviation"
    assert choose(list(rows.values()), "probe_top1")["label"] == "vcreg"
    table = markdown(list(rows.values()))
    assert "81.00 ± 1.00 %" in table and "70.00 % | 1 |" in table


def test_unfinished_runs_do_not_count(tmp_path):
    finished(tmp_path / "a" / "seed0", RECIPE, top1=50.0)
    (finished(tmp_path / "b" / "seed0", RECIPE, top1=60.0) / "model.safetensors").unlink()
    assert [row["label"] for row in summarise([tmp_path])] == ["a"]
    with pytest.raises(RunFolderError, match="no complete run"):
        summarise([tmp_path / "b"])


def test_nothing_is_chosen_on_test(tmp_path):
    finished(tmp_path / "a" / "seed0", RECIPE, top1=50.0)
    rows = summarise([tmp_path])
    with pytest.raises(UsageError, match="never on test"):
        choose(rows, "top1", split="test")
    with pytest.raises(UsageError, match="there are top1"):
        choose(rows, "probe_top1")


def test_report_files(tmp_path):
    finished(tmp_path / "plain" / "seed0", replace(RECIPE, vcreg=None), top1=50.0)
    finished(tmp_path / "vcreg" / "seed0", RECIPE, top1=51.0)
    rows = summarise([tmp_path])
    write_report(tmp_path, rows)
    assert read_summary(tmp_path) == rows
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.md").read_text().startswith("| run | top1 (class, val) | seeds |")


def test_a_failing_run_is_named_and_the_complete_ones_are_skipped(tmp_path):
    broken = replace(RECIPE, data=replace(RECIPE.data, name="no_such_data"))
    done, failing = cells(RECIPE, {}, [0], "done")[0], cells(broken, {}, [0], "failing")[0]
    finished(tmp_path / done.path, done.recipe, top1=50.0)
    said = []
    failed = run_cells([done, failing], tmp_path, jobs=2, say=said.append)
    assert said[0] == "2 runs, 1 complete already, 2 at a time"
    assert len(failed) == 1 and "no_such_data" in failed[0] and failed[0].startswith("failing/seed0")


def test_runs_of_one_folder_keep_apart(tmp_path):
    finished(tmp_path / "a", RECIPE, top1=77.0)
    finished(tmp_path / "b", replace(RECIPE, vcreg=None), top1=64.0)
    finished(tmp_path / "more" / "a", replace(RECIPE, where="final"), top1=70.0)
    table = markdown(summarise([tmp_path]))
    assert all(number in table for number in ("77.00", "64.00", "70.00"))


def test_a_study_never_shows_another_recipe_s_runs(tmp_path):
    cell = cells(RECIPE, {}, [0], "a")[0]
    finished(tmp_path / cell.path, cell.recipe, top1=50.0)
    assert run_cells([cell], tmp_path, say=lambda _: None) == []
    changed = cells(replace(RECIPE, where="final"), {}, [0], "a")
    with pytest.raises(UsageError, match=r"differs in where"):
        run_cells(changed, tmp_path, say=lambda _: None)


def test_a_path_in_a_grid_is_part_of_one_folder_s_name():
    starts = ["weights/one.safetensors", "weights/two.safetensors"]
    found = cells(RECIPE, {"model.pretrained": starts}, [0])
    assert [cell.recipe.model.pretrained for cell in found] == starts
    assert [str(cell.path) for cell in found] == [f"pretrained=weights%2F{n}.safetensors/seed0" for n in ("one", "two")]


def test_runs_share_the_processors_unless_somebody_said_how(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "vcreg_hub.experiments.runner.subprocess.Popen", lambda command, **how: started.append(how["env"])
    )
    (cell,) = cells(RECIPE, {}, [0])
    monkeypatch.delenv("VCREG_THREADS", raising=False)
    study._start(cell, tmp_path, 3)
    monkeypatch.setenv("VCREG_THREADS", "7")
    study._start(cell, tmp_path, 3)
    assert [env["VCREG_THREADS"] for env in started] == ["3", "7"]
