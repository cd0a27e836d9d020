"""Emissions with a stand-in for codecarbon, and without it."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types

import pytest

from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.run import train
from vcreg_hub.run.emissions import Emissions, measured


class Tracker:
    """What codecarbon's OfflineEmissionsTracker offers of what is used here."""

    answer: object = 0.125
    started = 0
    fails = ""

    def __init__(self, **settings):
        assert settings["save_to_file"] is False and settings["save_to_api"] is False
        self.fail("init")

    def fail(self, where):
        if type(self).fails == where:
            raise OSError("no power meter")

    def start(self):
        self.fail("start")
        type(self).started += 1

    def stop(self):
        self.fail("stop")
        return type(self).answer


@pytest.fixture
def codecarbon(monkeypatch):
    """A package of that name; its tracker class is returned."""
    package = types.ModuleType("codecarbon")
    package.__spec__ = importlib.machinery.ModuleSpec("codecarbon", None)
    package.OfflineEmissionsTracker = type("OfflineEmissionsTracker", (Tracker,), {})
    monkeypatch.setitem(sys.modules, "codecarbon", package)
    return package.OfflineEmissionsTracker


def test_a_block_is_measured(codecarbon):
    with measured() as emissions:
        assert codecarbon.started == 1
        assert emissions.row() == {}
    assert emissions.row() == {"emissions_kg_co2eq": 0.125}
    with measured(active=False) as emissions:
        assert codecarbon.started == 1
    assert emissions == Emissions(None)


def test_without_the_package_nothing_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with measured() as emissions:
        pass
    assert emissions.row() == {}


@pytest.mark.parametrize("answer", [None, float("nan"), 0.0], ids=str)
def test_a_machine_that_cannot_tell_gives_no_number(codecarbon, answer):
    codecarbon.answer = answer
    with measured() as emissions:
        pass
    assert emissions.row() == {}


@pytest.mark.parametrize("where", ["init", "start", "stop"])
def test_a_tracker_that_breaks_costs_the_number_only(codecarbon, where):
    codecarbon.fails = where
    ran = []
    with pytest.warns(UserWarning, match="cannot measure here .*no power meter"), measured() as emissions:
        ran.append(True)
    assert ran
    assert emissions.row() == {}


def test_an_error_of_the_block_is_not_hidden(codecarbon):
    with pytest.raises(KeyError), measured() as emissions:
        raise KeyError("mine")
    assert emissions.kg_co2eq == 0.125


def test_a_run_records_what_its_training_emitted(codecarbon, tmp_path):
    recipe = Recipe(
        "small",
        Model("test_convnext"),
        Data("digits", train_images=64, image_size=32, crop="pad", workers=0),
        optim=Optim(lr=2e-3, warmup_epochs=0),
        train=Train(epochs=1, batch_size=32),
    )
    folder = train(recipe, tmp_path / "run", log=lambda text: None)
    assert json.loads((folder.path / "results.json").read_text())["training"]["emissions_kg_co2eq"] == 0.125
    assert codecarbon.started == 1
