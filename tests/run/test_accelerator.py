"""Trackers: what cannot be had is refused before training, what can gets every epoch's row."""

from __future__ import annotations

import importlib.util

import accelerate.tracking
import pytest
from accelerate.tracking import GeneralTracker

from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.errors import UnknownNameError, UsageError, VCRegError
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import train
from vcreg_hub.run.accelerator import check_tracker

TINY = Recipe(
    name="tracked",
    model=Model("test_convnext"),
    data=Data("digits", val_fraction=0.2, train_images=64, image_size=32, crop="pad", workers=0),
    optim=Optim(lr=2e-3, warmup_epochs=0),
    train=Train(epochs=2, batch_size=32),
    vcreg=VCReg(),
)


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told; one that needs a folder, as TensorBoard does."""

    name = "notebook"
    requires_logging_directory = True
    made: list[Notebook] = []  # noqa: RUF012

    def __init__(self, run_name, logging_dir):
        super().__init__()
        self.where, self.config, self.rows, self.finished = (run_name, logging_dir), {}, [], False
        self.made.append(self)

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def notebooks(monkeypatch):
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "made", [])
    return Notebook.made


def quiet(_text: str) -> None:
    """The tests read trackers, not lines."""


def test_a_tracker_gets_the_recipe_and_every_epoch(tmp_path, notebooks):
    folder = train(TINY, tmp_path / "run", log=quiet, tracker="notebook")
    [book] = notebooks
    assert book.where == ("vcreg", str(folder.path))
    assert book.config["optim.lr"] == 2e-3
    assert book.config["vcreg.alpha"] == TINY.vcreg.alpha
    assert book.config["data.root"] == "None"
    assert [step for step, _ in book.rows] == [2, 4]
    assert {"lr", "train_loss", "val_top1", "vcreg_variance_loss"} <= book.rows[-1][1].keys()
    assert book.finished
    train(TINY, tmp_path / "run", log=quiet, tracker="notebook")
    assert len(notebooks) == 1, "a finished run tracks nothing"


@pytest.mark.parametrize("name", sorted(accelerate.tracking.LOGGER_TYPE_TO_CLASS))
def test_a_missing_package_is_refused_before_anything_is_written(tmp_path, name, monkeypatch):
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    with pytest.raises(UsageError, match=rf"{name}.*not installed: pip install {name}"):
        train(TINY, tmp_path / "run", log=quiet, tracker=name)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_names_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'tensorboard'"):
        train(TINY, tmp_path / "run", log=quiet, tracker="tensorbord")
    check_tracker(None)


def test_a_tracker_that_does_not_start_says_why(tmp_path, notebooks, monkeypatch):
    def start(self):
        raise RuntimeError("log in first")

    monkeypatch.setattr(Notebook, "start", start)
    with pytest.raises(VCRegError, match="'notebook' could not be started: RuntimeError: log in first"):
        train(TINY, tmp_path / "run", log=quiet, tracker="notebook")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_it_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(TINY, tmp_path / "run", log=quiet, tracker="tensorboard")
    events = EventAccumulator(str(folder.path / "vcreg"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [2, 4]
