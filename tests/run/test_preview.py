"""What `train --dry-run` tells, and the line that tells an epoch."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vcreg_hub.cli import app
from vcreg_hub.config.overrides import override
from vcreg_hub.errors import ConfigError
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import preview
from vcreg_hub.run.telling import _epoch_line

SMALL = ["model.name=test_convnext", "data.train_images=128", "train.epochs=3", "optim.warmup_epochs=1"]


def test_a_dry_run_tells_what_a_run_would_do_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["train", "digits:convnext_atto_vcreg", "--dry-run", "--json", *settings])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["steps"] == "6: 3 epochs x 2 steps of 64 samples"
    assert "128 train, 0 val, 500 test" in told["recipe"] and "VCReg at 9 sites" in told["recipe"]
    assert told["learning rate"].startswith("2e-05 at first, 0.002 at its peak")
    assert told["evaluations"] == "classification on digits/superclass, linear_probe on digits/class"
    assert told["regularizer"].startswith("stages.0.blocks.0, ")
    assert not list(tmp_path.iterdir())
    assert "nothing was trained" in result.stderr


def test_a_baseline_and_a_cap_on_the_steps():
    recipe = override(load_recipe("digits:convnext_atto"), [*SMALL, "train.max_steps=4", "train.accumulation=2"])
    told = preview(recipe)
    assert told["regularizer"] == "none" and "plain" in told["recipe"]
    assert told["steps"] == "4: 3 epochs x 2 steps of 64 samples, 2 micro-batches a step"


def test_what_a_run_would_refuse_is_refused():
    with pytest.raises(ConfigError, match="nothing is held out"):
        preview(override(load_recipe("digits:convnext_atto"), ["eval.split=val"]))


def test_an_epoch_is_a_line_of_at_most_100_characters():
    row = {"epoch": 12, "step": 3400, "lr": 0.00123456, "train_loss": 2.3456789, "seconds": 12345.67,
           "samples_per_second": 123456.7, "vcreg_variance_loss": 0.123456, "vcreg_covariance_loss": 123.456,
           "val_top1": 56.789, "val_loss": 1.23456}  # fmt: skip
    line = _epoch_line(row, 100)
    assert line.startswith("epoch 12/100  train_loss 2.346  val_top1 56.79  val_loss 1.235  lr 0.001235")
    assert len(line) <= 100
    many = {f"train_{i}": float(i) for i in range(40)}
    assert len(_epoch_line(row | many, 100)) <= 100
