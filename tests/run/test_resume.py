"""A run that is interrupted anywhere and goes on is the run that was not: weights, metrics, statistics, to the bit."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from vcreg_hub.config import Data, Model, Optim, Recipe, Train, override
from vcreg_hub.errors import StoppedError
from vcreg_hub.evals.classification import Classification
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import train
from vcreg_hub.rundir import RunDir

# 3 epochs of 4 steps.
TINY = Recipe(
    name="tiny",
    model=Model("test_convnext", kwargs={"drop_path_rate": 0.1}),
    data=Data("digits", labels="superclass", val_fraction=0.2, train_images=128, image_size=32, crop="pad",
              hflip=0.0, workers=0),
    optim=Optim(lr=2e-3, warmup_epochs=1),
    train=Train(epochs=3, batch_size=32, mixup=0.2, cutmix=1.0, label_smoothing=0.1, ema_decay=0.9, keep="best"),
    evals=(Classification(),),
    vcreg=VCReg(),
)  # fmt: skip
# Of batch normalisation, which has running statistics, and dropout; small images are enough.
BATCHNORM = ("model.name=test_resnet", 'model.kwargs={"drop_rate": 0.2}')
VARIANTS = {
    "mixup, average, drop path": (),
    "accumulation, workers": ("train.accumulation=2", "data.workers=2"),
    "repeated augmentation": ("data.repeats=2", "data.train_images=256", "train.accumulation=2"),
    "batch normalisation, dropout": (*BATCHNORM, "train.ema_decay=null"),
    "stochastic gradient descent, a schedule a step": ("optim.name=momentum", "optim.schedule_per=step",
                                                       "train.clip_norm=1.0", "train.precision=bf16"),
    "groups of classes": ("data.labels=class", "train.class_groups=2", "train.epochs=4", "task=incremental",
                          "task.ewc=10", "task.lwf=1", "train.mixup=0", "train.cutmix=0", "evals=incremental",
                          "data.train_images=256", "train.keep=last"),
}  # fmt: skip


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


class Interrupt(Exception):
    """Stands for a kill at a chosen place."""


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, what: object) -> None:
    """In the `step`th forward pass of training from now on, a signal arrives, or an exception is raised."""
    from vcreg_hub.tasks.task import TaskModule

    call, seen = TaskModule.forward, []

    def counted(self, batch):
        seen.extend([1] * torch.is_grad_enabled())
        if len(seen) == step and torch.is_grad_enabled():
            if isinstance(what, signal.Signals):
                os.kill(os.getpid(), what)
            else:
                raise what
        return call(self, batch)

    monkeypatch.setattr(TaskModule, "forward", counted)


def interrupted(recipe: Recipe, out: Path, *stops: tuple[int, object]) -> RunDir:
    """The run, interrupted at each of the forward passes of a process of its own, and brought to its end."""
    for step, what in stops:
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, step, what)
            with pytest.raises((StoppedError, Interrupt)):
                train(recipe, out, log=quiet)
        assert not RunDir(out).complete()
    return train(recipe, out, log=quiet)


def table(folder: RunDir) -> list[dict[str, str]]:
    """The rows of metrics.csv without what a clock says."""
    rows = csv.DictReader((folder.path / "metrics.csv").read_text().splitlines())
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")} for row in rows
    ]


def assert_same(one: RunDir, other: RunDir) -> None:
    weights, others = one.tensors(), other.tensors()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert table(one) == table(other)
    mine, theirs = one.results(), other.results()
    assert mine["metrics"] == theirs["metrics"]
    assert mine["regularizer"] == theirs["regularizer"], "backwards and statistics of every site"
    for name in ("epochs", "steps", "selected", "start_sha256"):
        assert mine["training"][name] == theirs["training"][name]


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_twice_in_the_middle_of_epochs_and_resumed_to_the_bit(tmp_path, variant):
    recipe = override(TINY, [*VARIANTS[variant], "train.save_every=null"])
    whole = train(recipe, tmp_path / "whole", log=quiet)
    passes = recipe.train.accumulation
    resumed = interrupted(
        recipe, tmp_path / "run", (2 * passes + 1, signal.SIGUSR1), (3 * passes, signal.SIGTERM)
    )  # after step 3 of the first epoch, and after step 2 of the second
    assert_same(whole, resumed)
    assert [one["step"] for one in resumed.results()["sessions"]] == [0, 3, 6]
