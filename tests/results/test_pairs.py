from __future__ import annotations

from vcreg_hub.results.pairs import differences, shown
from vcreg_hub.results.summary import markdown, spread


def rows(label, by_seed, metric="top1", unit="%"):
    named = {"metric": metric, "unit": unit, "higher_is_better": True, "dataset": "d", "dataset_config": "class"}
    return {"label": label, "recipe": label, "split": "test", **named, **spread(by_seed)}


def test_twins_are_compared_seed_by_seed_and_only_over_seeds_that_both_have():
    table = [
        rows("plain", {0: 70.0, 1: 72.0, 2: 90.0}),
        rows("vcreg", {0: 71.0, 1: 75.0, 7: 10.0}),
        rows("plain,noise=1", {0: 50.0}),
        rows("vcreg,noise=1", {0: 49.5}),
        rows("vcreg,noise=2", {0: 1.0}),
        rows("vcreg", {0: 0.5}, "loss", "nats"),
        rows("plain", {0: 0.75}, "loss", "nats"),
    ]
    found = differences(table)
    assert list(found) == ["vcreg - plain", "vcreg,noise=1 - plain,noise=1"]
    assert found["vcreg - plain"] == {
        ("top1", "class", "test"): {0: 1.0, 1: 3.0},
        ("loss", "class", "test"): {0: -0.25},
    }
    lines = markdown(table).splitlines()
    assert "| vcreg - plain | +2.00 ± 1.41 points | -0.25 nats | 2 |" in lines
    assert "| vcreg,noise=1 - plain,noise=1 | -0.50 points |  | 1 |" in lines


def test_without_a_twin_nothing_is_added():
    assert markdown([rows("alpha=1", {0: 1.0}), rows("vcreg", {0: 2.0})]).count("\n") == 3


def test_no_difference_has_no_minus():
    assert shown({0: -0.7, 1: 0.699}, "%") == "+0.00 ± 0.99 points"
    assert shown({0: -0.006}, "%") == "-0.01 points"
