"""The mean over train/test splits: each split counts once, and nothing else is pooled. Runs are written as folders."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe, Video
from vcreg_hub.experiments.grid import expand_grid
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.aggregate import over_splits
from vcreg_hub.results.report import read_summary, summarise, tabulated, write_report
from vcreg_hub.rundir import RunDir

RECIPE = Recipe("r", Model("videomae_tiny"), Data("action_shapes"), vcreg=VCReg(), video=Video())
SPLITS = {"video.split": ("1", "2", "3")}


def finished(root, trial, top1):
    path = root / trial.path
    write_tensors(path / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(path).write_recipe(trial.recipe)
    video = trial.recipe.video
    row = {
        "metric": "top1", "value": top1, "unit": "%", "higher_is_better": True, "dataset": "action_shapes",
        "dataset_config": "class", "split": "test", "fold": video.split,
        **({"sigma": video.noise} if video.noise else {}),
    }  # fmt: skip
    write_json(path / "results.json", {"metrics": [row]})
    write_json(path / "env.json", {})


def test_a_seed_counts_as_its_mean_over_the_splits(tmp_path):
    values = {(1, 0): 60.0, (2, 0): 70.0, (3, 0): 80.0, (1, 1): 64.0, (2, 1): 70.0, (3, 1): 82.0}
    for label, recipe, lift in (("vcreg", RECIPE, 1.0), ("plain", replace(RECIPE, vcreg=None), 0.0)):
        for trial in expand_grid(recipe, SPLITS, (0, 1), label):
            finished(tmp_path, trial, values[trial.recipe.video.split, trial.recipe.train.seed] + lift)
    rows = summarise([tmp_path])
    assert {row.group.label for row in rows} == {f"{k},split={i}" for k in ("plain", "vcreg") for i in (1, 2, 3)}
    assert all(row.n == 2 for row in rows), "splits are not pooled with seeds"
    means = {row.group.label: row for row in over_splits(rows)}
    assert means.keys() == {"plain, mean of 3 splits", "vcreg, mean of 3 splits"}
    plain = means["plain, mean of 3 splits"]
    assert plain.values == (70.0, 72.0) and plain.folds == (1, 2, 3) and plain.quantity.fold is None
    assert plain.std == pytest.approx(statistics.stdev([70.0, 72.0]))
    assert means["vcreg, mean of 3 splits"].mean == 72.0
    write_report(tmp_path, rows)
    assert [row.group.label for row in read_summary(tmp_path) if row.folds] == list(means)
    table = tabulated([*rows, *over_splits(rows)]).markdown()
    difference = (
        "| vcreg, mean of 3 splits - plain, mean of 3 splits | +1.00 ± 0.00 points (95% CI +1.00 to +1.00) | 2 |"
    )
    assert difference in table and "| vcreg,split=2 - plain,split=2 | +1.00 ± 0.00 points" in table
    assert "| plain, mean of 3 splits | 71.00 ± 1.41 % | 2 |" in tabulated([*rows, *over_splits(rows)]).markdown()


def test_a_seed_that_a_split_lacks_does_not_count(tmp_path):
    for trial in expand_grid(RECIPE, SPLITS, (0, 1), "vcreg")[:4]:
        finished(tmp_path, trial, 50.0 + trial.recipe.video.split)
    (row,) = over_splits(summarise([tmp_path]))
    assert row.seeds == (0,) and row.std is None and row.mean == 52.0


def test_noise_and_other_settings_keep_apart(tmp_path):
    for sigma in ("0", "1.5"):
        for trial in expand_grid(RECIPE, {"video.noise": (sigma,), **SPLITS}, (0,), "vcreg"):
            finished(tmp_path, trial, 60.0 - 10 * float(sigma))
    for trial in expand_grid(replace(RECIPE, where="final"), SPLITS, (0,), "final"):
        finished(tmp_path, trial, 30.0)
    found = {row.group.label: row.mean for row in over_splits(summarise([tmp_path]))}
    assert found == {
        "vcreg,noise=0, mean of 3 splits": 60.0,
        "vcreg,noise=1.5, mean of 3 splits": 45.0,
        "final, mean of 3 splits": 30.0,
    }


def test_one_split_has_no_mean(tmp_path):
    for trial in expand_grid(RECIPE, {"video.split": ("2",)}, (0, 1), "vcreg"):
        finished(tmp_path, trial, 50.0)
    assert over_splits(summarise([tmp_path])) == []
