"""Rows of results.json: read with checks, written back as they were, and told apart."""

from __future__ import annotations

import json

import pytest

from vcreg_hub.errors import RunFolderError
from vcreg_hub.results.rows import Quantity, Result, identity, read_results

ROW = {
    "metric": "top1", "value": 81.25, "unit": "%", "higher_is_better": True, "dataset": "hmdb51",
    "dataset_config": "class", "split": "test", "protocol": "10 clips x 3 crops; last epoch", "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"fold": 2}, {"fold": 2, "sigma": 1.5}, {"sigma": 1, "clips": [1, 2], "x": None}])
def test_a_row_is_written_back_as_it_was(more):
    row = ROW | more
    assert json.dumps(Result.from_json(row, "results.json").to_json()) == json.dumps(row)


def test_what_makes_two_rows_the_same_number():
    row = ROW | {"fold": 1, "sigma": 1.5}
    same = row | {"value": 3.0, "seed": 9, "protocol": "other", "unit": "points"}
    assert identity(row) == identity(same) == Result.from_json(same, "x").identity
    for changed in ({"metric": "top5"}, {"dataset": "d"}, {"dataset_config": "c"}, {"split": "val"}, {"fold": 2},
                    {"sigma": 1.0}, {"fold": None}, {"sigma": None}):  # fmt: skip
        assert identity(row | changed) != identity(row)
        assert Result.from_json(row | changed, "x").identity == identity(row | changed)
    assert type(Result.from_json(row, "x").quantity) is Quantity


def test_noise_and_fold_are_said_in_words():
    result = Result.from_json(ROW | {"fold": 1, "sigma": 1.5}, "x")
    assert (result.full_config, result.full_split) == ("class, sigma 1.5", "test, fold 1")
    bare = Result.from_json({"metric": "m", "value": 1, "higher_is_better": False, "dataset": "d", "sigma": 2}, "x")
    assert (bare.full_config, bare.full_split, bare.unit) == ("sigma 2", "test", "")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (None, "r.json: 'metrics' is a list of objects, got NoneType"),
        ([1], "r.json: 'metrics' is a list of objects"),
        ([{name: ROW[name] for name in ROW if name != "dataset"}], r"r.json: a metric needs .*KeyError\('dataset'\)"),
        ([ROW | {"value": "nine"}], "r.json: a metric needs"),
        ([ROW | {"sigma": "loud"}], "r.json: a metric needs"),
        ([ROW | {"value": float("nan")}], "r.json: top1 on hmdb51 is nan: not a finite number"),
        ([ROW, ROW | {"value": 3.0}], "r.json: two rows are both top1 / hmdb51 / class / test$"),
        ([ROW | {"fold": 1, "sigma": 2}] * 2, "two rows are both top1 / hmdb51 / class, sigma 2 / test, fold 1"),
    ],
)
def test_what_is_broken_is_named(metrics, message):
    with pytest.raises(RunFolderError, match=message):
        read_results({"metrics": metrics}, "r.json")


def test_rows_that_differ_in_their_noise_alone_are_read():
    assert len(read_results({"metrics": [ROW, ROW | {"sigma": 1}, ROW | {"sigma": 2}]}, "r.json")) == 3
