"""Evaluations of any trained network: releases, exports, modules and runs, by name or from Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import timm
import torch

import vcreg_hub
from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.errors import ConfigError, RunFolderError, UnknownNameError, UsageError
from vcreg_hub.evals import extraction
from vcreg_hub.evals.knn import KNN
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.run import evaluate_run

GREY = "resnet32_cifar_vcreg.fashion_mnist"
DIGITS = ["data.name=digits", "data.workers=0"]
RECIPE = Recipe(
    name="small",
    model=Model("test_convnext"),
    data=Data("digits", image_size=32, train_images=64, workers=0),
    train=Train(batch_size=32),
    evals=(LinearProbe(),),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vcreg_hub.train(RECIPE, tmp_path_factory.mktemp("runs") / "run", log=lambda text: None).path


def values(rows):
    return {row.metric: row.value for row in rows}


def test_a_release_is_measured_on_the_data_that_are_named():
    found = vcreg_hub.evaluate(GREY, "knn", settings=DIGITS)
    assert {row.dataset for row in found} == {"digits"} and {row.split for row in found} == {"test"}
    assert values(found)["knn10_top1"] > 80, "digits are easy, also for what clothes taught"
    assert all(f"weights of {GREY}" in row.protocol for row in found)


def test_a_suite_is_tags_or_evaluations():
    one = vcreg_hub.evaluate(GREY, KNN(), settings=DIGITS)
    other = vcreg_hub.evaluate(GREY, (KNN(data=Data("digits", workers=0)),))
    assert values(one) == values(other) == values(vcreg_hub.evaluate(GREY, ["knn"], settings=DIGITS))
    both = vcreg_hub.evaluate(GREY, "knn,linear_probe", settings=[*DIGITS, "evals.linear_probe.penalty=10"])
    assert "probe_top1" in values(both) and "knn10_top1" in values(both)


def test_a_module_and_its_export_give_the_same(tmp_path, run):
    exported = vcreg_hub.export(run, tmp_path / "out", licence="mit")
    network = timm.create_model(f"local-dir:{exported}", pretrained=True)
    settings = [*DIGITS, "data.train_images=64"]
    one = vcreg_hub.evaluate(network, "linear_probe", settings=settings)
    other = vcreg_hub.evaluate(exported, "linear_probe", settings=settings)
    assert values(one) == values(other) == values(evaluate_run(run))


def test_a_run_has_its_own_evaluations_and_takes_others(run):
    assert values(vcreg_hub.evaluate(run)) == values(evaluate_run(run))
    assert "knn10_top1" in values(vcreg_hub.evaluate(str(run), "knn"))
    before = json.loads((run / "results.json").read_text(encoding="utf-8"))
    vcreg_hub.evaluate(run, "classification", save=True)
    after = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {row["metric"] for row in after["metrics"]} - {row["metric"] for row in before["metrics"]} == {
        "top1", "top5", "loss",
    }  # fmt: skip


def test_frozen_features_are_kept_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("VCREG_FEATURES_DIR", str(tmp_path))
    first = vcreg_hub.evaluate(GREY, "knn", settings=DIGITS, cache=False)
    assert not list(tmp_path.rglob("*.safetensors"))
    vcreg_hub.evaluate(GREY, "knn", settings=DIGITS)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2, "training and test images"
    monkeypatch.setattr(extraction, "_part", lambda *_: pytest.fail("extracted again"))
    again = vcreg_hub.evaluate(GREY, "knn,collapse", settings=[*DIGITS, "data.labels=superclass"])
    assert values(first).items() <= values(again).items(), "of knn the labels are the classes, whatever others see"


def test_features_command_and_evaluations_share_what_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("VCREG_FEATURES_DIR", str(tmp_path))
    vcreg_hub.features(GREY, "digits", split="train")
    vcreg_hub.features(GREY, "digits", split="test")
    monkeypatch.setattr(extraction, "_part", lambda *_: pytest.fail("extracted again"))
    assert values(vcreg_hub.evaluate(GREY, "knn", settings=DIGITS))["knn10_top1"] > 80


@pytest.mark.parametrize(
    ("model", "suite", "settings", "kind", "part"),
    [
        (GREY, None, DIGITS, UsageError, "which evaluations of"),
        (GREY, "knn", [], UsageError, "is no run, so it has no data of its own"),
        (GREY, "knm", DIGITS, UnknownNameError, "did you mean 'knn'"),
        (GREY, "knn", ["data.name=digitz"], UnknownNameError, "did you mean 'digits'"),
        (GREY, "classification", DIGITS, UsageError, "digits has other classes than this network was trained for"),
        (GREY, "knn", [*DIGITS, "eval.split=val"], ConfigError, "nothing is held out"),
        ("no/such/run", None, [], RunFolderError, "not a complete run folder"),
        ("resnet_no", "knn", DIGITS, UnknownNameError, "unknown model"),
    ],
)
def test_what_cannot_be_measured_says_why(model, suite, settings, kind, part):
    with pytest.raises(kind) as error:
        vcreg_hub.evaluate(model, suite, settings=settings)
    assert part in str(error.value)


def test_only_a_run_keeps_its_rows():
    with pytest.raises(UsageError, match="save puts rows into a run's results"):
        vcreg_hub.evaluate(GREY, "knn", settings=DIGITS, save=True)


def test_training_by_address_or_file(tmp_path, run):
    with pytest.raises(UnknownNameError, match="did you mean"):
        vcreg_hub.train("digit:convnext_atto", tmp_path / "x")
    with pytest.raises(UsageError, match="there is no recipe file"):
        vcreg_hub.train("nothing.json", tmp_path / "x")
    again = vcreg_hub.train(run / "recipe.json", tmp_path / "again", log=lambda text: None)
    one, other = again.tensors(), vcreg_hub.rundir.RunDir(run).tensors()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_command(run, capsys):
    from vcreg_hub.cli.use import eval_

    eval_(GREY, "knn", DIGITS, False, True, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {row["metric"] for row in rows} == {"knn10_top1", "knn20_top1", "knn200_top1"}
    eval_(str(run), None, ["evals.linear_probe.penalty=10"], False, True)
    assert "probe_top1" in capsys.readouterr().out
    with pytest.raises(UnknownNameError, match="did you mean"):
        eval_(str(run), None, ["evals.linear_probe.penalti=10"], False, True)


def test_two_processes_give_one_answer(run):
    program = (
        "import sys; sys.argv = ['vcreg', 'eval', *sys.argv[1:], '--json']; from vcreg_hub.cli import main; main()"
    )
    import two_processes

    words = [GREY, "--suite", "knn", "--set", "data.name=digits", "--set", "data.workers=0", "--no-cache"]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(two_processes.free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        texts = [process.communicate(timeout=200)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert texts[1] == ""
    found = {row["metric"]: row["value"] for row in json.loads(texts[0])}
    assert found == pytest.approx(values(vcreg_hub.evaluate(GREY, "knn", settings=DIGITS)), abs=0.3)
