"""Searches: what is drawn, what is proposed, and that test data choose nothing."""

from __future__ import annotations

import math
import sys

import pytest
from experiments.test_runner import finished

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import UsageError
from vcreg_hub.experiments.search import (
    Range,
    draw_random,
    held_out,
    parse_space,
    plain_trials,
    search_with_optuna,
    trials_of,
)
from vcreg_hub.regularizer.vcreg import VCReg

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits", val_fraction=0.2), vcreg=VCReg())


def test_a_space_is_ranges_and_choices():
    space = parse_space(
        ["vcreg.alpha=0.1..10:log", "train.epochs=2..5", "optim.lr=0..1", "optim.name=adamw,sgd"], RECIPE
    )
    assert space == {
        "vcreg.alpha": Range(0.1, 10, log=True),
        "train.epochs": Range(2, 5, whole=True),
        "optim.lr": Range(0, 1),
        "optim.name": ["adamw", "sgd"],
    }
    for wrong in ("vcreg.beta=1..", "vcreg.beta=2..1", "vcreg.beta=0..1:log", "vcreg.beta=1..2:ln", "vcreg.beta=1..inf",
                  "vcreg.beta", "vcreg.betta=1..2", "train.epochs=1..2.5", "vcreg.beta=-1..1"):  # fmt: skip
        with pytest.raises(UsageError):
            parse_space([wrong], RECIPE)
    with pytest.raises(UsageError, match="--seeds"):
        parse_space(["train.seed=1..5"], RECIPE)


def test_draws_cover_the_space_and_repeat():
    space = parse_space(["vcreg.alpha=0.1..10:log", "train.epochs=2..4", "optim.name=adamw,sgd"], RECIPE)
    drawn = draw_random(space, 200, seed=1)
    assert drawn == draw_random(space, 200, seed=1) and drawn[:50] == draw_random(space, 50, seed=1)
    assert drawn != draw_random(space, 200, seed=2) and len(set(drawn)) == 200
    alphas = [float(dict(one)["vcreg.alpha"]) for one in drawn]
    assert all(0.1 <= alpha <= 10 for alpha in alphas)
    assert abs(sum(map(math.log10, alphas)) / 200) < 0.15, "half of a logarithmic range lies below 1"
    assert {dict(one)["train.epochs"] for one in drawn} == {"2", "3", "4"}
    assert {dict(one)["optim.name"] for one in drawn} == {"adamw", "sgd"}
    with pytest.raises(UsageError, match="fewer than 4 different"):
        draw_random({"train.epochs": ["1", "2", "3"]}, 4)


def test_trials_are_named_by_their_settings_seed_by_seed():
    found = trials_of(RECIPE, [(("vcreg.alpha", "0.5"),), (("vcreg.alpha", "2"),)], [3, 4])
    assert [str(trial.path) for trial in found] == [
        "alpha=0.5/seed3",
        "alpha=2/seed3",
        "alpha=0.5/seed4",
        "alpha=2/seed4",
    ]
    assert found[1].recipe.vcreg == VCReg(alpha=2.0)


def test_the_plain_variant_is_trained_once_for_all_strengths_of_vcreg():
    combinations = [
        (("vcreg.alpha", alpha), ("optim.lr", lr)) for alpha in ("0.1", "1") for lr in ("0.01", "0.1")
    ]  # fmt: skip
    found = plain_trials(RECIPE, combinations, [0, 1])
    assert [str(trial.path) for trial in found] == [f"plain,lr={lr}/seed{s}" for lr in ("0.01", "0.1") for s in (0, 1)]
    assert all(trial.recipe.vcreg is None for trial in found)
    assert [str(trial.path) for trial in plain_trials(RECIPE, [(("vcreg.alpha", "1"),)], [0])] == ["plain/seed0"]
    with pytest.raises(UsageError, match="this recipe has none"):
        plain_trials(plain_trials(RECIPE, [()], [0])[0].recipe, [(("optim.lr", "1"),)], [0])


def test_a_search_is_judged_on_held_out_data():
    assert held_out(RECIPE).eval.split == "val"
    with pytest.raises(UsageError, match=r"data\.val_fraction"):
        held_out(Recipe("r", Model("convnext_atto"), Data("digits")))


def optimised(out, count, at_once=1, metric="top1"):
    """Trains nothing: a trial's value is a parabola of its alpha with the top at 2."""
    ran = []

    def run(trials):
        for trial in trials:
            ran.append(trial)
            value = 50 - (trial.recipe.vcreg.alpha - 2) ** 2 + 0.1 * trial.recipe.train.seed
            if not (out / trial.path / "results.json").exists():
                finished(out / trial.path, trial.recipe, **{metric: value})

    best = search_with_optuna(
        held_out(RECIPE), parse_space(["vcreg.alpha=0..10"], RECIPE), metric="top1", count=count, at_once=at_once,
        seeds=[0, 1], out=out, run=run,
    )  # fmt: skip
    return ran, best


def test_optuna_finds_the_top_and_goes_on_where_it_was(tmp_path):
    ran, (summary, trial) = optimised(tmp_path / "a", 25)
    assert len(ran) == 50, "each proposal with both seeds"
    assert all(one.recipe.eval.split == "val" for one in ran)
    tried = {one.recipe.vcreg.alpha for one in ran}
    nearest = min(tried, key=lambda alpha: abs(alpha - 2))
    assert trial.recipe.vcreg.alpha == nearest and abs(nearest - 2) < 0.7
    assert summary.n == 2 and summary.mean == pytest.approx(50.05 - (nearest - 2) ** 2)
    # Interrupted after ten: the same call proposes the same ones, and finds them done.
    first, _ = optimised(tmp_path / "b", 10)
    again, (_, same) = optimised(tmp_path / "b", 25)
    assert again[:20] == first and again == ran and same.settings == trial.settings


def test_optuna_proposes_several_at_a_time(tmp_path):
    ran, _ = optimised(tmp_path, 7, at_once=3)
    assert len(ran) == 14 and len({trial.label for trial in ran}) > 4


def test_optuna_with_a_metric_of_nobody_s(tmp_path):
    with pytest.raises(UsageError, match="no run reports top1"):
        optimised(tmp_path, 1, metric="top5")


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"vcreg_hub\[optuna\]"):
        optimised(tmp_path, 1)
