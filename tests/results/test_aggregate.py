"""Averages over seeds and splits, and paired differences, against slow independent computations and known answers."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.config import Data, Model, Recipe, Video
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.aggregate import (
    Group,
    Sample,
    Summary,
    differences,
    over_seeds,
    over_splits,
    recipe_id,
)
from vcreg_hub.results.report import _baselines_of, tabulated
from vcreg_hub.results.rows import Result

PLAIN = Recipe("r", Model("convnext_atto"), Data("digits"))
VCREG = replace(PLAIN, name="r_vcreg", vcreg=VCReg())


def result(value, **changes):
    row = {"metric": "top1", "unit": "%", "higher_is_better": True, "dataset": "d", "dataset_config": "class"}
    return Result(**{**row, "split": "test", **changes}, value=value)


def summary(label, by_seed, baseline=None, **changes):
    group = Group(label=label, id=label, recipe=label, baseline=baseline)
    (found,) = over_seeds([(group, seed, [result(value, **changes)]) for seed, value in by_seed.items()])
    return found


def test_a_sample_has_the_interval_of_student_s_t():
    from scipy.stats import ttest_1samp

    values = (0.3, -0.1, 0.9, 0.25, 1.4)
    sample = Sample((0, 1, 2, 3, 4), values)
    assert sample.mean == statistics.fmean(values) and sample.std == statistics.stdev(values) and sample.n == 5
    assert sample.interval == pytest.approx(tuple(ttest_1samp(values, 0.0).confidence_interval(0.95)), rel=1e-12)
    # Two values a and b: the mean plus or minus 12.7062 |a - b| / 2.
    assert Sample((0, 1), (1.0, 3.0)).interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert Sample((0, 1), (2.0, 2.0)).interval == (2.0, 2.0)
    one = Sample((7,), (2.0,))
    assert (one.mean, one.std, one.interval, one.n) == (2.0, None, None, 1)


SEEDS = st.sets(st.integers(0, 5), min_size=1)
VALUES = st.fixed_dictionaries({(fold, seed): st.floats(0, 100) for fold in (1, 2, 3) for seed in range(6)})


@settings(max_examples=60, deadline=None)
@given(own=VALUES, other=VALUES, own_seeds=st.tuples(SEEDS, SEEDS, SEEDS), other_seeds=st.tuples(SEEDS, SEEDS, SEEDS))
def test_seeds_and_splits_against_a_slow_computation(own, other, own_seeds, other_seeds):
    """Written out with loops over (split, seed), and the difference from scipy's paired test."""
    from scipy.stats import ttest_rel

    def measured(values, seeds, group):
        for fold, of_fold in zip((1, 2, 3), seeds, strict=True):
            for seed in sorted(of_fold, reverse=True):
                yield (replace(group, id=f"{group.id}{fold}"), seed, [result(values[fold, seed], fold=fold)])

    plain, vcreg = Group(label="plain", id="p", family="p"), Group(label="vcreg", id="v", family="v")
    found = over_seeds([*measured(other, other_seeds, plain), *measured(own, own_seeds, vcreg)])
    for one in found:
        values, seeds = (other, other_seeds) if one.group.label == "plain" else (own, own_seeds)
        fold = one.quantity.fold
        assert dict(zip(one.seeds, one.values, strict=True)) == {s: values[fold, s] for s in seeds[fold - 1]}
        assert list(one.seeds) == sorted(one.seeds)
    means = {one.group.family: one for one in over_splits(found)}
    expected = {}
    for family, values, seeds in (("p", other, other_seeds), ("v", own, own_seeds)):
        of_family = {}
        for seed in range(6):
            if all(seed in of_fold for of_fold in seeds):
                of_family[seed] = (values[1, seed] + values[2, seed] + values[3, seed]) / 3
        assert (family in means) == bool(of_family)
        if of_family:
            got = means[family]
            assert list(got.seeds) == sorted(of_family) and got.folds == (1, 2, 3) and got.quantity.fold is None
            assert got.values == pytest.approx([of_family[seed] for seed in got.seeds])
        expected[family] = of_family
    shared = sorted(expected["p"].keys() & expected["v"].keys())
    paired = means["v"].minus(means["p"]) if means.keys() == {"p", "v"} else None
    assert (paired is not None) == bool(shared)
    if paired is not None:
        apart = [expected["v"][seed] - expected["p"][seed] for seed in shared]
        assert list(paired.seeds) == shared and paired.values == pytest.approx(apart, abs=1e-9)
        assert paired.mean == pytest.approx(sum(apart) / len(apart), abs=1e-9)
        if len(shared) > 1 and statistics.stdev(apart) > 1e-6:
            theirs = ttest_rel([expected["v"][s] for s in shared], [expected["p"][s] for s in shared])
            assert paired.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-6, abs=1e-6)


def test_a_baseline_is_compared_seed_by_seed_and_only_over_seeds_that_both_have():
    table = [
        summary("plain", {0: 70.0, 1: 72.0, 2: 90.0}),
        summary("vcreg", {0: 71.0, 1: 75.0, 7: 10.0}, "plain"),
        summary("plain,noise=1", {0: 50.0}),
        summary("vcreg,noise=1", {0: 49.5}, "plain,noise=1"),
        summary("vcreg,noise=2", {0: 1.0}, "plain,noise=2"),
        summary("vcreg", {0: 0.5}, "plain", metric="loss", unit="nats"),
        summary("plain", {0: 0.75}, metric="loss", unit="nats"),
    ]
    found = [(one.label, one.one.column, one.seeds, one.values) for one in differences(table)]
    assert found == [
        ("vcreg - plain", ("top1", "class", "test", "d"), (0, 1), (1.0, 3.0)),
        ("vcreg,noise=1 - plain,noise=1", ("top1", "class", "test", "d"), (0,), (-0.5,)),
        ("vcreg - plain", ("loss", "class", "test", "d"), (0,), (-0.25,)),
    ]
    lines = tabulated(table).markdown().splitlines()
    assert "| vcreg - plain | +2.00 ± 1.41 points (95% CI -10.71 to +14.71) | -0.25 nats | 2 |" in lines
    assert "| vcreg,noise=1 - plain,noise=1 | -0.50 points |  | 1 |" in lines


def test_two_data_sets_are_two_columns():
    both = [summary(label, {0: value}, baseline, dataset=data) for label, baseline, value in (("plain", None, 1.0),
        ("vcreg", "plain", 3.0)) for data in ("flowers", "pets")]  # fmt: skip
    lines = tabulated([*both, summary("vcreg", {0: 9.0}, "plain", dataset="cars")]).markdown().splitlines()
    assert (
        lines[0]
        == "| run | top1 (flowers, class, test) | top1 (pets, class, test) | top1 (cars, class, test) | seeds |"
    )
    assert lines[2:] == [
        "| plain | 1.00 % | 1.00 % | measured on flowers, class labels, test | 1 |",
        "| vcreg | 3.00 % | 3.00 % | 9.00 % | 1 |",
        "| vcreg - plain | +2.00 points | +2.00 points |  | 1 |",
    ]


def test_without_a_baseline_nothing_is_added():
    rows = [summary("plain", {0: 1.0}), summary("vcreg", {0: 2.0}), summary("final", {0: 2.0}, "elsewhere")]
    assert tabulated(rows).markdown().count("\n") == 4, "a label is no reason to compare"


def test_no_difference_has_no_minus():
    def shown(*values):
        by_seed = dict(enumerate(values))
        return differences([summary("a", dict.fromkeys(by_seed, 0.0)), summary("b", by_seed, "a")])[0].shown

    assert shown(-0.7, 0.699).startswith("+0.00 ± 0.99 points (95% CI ")
    assert shown(-0.006) == "-0.01 points"


def test_other_splits_are_never_subtracted():
    one, other = summary("a", {0: 1.0}), summary("b", {0: 1.0})
    assert replace(one, folds=(1, 2)).minus(replace(other, folds=(1, 3))) is None
    assert replace(one, folds=(1, 2)).minus(replace(other, folds=(1, 2))).values == (0.0,)


def test_a_baseline_is_found_by_its_recipe():
    seeds = [replace(recipe, train=replace(recipe.train, seed=seed)) for recipe in (PLAIN, VCREG) for seed in (0, 1)]
    elsewhere = replace(VCREG, where="final", assumed=("vcreg.alpha",), data=replace(VCREG.data, root="/x", workers=9))
    longer = replace(VCREG, train=replace(VCREG.train, epochs=9))
    found = _baselines_of([*seeds, elsewhere, longer])
    assert found == {recipe_id(VCREG): recipe_id(PLAIN), recipe_id(elsewhere): recipe_id(PLAIN)}
    assert recipe_id(seeds[0]) == recipe_id(seeds[1]) != recipe_id(seeds[2])
    first, second = (replace(PLAIN, video=Video(split=split)) for split in (1, 2))
    assert _baselines_of([first, replace(second, vcreg=VCReg())]) == {}, "another split is another measurement"


def test_a_summary_reads_back_as_it_was_written():
    recipe = replace(VCREG, video=Video(noise=1.5, split=2))
    group = replace(Group.of(recipe, "vcreg,split=2"), baseline="x")
    measured = [(group, seed, [result(70.0 + seed, fold=2, sigma=1.5, protocol="p")]) for seed in (1, 0)]
    (one,) = over_seeds(measured)
    row = one.to_json()
    assert Summary.from_json(row) == one and row["interval"] == list(one.interval)
    assert (row["trained_sigma"], row["fold"], row["sigma"], row["baseline"]) == (1.5, 2, 1.5, "x")
    assert "trained_sigma" not in summary("a", {0: 1.0}).to_json()


def test_rows_of_before_groups_had_ids_are_compared_as_they_were_then():
    row = {"recipe": "r", "metric": "top1", "unit": "%", "higher_is_better": True, "dataset": "d",
           "dataset_config": "class", "split": "test", "mean": 1.0, "std": None, "n": 1, "seeds": [0]}  # fmt: skip
    labels = {"plain,noise=1": 1.0, "vcreg,noise=1": 3.0, "vcreg,noise=2": 9.0, "plain": 2.0, "alpha=1": 5.0}
    found = [Summary.from_json(row | {"label": label, "values": [value]}) for label, value in labels.items()]
    assert [(one.label, one.mean) for one in differences(found)] == [("vcreg,noise=1 - plain,noise=1", 2.0)]
