"""Evaluations of other data sets than the training one, and features that are extracted once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from evals.own_probe import OwnProbe

from vcreg_hub.config import Data, Model, Recipe, Train, from_json, override, to_json
from vcreg_hub.errors import ConfigError, DataError, UnknownNameError
from vcreg_hub.evals import context
from vcreg_hub.evals.classification import Classification
from vcreg_hub.evals.knn import KNN
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.results.aggregate import Summary
from vcreg_hub.results.report import summarise
from vcreg_hub.results.rows import read_results
from vcreg_hub.run import evaluate_run, train

RECIPE = Recipe(
    name="probed",
    model=Model("test_convnext"),
    data=Data("digits", labels="superclass", image_size=32, train_images=64, workers=0),
    train=Train(batch_size=32),
    evals=(
        Classification(),
        LinearProbe(),
        LinearProbe(labels="superclass", penalty=10.0),
        OwnProbe(),
        LinearProbe(data=Data("synthetic:4x1", image_size=32, workers=0)),
    ),
)


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


@pytest.fixture
def extracted(monkeypatch):
    """How many samples each extraction of features went over."""
    found, extract = [], context.extract

    def counted(*arguments, **settings):
        extracted = extract(*arguments, **settings)
        found.append(len(extracted.labels))
        return extracted

    monkeypatch.setattr(context, "extract", counted)
    return found


def test_features_are_extracted_once_for_a_network_data_set_and_split(tmp_path, extracted):
    folder = train(RECIPE, tmp_path / "run", log=quiet)
    assert extracted == [64, 500, 512, 128], "training and test part of two data sets, under three probes and a fourth"
    rows = folder.results()["metrics"]
    found = [(row["metric"], row["dataset"], row["dataset_config"]) for row in rows]
    assert found == [
        ("top1", "digits", "superclass"), ("loss", "digits", "superclass"),
        ("probe_top1", "digits", "class"), ("probe_mean_per_class", "digits", "class"),
        ("probe_top1", "digits", "superclass"), ("probe_mean_per_class", "digits", "superclass"),
        ("own_top1", "synthetic:4x1", "class"),
        ("probe_top1", "synthetic:4x1", "class"), ("probe_mean_per_class", "synthetic:4x1", "class"),
    ]  # fmt: skip
    assert rows[6]["protocol"] == "nearest class mean, single view; last epoch" and rows[6]["value"] > 25
    again = evaluate_run(folder.path, ["evals=evals.own_probe:OwnProbe"])
    assert [row.to_json() for row in again] == rows[6:7] and extracted[4:] == [512, 128], (
        "another network has features of its own"
    )


def test_an_evaluation_from_outside_the_package_survives_json_and_is_set():
    assert from_json(to_json(RECIPE)) == RECIPE
    assert '"type": "evals.own_probe:OwnProbe"' in to_json(RECIPE)
    changed = override(RECIPE, ["evals.3.power=1", "evals.4.data.image_size=16"])
    assert changed.evals[3] == OwnProbe(power=1.0) and changed.evals[4].data.image_size == 16


def test_labels_are_those_of_the_asked_set_whatever_was_extracted_first(tmp_path):
    folder = train(override(RECIPE, ["evals=[]"]), tmp_path / "run", log=quiet)

    def probed(*tags: str):
        evals = ",".join(f'{{"type":"linear_probe","labels":"{tag}"}}' for tag in tags)
        return {row.dataset_config: row.value for row in evaluate_run(folder.path, [f"evals=[{evals}]"])}

    assert probed("class", "superclass") == probed("superclass", "class") == probed("class") | probed("superclass")


@pytest.mark.parametrize(
    ("evaluation", "kind", "part"),
    [
        (
            LinearProbe(data=Data("synthetic:4x3", channels=3)),
            ConfigError,
            "synthetic:4x3 has 3 channels, but the network takes 1",
        ),
        (LinearProbe(data=Data("digit")), UnknownNameError, "did you mean 'digits'"),
        (LinearProbe(labels="superclas"), UnknownNameError, "did you mean 'superclass'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(tmp_path, evaluation, kind, part):
    with pytest.raises(kind) as error:
        train(Recipe("r", RECIPE.model, RECIPE.data, evals=(evaluation,)), tmp_path / "run", log=quiet)
    assert part in str(error.value) and not (tmp_path / "run" / "state").exists()


def test_images_of_other_channels_are_shown_in_the_networks(tmp_path, caplog):
    colour = LinearProbe(data=Data("synthetic:4x3", image_size=32, workers=0))
    folder = train(replace(RECIPE, evals=(colour,)), tmp_path / "run", log=quiet)
    assert "synthetic:4x3 has 3 channels: its images are shown in grey" in caplog.text
    (row, _) = folder.results()["metrics"]
    assert row["metric"] == "probe_top1" and row["value"] > 25


def test_the_order_of_a_data_set_is_checked(tmp_path, monkeypatch):
    from vcreg_hub.data.image.module import ImageModule

    labels = ImageModule.labels
    monkeypatch.setattr(ImageModule, "labels", lambda self, split: np.roll(labels(self, split), 1))
    with pytest.raises(DataError, match="batches came in another order"):
        train(override(RECIPE, ["evals=linear_probe"]), tmp_path / "run", log=quiet)


def test_two_evaluations_of_one_number_are_refused_before_the_training(tmp_path):
    twice = override(RECIPE, ["evals=classification,classification"])
    with pytest.raises(ConfigError, match="would both report top1 on digits/superclass under the same settings"):
        train(twice, tmp_path / "run", log=quiet)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_metric_that_an_evaluation_does_not_have_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(OwnProbe, "metrics", {})
    with pytest.raises(ConfigError, match="OwnProbe reports 'own_top1', but its metrics are none"):
        train(replace(RECIPE, evals=RECIPE.evals[3:4]), tmp_path / "run", log=quiet)


def test_two_settings_of_one_probe_are_two_numbers_of_a_run(tmp_path):
    """They replace one another by their settings, and a row of before settings were told is that of the defaults."""
    recipe = replace(RECIPE, evals=(LinearProbe(), LinearProbe(penalty=100.0), KNN(temperature=0.5)))
    folder = train(recipe, tmp_path / "run", log=quiet)
    rows = folder.results()["metrics"]
    assert [row.get("settings") for row in rows] == [None] * 2 + ["penalty 100"] * 2 + ["temperature 0.5"] * 3
    assert len({row.identity for row in read_results(folder.results(), folder.path)}) == 7
    evaluate_run(folder.path, ["evals=linear_probe", "evals.linear_probe.penalty=100"], save=True)
    assert sorted(map(str, folder.results()["metrics"])) == sorted(map(str, rows))
    summaries = summarise([folder.path])
    assert {one.column[1] for one in summaries} == {"class", "class, penalty 100", "class, temperature 0.5"}
    again = [Summary.from_json(one.to_json()) for one in summaries]
    assert [one.quantity for one in again] == [one.quantity for one in summaries]


def test_a_search_is_kept_beside_the_results_and_named_there(tmp_path):
    recipe = override(RECIPE, ["evals=logreg", "evals.logreg.count=5", "evals.logreg.lowest=1e-6"])
    folder = train(recipe, tmp_path / "run", log=quiet)
    row = folder.results()["metrics"][0]
    assert row["details"] == "evals/logreg_digits_class_lowest_1e_06_count_5_test.json" and row["penalty"] > 0
    kept = json.loads((folder.path / row["details"]).read_text())
    assert [strength["penalty"] for strength in kept["path"]] == pytest.approx(np.logspace(-6, 5, 5).tolist())
    assert {"score", "objective", "iterations", "converged"} <= kept["path"][0].keys()
    assert kept["penalty"] == row["penalty"] and kept["judged_by"] == "top1"
    read_results(folder.results(), folder.path)
    looked = evaluate_run(folder.path, ["evals.logreg.count=3"])
    assert "details" not in looked[0].extra and len(list((folder.path / "evals").iterdir())) == 1
    evaluate_run(folder.path, ["evals.logreg.count=3"], save=True)
    assert len(list((folder.path / "evals").iterdir())) == 2
    folder.clear()
    assert not (folder.path / "evals").exists()
