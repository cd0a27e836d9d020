"""A loss or gradient that is not finite: the run ends, leaves the step out, or goes back; step and place are named."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from vcreg_hub.config import override
from vcreg_hub.errors import DivergedError
from vcreg_hub.files import read_tensors
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import train
from vcreg_hub.run.telling import warn_of_strength
from vcreg_hub.tasks.classification import Classification
from vcreg_hub.training.journal import Journal

# Batch normalisation, whose running statistics a broken batch breaks too. Two epochs of four steps.
TINY = override(
    load_recipe("digits:convnext_atto_vcreg"),
    ["model.name=resnet10t", "data.image_size=32", "data.train_images=64", "data.workers=0", "train.batch_size=16",
     "train.epochs=2", "train.precision=no", "train.min_steps=null", "optim.warmup_epochs=0", "evals=[]",
     "train.ema_decay=0.5"],
)  # fmt: skip


def poisoned(monkeypatch, steps, how):
    """Break the training steps of these numbers, from 1: each is the only one that is differentiated."""
    call, seen = Classification.loss, []

    def loss(self, module, batch, settings):
        if not torch.is_grad_enabled():
            return call(self, module, batch, settings)
        seen.append(1)
        if how == "batch" and len(seen) in steps:
            batch[0].mul_(math.nan)  # in place: the batch itself is broken, whoever looks at it
        found = call(self, module, batch, settings)
        if how == "gradient" and len(seen) in steps:
            found["loss"].register_hook(lambda grad: grad * math.nan)
        return found

    monkeypatch.setattr(Classification, "loss", loss)


def told(tmp_path, name, *settings):
    lines = []
    folder = train(override(TINY, list(settings)), tmp_path / name, log=lines.append)
    return folder, [line for line in lines if "not finite" in line]


def rows_of(folder):
    return list(csv.DictReader((folder.path / "metrics.csv").read_text().splitlines()))


def is_finite(folder):
    return all(torch.isfinite(one).all() for one in read_tensors(folder.path / "model.safetensors").values())


@pytest.mark.parametrize(("how", "place"), [("batch", "output of conv1.0"), ("gradient", "gradient of fc.bias")])
def test_a_run_stops_before_the_step_is_taken(tmp_path, monkeypatch, how, place):
    poisoned(monkeypatch, {6}, how)
    with pytest.raises(DivergedError, match=rf"step 6 \(epoch 2\) is not finite; first seen in {place}"):
        train(TINY, tmp_path / "run", log=lambda text: None)
    [line] = Journal(tmp_path / "run").lines("diverged")
    assert (line["step"], line["place"], line["action"]) == (6, place, "stop")


@pytest.mark.parametrize("how", ["batch", "gradient"])
def test_a_step_is_left_out(tmp_path, monkeypatch, how):
    """Weights, statistics, average and sums are those of a run whose optimizer skipped that step."""
    poisoned(monkeypatch, {2, 6}, how)
    folder, lines = told(tmp_path, "run", "train.on_nan=skip")
    assert is_finite(folder) and len(lines) == 2
    assert "step 2 was not finite, first seen in " in lines[0] and "1 step left out" in lines[0]
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == ["4", "8"], "steps left out count"
    assert all(0 < float(row["train_loss"]) < 10 for row in rows)
    found = folder.results()["training"]["not_finite"]
    assert [(one["step"], one["action"]) for one in found] == [(2, "skip"), (6, "skip")]
    state = read_tensors(folder.path / "model.safetensors")
    assert int(state["bn1.num_batches_tracked"]) > 0


def test_a_step_left_out_is_one_whose_rate_was_zero(tmp_path, monkeypatch):
    """Without decay, momentum and statistics a step at rate 0 changes nothing either."""
    from vcreg_hub.training import loop

    plain = [
        "optim.name=momentum",
        "optim.momentum=0",
        "optim.weight_decay=0",
        "model.name=test_convnext",
        "train.ema_decay=null",
    ]
    lr_at = loop.lr_at
    with monkeypatch.context() as patch:
        patch.setattr(loop, "lr_at", lambda optim, step, *rest: 0.0 if step == 2 else lr_at(optim, step, *rest))
        still, _ = told(tmp_path, "still", *plain)
    poisoned(monkeypatch, {3}, "gradient")
    skipped, _ = told(tmp_path, "skipped", *plain, "train.on_nan=skip")
    one, other = (read_tensors(folder.path / "model.safetensors") for folder in (still, skipped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_back_to_its_last_state_and_on_from_there(tmp_path, monkeypatch):
    """What was learnt since the first epoch ended is undone: the second epoch's last step begins with its weights."""
    from vcreg_hub.training import loop

    lr_at = loop.lr_at
    plain = ["model.name=test_convnext", "train.ema_decay=null"]
    poisoned(monkeypatch, {7}, "gradient")
    folder, lines = told(tmp_path, "run", *plain, "train.on_nan=rollback")
    assert "step 7 was not finite" in lines[0] and "3 steps undone" in lines[0]
    assert [row["step"] for row in rows_of(folder)] == ["4", "8"]
    monkeypatch.undo()
    # The slow form: the same run, of which steps 5 to 7 were never taken.
    taken = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        step.count += 1
        return None if 5 <= step.count <= 7 else taken(self, *args, **kwargs)

    step.count = 0
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(loop, "lr_at", lr_at)
    slow, _ = told(tmp_path, "slow", *plain)
    one, other = (read_tensors(each.path / "model.safetensors") for each in (folder, slow))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert float(rows_of(folder)[1]["train_loss"]) > 0, "of the one step that was kept"


@pytest.mark.parametrize("mode", ["skip", "rollback"])
def test_a_run_that_stays_broken_ends(tmp_path, monkeypatch, mode):
    poisoned(monkeypatch, range(2, 1000), "batch")
    with pytest.raises(DivergedError, match=r"steps left out in a row|returns to the last state"):
        told(tmp_path, "run", f"train.on_nan={mode}", "train.epochs=5")


def test_a_regularizer_stronger_than_the_task_is_said_once(tmp_path):
    lines = []
    strong = override(TINY, ["vcreg.alpha=10000", "train.ema_decay=null"])
    train(strong, tmp_path / "run", log=lines.append)
    [said] = [line for line in lines if "longer than the task's" in line]
    assert said.startswith("warning: in the first epoch") and "lower its alpha and beta" in said
    lines.clear()
    train(override(TINY, ["vcreg.alpha=0.0001", "vcreg.beta=0"]), tmp_path / "weak", log=lines.append)
    assert not [line for line in lines if "longer than the task's" in line]
    warn_of_strength({"epoch": 1, "vcreg_gradient_share/a": 1.5, "vcreg_gradient_share/b": 0.5}, lines.append)
    assert lines[-1].endswith("at 1 site, 1.5 times at a: lower its alpha and beta")


def test_the_record_of_a_sound_run_says_nothing_of_it(tmp_path):
    folder, lines = told(tmp_path, "run", "model.name=test_convnext")
    assert not lines and "not_finite" not in json.loads((folder.path / "results.json").read_text())["training"]
