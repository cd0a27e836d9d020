"""`vcreg sweep`: what is trained, by a grid or a search, and what is refused before anything is."""

from __future__ import annotations

import json
import sys

import pytest
from experiments.test_runner import finished
from typer.testing import CliRunner

from vcreg_hub.cli import app, main

BASE = ["sweep", "digits:convnext_atto_vcreg", "--out", "s"]
OPTUNA = [*BASE, "--search", "optuna", "--metric", "top1", "--set", "data.val_fraction=0.2"]


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The trials in the order they are run; each ends at once, better the nearer its alpha is to 1."""
    monkeypatch.chdir(tmp_path)
    ran = []

    def run_trials(todo, out, jobs=1, log=print, launch=None):
        log(f"{len(todo)} runs")
        for trial in todo:
            ran.append((trial, launch))
            value = 10.0 if trial.recipe.vcreg is None else 50 - (trial.recipe.vcreg.alpha - 1) ** 2
            finished(out / trial.path, trial.recipe, top1=value)

    monkeypatch.setattr("vcreg_hub.experiments.runner.run_trials", run_trials)
    return ran


def invoke(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def paths(trained):
    return [str(trial.path) for trial, _ in trained]


def test_a_grid_with_its_plain_variant(trained):
    result = invoke(*BASE, "--grid", "vcreg.alpha=0.5,1", "--plain", "--seeds", "0,1")
    assert paths(trained) == [
        "plain/seed0", "plain/seed1", "alpha=0.5/seed0", "alpha=1/seed0", "alpha=0.5/seed1", "alpha=1/seed1",
    ]  # fmt: skip
    assert "| plain |" in result.stdout and "alpha=1" in result.stdout
    assert "best" not in result.stdout, "a grid's values are test results: none is chosen"


def test_a_random_search(trained):
    told = json.loads(invoke(*BASE, "--search", "random", "--space", "vcreg.alpha=0.1..10:log", "--trials", "3",
                             "--plain", "--json").stdout)  # fmt: skip
    assert len(trained) == 4 and trained[0][0].recipe.vcreg is None
    assert len({row["label"] for row in told["summaries"]}) == 4 and told["best"] is None


def test_optuna_names_the_best_as_it_is_set(trained):
    result = invoke(*OPTUNA, "--space", "vcreg.alpha=0.1..10:log", "--space", "where=final,stages.*", "--trials", "6",
                    "--plain")  # fmt: skip
    assert trained[0][0].recipe.vcreg is None and len(trained) == 7
    assert all(trial.recipe.eval.split == "val" for trial, _ in trained)
    best = max((trial for trial, _ in trained[1:]), key=lambda trial: -abs(trial.recipe.vcreg.alpha - 1))
    last = result.stdout.splitlines()[-1]
    assert f"--set vcreg.alpha={dict(best.settings)['vcreg.alpha']}" in last
    assert ("--set 'where=stages.*'" if best.recipe.where == "stages.*" else "--set where=final") in last


def test_a_cluster_gets_the_runs(trained, monkeypatch):
    asked = []
    monkeypatch.setattr("vcreg_hub.experiments.slurm.Slurm", lambda folder, given: asked.append((folder, given)) or "q")
    invoke(*BASE, "--launcher", "slurm", "--slurm", "partition=gpu", "--slurm", "gpus_per_node=1")
    assert [launch for _, launch in trained] == ["q"]
    assert asked[0][1] == {"partition": "gpu", "gpus_per_node": "1"} and asked[0][0].parts == ("s", "slurm")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([*BASE, "--search", "random"], "--search and --space"),
        ([*BASE, "--space", "vcreg.alpha=1..2"], "--search and --space"),
        ([*BASE, "--search", "random", "--space", "vcreg.alpha=1..2", "--grid", "vcreg.beta=1"], "--grid alone"),
        ([*BASE, "--search", "optuna", "--space", "vcreg.alpha=1..2"], "needs --metric"),
        ([*BASE, "--metric", "top1"], "nothing else takes it"),
        ([*BASE, "--search", "optuna", "--metric", "top1", "--space", "vcreg.alpha=1..2"], "data.val_fraction"),
        ([*OPTUNA, "--space", "optim.lr=1e-4..1e-2", "--plain"], "the regularizer alone"),
        ([*BASE, "--search", "random", "--space", "vcreg.alfa=1..2"], "did you mean 'vcreg.alpha'"),
        ([*BASE, "--grid", "model.name=convnext_atto,convnext_ato"], "convnext_ato"),
        (["sweep", "digits:convnext_atto", "--out", "s", "--plain"], "this recipe has none"),
        ([*BASE, "--slurm", "partition=gpu"], "--launcher slurm"),
        ([*BASE, "--launcher", "slurm", "--slurm", "partition"], "NAME=VALUE"),
    ],
)
def test_refusals(trained, monkeypatch, capsys, arguments, part):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "argv", ["vcreg", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert part in capsys.readouterr().err
    assert not trained
