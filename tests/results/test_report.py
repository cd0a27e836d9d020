"""Reports of finished runs: seeds are pooled and nothing else, and nothing is chosen by test data."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import RunFolderError
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.report import find_runs, read_summary, summarise, tabulated, write_report
from vcreg_hub.rundir import RunDir

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits"), vcreg=VCReg())


def finished(path, recipe, **values):
    write_tensors(path / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(path).write_recipe(recipe)
    row = {"unit": "%", "higher_is_better": True, "dataset": "digits", "dataset_config": "class", "split": "val"}
    write_json(path / "results.json", {"metrics": [{"metric": m, "value": v, **row} for m, v in values.items()]})
    write_json(path / "env.json", {})
    return path


def test_summary_pools_seeds_and_nothing_else(tmp_path):
    values = [80.0, 82.0, 81.0]
    for seed, value in enumerate(values):
        recipe = replace(RECIPE, train=replace(RECIPE.train, seed=seed))
        finished(tmp_path / "vcreg" / f"seed{seed}", recipe, probe_top1=value)
    plain = replace(RECIPE, vcreg=None)
    finished(tmp_path / "plain" / "seed0", plain, probe_top1=70.0)
    longer = replace(plain, train=replace(plain.train, epochs=9))
    finished(tmp_path / "longer" / "seed1", replace(longer, train=replace(longer.train, seed=1)), probe_top1=75.0)
    rows = {row.group.label: row for row in summarise([tmp_path])}
    assert rows.keys() == {"vcreg", "plain", "longer"}
    assert rows["vcreg"].mean == pytest.approx(statistics.fmean(values))
    assert rows["vcreg"].std == pytest.approx(statistics.stdev(values))
    assert rows["vcreg"].seeds == (0, 1, 2) and rows["vcreg"].n == 3
    assert rows["plain"].std is None, "one seed has no standard deviation"
    table = tabulated(list(rows.values())).markdown()
    assert "81.00 ± 1.00 %" in table and "70.00 % | 1 |" in table


def test_unfinished_runs_do_not_count(tmp_path):
    finished(tmp_path / "a" / "seed0", RECIPE, top1=50.0)
    (finished(tmp_path / "b" / "seed0", RECIPE, top1=60.0) / "model.safetensors").unlink()
    assert [row.group.label for row in summarise([tmp_path])] == ["a"]
    with pytest.raises(RunFolderError, match="no complete run"):
        summarise([tmp_path / "b"])


def test_report_files(tmp_path):
    finished(tmp_path / "plain" / "seed0", replace(RECIPE, vcreg=None), top1=50.0)
    finished(tmp_path / "vcreg" / "seed0", RECIPE, top1=51.0)
    rows = summarise([tmp_path])
    write_report(tmp_path, rows)
    assert read_summary(tmp_path) == rows
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.md").read_text().startswith("| run | top1 (class, val) | seeds |")


def test_runs_of_one_folder_keep_apart(tmp_path):
    finished(tmp_path / "a", RECIPE, top1=77.0)
    finished(tmp_path / "b", replace(RECIPE, vcreg=None), top1=64.0)
    finished(tmp_path / "more" / "a", replace(RECIPE, where="final"), top1=70.0)
    table = tabulated(summarise([tmp_path])).markdown()
    assert all(number in table for number in ("77.00", "64.00", "70.00"))


def test_a_recipe_with_vcreg_is_compared_to_the_one_without_whatever_they_are_called(tmp_path):
    for seed in (0, 1):
        train = replace(RECIPE.train, seed=seed)
        finished(tmp_path / "ours" / f"seed{seed}", replace(RECIPE, train=train), top1=51.0 + seed)
        finished(tmp_path / "without" / f"seed{seed}", replace(RECIPE, vcreg=None, train=train), top1=50.0)
    rows = summarise([tmp_path])
    assert "| ours - without | +1.50 ± 0.71 points (95% CI -4.85 to +7.85) | 2 |" in tabulated(rows).markdown()
    write_report(tmp_path, rows)
    (kept,) = json.loads((tmp_path / "summary.json").read_text())["differences"]
    assert (kept["label"], kept["values"], kept["n"]) == ("ours - without", [1.0, 2.0], 2)
    assert tabulated(read_summary(tmp_path)).markdown() == tabulated(rows).markdown()
    ids = {row.group.label: row.group.id for row in rows}
    given = summarise([tmp_path], {ids["without"]: ids["ours"]})
    assert "| without - ours | -1.50" in tabulated(given).markdown(), "a study says what its baseline is"


def test_a_folder_that_is_not_there_is_named_beside_one_that_is(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(RunFolderError, match=r"there is no folder .*gone"):
        find_runs([tmp_path / "there", tmp_path / "gone"])
