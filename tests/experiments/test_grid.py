"""Grids: every combination once, seed by seed, and how the command line spells them."""

from __future__ import annotations

import pytest

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import UsageError
from vcreg_hub.experiments.grid import expand_grid, parse_grid, parse_seeds
from vcreg_hub.regularizer.vcreg import VCReg

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits"), vcreg=VCReg())


def test_trials_cover_the_grid_seed_by_seed():
    found = expand_grid(RECIPE, parse_grid(["vcreg.alpha=1.28,0.64", "vcreg.beta=0.16"]), parse_seeds("3,4"))
    assert [str(trial.path) for trial in found] == [
        "alpha=1.28,beta=0.16/seed3",
        "alpha=0.64,beta=0.16/seed3",
        "alpha=1.28,beta=0.16/seed4",
        "alpha=0.64,beta=0.16/seed4",
    ]
    assert found[0].recipe.vcreg == VCReg(alpha=1.28, beta=0.16)
    assert found[2].recipe.train.seed == 4
    assert parse_grid(["optim.betas=[0.9,0.99],[0.8, 0.9]"]) == {"optim.betas": ["[0.9,0.99]", "[0.8, 0.9]"]}
    betas = [
        trial.recipe.optim.betas
        for trial in expand_grid(RECIPE, parse_grid(["optim.betas=[0.9,0.99],[0.8, 0.9]"]), [0])
    ]
    assert betas == [(0.9, 0.99), (0.8, 0.9)]
    with pytest.raises(UsageError, match=r"repeats a run: alpha=0\.50/seed0 is alpha=0\.5/seed0"):
        expand_grid(RECIPE, parse_grid(["vcreg.alpha=0.5,0.50"]), [0])
    with pytest.raises(UsageError, match=r"vcreg\.alpha is in the grid twice"):
        parse_grid(["vcreg.alpha=0.5", "vcreg.alpha=0.6"])
    with pytest.raises(UsageError, match="--seeds"):
        parse_grid(["train.seed=1,2"])
    for wrong in ("vcreg.alpha", "=1", "vcreg.alpha="):
        with pytest.raises(UsageError):
            parse_grid([wrong])
    for wrong in ("a", "1,1", ""):
        with pytest.raises(UsageError):
            parse_seeds(wrong)


def test_a_path_in_a_grid_is_part_of_one_folder_s_name():
    starts = ["weights/one.safetensors", "weights/two.safetensors"]
    found = expand_grid(RECIPE, {"model.pretrained": starts}, [0])
    assert [trial.recipe.model.pretrained for trial in found] == starts
    assert [str(trial.path) for trial in found] == [
        f"pretrained=weights%2F{n}.safetensors/seed0" for n in ("one", "two")
    ]


def test_a_trial_s_settings_are_kept_beside_its_label():
    grid = {"optim.betas": ["[0.9,0.99]"], "model.pretrained": ["a/b,c=d"]}
    (trial,) = expand_grid(RECIPE, grid, [0], "plain")
    assert trial.settings == (("optim.betas", "[0.9,0.99]"), ("model.pretrained", "a/b,c=d"))
    assert trial.label == "plain,betas=[0.9,0.99],pretrained=a%2Fb,c=d"
