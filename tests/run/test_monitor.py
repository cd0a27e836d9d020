"""The live monitor: its numbers against their definitions, when it looks, what it leaves alone, and what it costs."""

from __future__ import annotations

import csv
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vcreg_hub.analysis.collapse import cdnv
from vcreg_hub.analysis.spectrum import collapsed_share, effective_rank
from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.evals.classification import Classification
from vcreg_hub.models.outputs import features
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import train
from vcreg_hub.run.build import build
from vcreg_hub.run.monitor import Monitor, _some

TINY = Recipe(
    name="tiny",
    model=Model("test_convnext", kwargs={"drop_path_rate": 0.1}),
    data=Data("digits", labels="superclass", val_fraction=0.2, train_images=128, image_size=32, crop="none", workers=0),
    optim=Optim(lr=2e-3),
    train=Train(epochs=2, batch_size=32),
    evals=(),
    vcreg=VCReg(),
)


def rows_of(folder):
    return list(csv.DictReader((folder.path / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("vcreg", [VCReg(), None])
def test_a_run_notes_its_blocks_with_and_without_the_regularizer(tmp_path, vcreg):
    lines = []
    rows = rows_of(train(replace(TINY, vcreg=vcreg), tmp_path / "run", log=lines.append))
    for metric in ("effective_rank", "collapsed", "cdnv"):
        columns = [name for name in rows[-1] if name.startswith(f"val_{metric}/")]
        assert len(columns) == 9, "one for each block"
        assert not rows[0][columns[0]] and float(rows[1][columns[0]]) >= 0, "256 * 64 samples, or the last epoch"
    shares = [name for name in rows[0] if name.startswith("vcreg_gradient_share/")]
    assert len(shares) == (0 if vcreg is None else 9)
    assert all(float(rows[0][name]) > 0 for name in shares)
    assert not any("/stages" in line for line in lines), "the terminal shows the means"


def test_the_numbers_are_those_of_the_analysis(tmp_path):
    recipe = replace(TINY, where="final")
    data, network = build(recipe)
    monitor = Monitor.of(recipe, data, network, Accelerator(cpu=True))
    assert len(monitor.samples) == 256 and monitor.labels.bincount().tolist() == [128, 128]
    network.train()
    row = monitor.row(network)
    assert network.training
    rows = features(network.eval(), monitor.samples).detach()
    (name,) = {column.partition("/")[2] for column in row}
    expected = {
        f"val_effective_rank/{name}": effective_rank(rows),
        f"val_collapsed/{name}": collapsed_share(rows),
        f"val_cdnv/{name}": cdnv(rows, monitor.labels),
    }
    assert row == pytest.approx(expected, rel=1e-5)


def test_the_weights_are_those_of_a_run_without_a_monitor(tmp_path, monkeypatch):
    seen = train(TINY, tmp_path / "seen", log=lambda _: None).tensors()
    monkeypatch.setattr(Monitor, "of", lambda *_: None)
    unseen = train(TINY, tmp_path / "unseen", log=lambda _: None).tensors()
    assert all(torch.equal(seen[name], unseen[name]) for name in seen)


def test_a_network_without_blocks_has_no_monitor():
    data, _ = build(TINY)
    recipe = replace(TINY, vcreg=None)
    assert Monitor.of(recipe, data, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 2)),
                      Accelerator(cpu=True)) is None  # fmt: skip


def test_looks_are_64_times_as_rare_as_samples():
    data, network = build(TINY)
    monitor = Monitor.of(TINY, data, network, Accelerator(cpu=True))
    assert monitor.every == 256 * 64 // 128
    many = replace(monitor, every=3, last=10)
    assert [epoch for epoch in range(1, 11) if many.due(epoch, False)] == [3, 6, 9, 10]
    assert many.due(4, True), "the last step of a run that is cut short"


def test_the_batch_has_as_many_of_each_class_however_they_lie():
    labels = np.repeat(np.arange(100), 50)
    chosen = _some(labels, 256)
    assert len(chosen) == 256 == len(set(chosen))
    assert set(np.unique(labels[chosen], return_counts=True)[1]) == {8}
    assert _some(np.array([3, 3, 3, 5]), 256) == [0, 1, 2, 3], "a class of one sample is no reason to stop"
    assert len(_some(np.arange(1000), 4)) == 2
    assert _some(labels, 256) == chosen


@pytest.mark.slow
def test_it_costs_less_than_a_hundredth_of_the_training(tmp_path, monkeypatch):
    """In processor seconds, of a busy machine; an epoch of as many images as lie between two looks."""
    spent = []
    row = Monitor.row

    def timed(self, network):
        started = time.process_time()
        found = row(self, network)
        spent.append(time.process_time() - started)
        return found

    monkeypatch.setattr(Monitor, "row", timed)
    data = Data("fashion_mnist", val_fraction=0.2, train_images=16384, image_size=32, crop="none", workers=0)
    recipe = replace(TINY, data=data, evals=(Classification(),), train=Train(epochs=1, batch_size=128))
    started = time.process_time()
    train(recipe, tmp_path / "run", log=lambda _: None)
    share = sum(spent) / (time.process_time() - started)
    print(f"{100 * share:.2f}% of the processor's time")
    assert len(spent) == 1 and share < 0.01
