"""The table of experiments: every row fits its recipes."""

from __future__ import annotations

import math

import pytest

from vcreg_hub.config import differences, override
from vcreg_hub.errors import ConfigError
from vcreg_hub.experiments.experiment import Experiment, Variant
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.recipes import load_recipe
from vcreg_hub.results.aggregate import recipe_id
from vcreg_hub.results.report import _baselines_of

# Regularizers beside VCReg: their variants differ from the baseline in other settings too.
SIDE_BY_SIDE = ("class_incremental", "moons", "moons_short")


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_a_row_of_several_regularizers_fits_its_recipes(name):
    experiment = EXPERIMENTS[name]
    made = {variant.name: _recipe(experiment, variant) for variant in experiment.variants}
    fixed = [recipe_id(made[variant.name]) for variant in experiment.variants if not variant.grid]
    assert len(set(fixed)) == len(fixed), "the others differ in what their grids set"
    assert set(differences(made["plain"], made["vcreg"])) <= {"name", "vcreg", "assumed"}
    for variant in experiment.variants:
        assert override(made[variant.name], [*experiment.holding_out, "eval.split=val"])
        for path, values in variant.grid.items():
            found = {recipe_id(override(made[variant.name], [f"{path}={value}"])) for value in values}
            assert len(found) == len(values)
    assert not set(experiment.seeds) & set(experiment.selection_seeds)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in SIDE_BY_SIDE])
def test_a_row_fits_its_recipes(name):
    experiment = EXPERIMENTS[name]
    first = experiment.compared[0]
    frozen = name.startswith("transfer_frozen")
    assert frozen or (experiment.baseline.name, first.name) == ("plain", "vcreg"), "the names of folders that exist"
    plain = _recipe(experiment, experiment.baseline)
    assert set(experiment.baseline.grid) <= {"optim.lr"}, "what both variants search"
    assert all(experiment.baseline.grid.items() <= v.grid.items() for v in experiment.compared)
    for path, values in experiment.axis.items():
        for value in values:
            override(plain, [f"{path}={value}"])
    made = [_recipe(experiment, variant) for variant in experiment.compared]
    assert len({recipe_id(recipe) for recipe in (plain, *made)}) == len(experiment.variants)
    for variant, regularized in zip(experiment.compared, made, strict=True):
        differing = {path.partition(".")[0] for path in differences(plain, regularized)}
        if (variant.grid and regularized.vcreg is None) or regularized.task != plain.task:
            assert differing <= {"task", "optim"}, "another task or optimizer"
            made_of = [
                override(regularized, [f"{path}={value}"]) for path, all_ in variant.grid.items() for value in all_
            ]
            assert len({recipe_id(recipe) for recipe in (plain, *made_of)}) == 1 + len(made_of)
            continue
        if regularized.vcreg is None:
            assert differing <= {"model", "data"} and not variant.grid, "another start, which is not searched"
            continue
        assert differing <= {"name", "vcreg", "where", "assumed"}, "they differ in VCReg and its placement alone"
        assert _baselines_of([plain, regularized]) == {recipe_id(regularized): recipe_id(plain)}
        settings = [f"{path}={value}" for path, values in variant.grid.items() for value in values]
        assert override(regularized, settings).vcreg is not None
        searched = override(regularized, experiment.holding_out)
        assert searched.data.val_fraction > 0, "the search needs clips that training does not see"
    assert not set(experiment.seeds) & set(experiment.selection_seeds)


def _recipe(experiment, variant):
    return override(load_recipe(variant.recipe), [*experiment.settings, *variant.settings])


def test_there_is_one_baseline_and_each_name_once():
    plain, vcreg = Variant("plain", "a:b", baseline=True), Variant("vcreg", "a:c")
    about = {"metric": "top1", "selection_seeds": (100,), "seeds": (0,)}
    assert Experiment((plain, vcreg), **about).compared == (vcreg,)
    for variants in ((vcreg,), (plain, Variant("other", "a:d", baseline=True))):
        with pytest.raises(ConfigError, match="one variant is the baseline"):
            Experiment(variants, **about)
    with pytest.raises(ConfigError, match="a name of its own, got plain, plain"):
        Experiment((plain, Variant("plain", "a:c")), **about)


def test_the_long_tails_search_both_learning_rates_of_the_appendix():
    for name in ("long_tail_cifar10", "long_tail_cifar100"):
        assert {variant.grid["optim.lr"] for variant in EXPERIMENTS[name].variants} == {("0.016", "0.008")}


def test_rivals_are_searched_alike():
    """Each with as many points, none with the plain recipe among them."""
    experiment = EXPERIMENTS["rivals"]
    assert {math.prod(map(len, variant.grid.values())) for variant in experiment.compared} == {8}
    assert len(experiment.compared) == 9
