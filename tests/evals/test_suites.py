"""Suites: evaluations by name, seen as the network sees images, and what is not at hand."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from vcreg_hub.config import Data, Model, Recipe, Train, from_json, to_json
from vcreg_hub.data.datasets import IMAGE_SETS
from vcreg_hub.errors import DataError, UnknownNameError
from vcreg_hub.evals import suites
from vcreg_hub.evals.knn import KNN
from vcreg_hub.evals.linear import Linear
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.evals.logreg import LogReg
from vcreg_hub.evals.suites import SUITES, evaluations, seen_by
from vcreg_hub.run import evaluate_run, train

DIGITS = Data("digits", image_size=32, workers=0, train_images=100)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_of_known_data_sets_and_a_recipe_holds_it(name):
    suite = evaluations(name)
    assert all(one.data is not None and one.data.name in IMAGE_SETS for one in suite)
    recipe = Recipe("r", Model("test_convnext"), DIGITS, evals=suite)
    assert from_json(to_json(recipe)) == recipe
    assert len({(one.tag, one.data.name) for one in suite}) == len(suite)


def test_table_1_is_the_papers():
    suite = evaluations("table1")
    assert [one.data.name for one in suite] == [
        "inaturalist18", "places205", "food101", "stanford_cars", "fgvc_aircraft", "oxford_pets", "flowers102", "dtd",
    ]  # fmt: skip
    species, places, *fine = suite
    assert isinstance(species, Linear) and (species.epochs, species.milestones) == (84, (24, 48, 72))
    assert isinstance(places, Linear) and (places.epochs, places.milestones) == (14, (4, 8, 12))
    assert (species.data.resize, species.data.image_size, species.weight_decay) == (256, 224, 5e-4)
    for one in fine:
        assert isinstance(one, LogReg) and (one.lowest, one.highest, one.count) == (1e-5, 1e5, 45)
        assert (one.data.image_size, one.data.resize, one.data.interpolation) == (224, None, "bicubic")
        # An official validation part is used whole, else a fifth of the training images is held out.
        assert one.data.val_fraction == (0.0 if IMAGE_SETS[one.data.name].val else 0.2)


def test_a_network_of_other_images_sees_them_its_own_way():
    small = seen_by(evaluations("table1"), 32, (0.5,), (0.25,))
    assert {one.data.image_size for one in small} == {32} and {one.data.channels for one in small} == {1}
    assert small[0].data.resize == 37 and small[2].data.resize is None
    assert small[0].epochs == 84 and small[0].data.mean == (0.5,)


def test_an_unknown_suite():
    with pytest.raises(UnknownNameError, match="did you mean 'table1'"):
        evaluations("table_1")


@pytest.fixture
def run(tmp_path):
    recipe = Recipe("r", Model("test_convnext"), DIGITS, train=Train(batch_size=32, max_steps=1), evals=())
    return train(recipe, tmp_path / "run", log=lambda text: None)


def test_what_is_at_hand_is_measured_and_the_rest_says_what_to_fetch(run, monkeypatch, caplog):
    at_hand = replace(DIGITS, image_size=224)
    suite = (LinearProbe(data=at_hand), KNN(data=Data("food101")), KNN(data=at_hand))
    monkeypatch.setitem(SUITES, "mixed", suite)
    with caplog.at_level(logging.WARNING):
        rows = evaluate_run(run.path, suite="mixed", save=True)
    assert [row.metric for row in rows] == [
        "probe_top1", "probe_mean_per_class", "knn10_top1", "knn20_top1", "knn200_top1",
    ]  # fmt: skip
    assert "not measured: food101 is not at hand" in caplog.text and "Fetch food-101.tar.gz" in caplog.text
    assert "VCREG_DATA_DIR" in caplog.text
    assert len(run.results()["metrics"]) == 5 and run.recipe().evals == ()
    # Settings go on top of a suite's.
    monkeypatch.setitem(SUITES, "probe", suite[:1])
    (row, _) = evaluate_run(run.path, ["evals.linear_probe.penalty=10"], suite="probe")
    assert row.settings == "penalty 10" and row.dataset == "digits"


def test_a_suite_without_any_data(run, monkeypatch):
    monkeypatch.setitem(SUITES, "absent", (KNN(data=Data("food101")), KNN(data=Data("dtd"))))
    with pytest.raises(DataError, match="none of the 2 data sets of the suite is at hand"):
        evaluate_run(run.path, suite="absent")
    assert suites.SUITES is SUITES
