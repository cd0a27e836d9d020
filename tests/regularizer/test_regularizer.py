"""A second regularizer has the three things of the first: a loss, its gradient, and a form in JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from regularizer.rival import Rival
from torch import nn

from vcreg_hub.config import Data, Model, Recipe, Regularizer, VCReg, from_json, override, to_dict, to_json
from vcreg_hub.errors import UsageError

PLAIN = Recipe("r", Model("convnext_atto"), Data("digits"))


@pytest.mark.parametrize(
    "regularizer", [Rival(0.3), VCReg(), VCReg(delta=None, beta=2.0), VCReg(alpha=3.0, delta=0.01)]
)
def test_the_gradient_is_that_of_the_loss(regularizer):
    z = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.7
    torch.testing.assert_close(
        regularizer.gradient_of(z), Regularizer.gradient_of(regularizer, z), rtol=1e-10, atol=1e-13
    )


def test_a_regularizer_from_outside_survives_json_and_is_set():
    recipe = replace(PLAIN, vcreg=Rival(0.3))
    assert to_dict(recipe)["vcreg"] == {"type": "regularizer.rival:Rival", "weight": 0.3}
    assert from_json(to_json(recipe)) == recipe
    assert override(PLAIN, ["vcreg=regularizer.rival:Rival", "vcreg.weight=0.3"]) == recipe
    assert override(recipe, ["vcreg=null"]) == PLAIN and override(recipe, ["vcreg=vcreg"]).vcreg == VCReg()


def test_attach_takes_only_what_it_can_inject():
    from vcreg_hub.regularizer.attachment import attach

    with pytest.raises(UsageError, match="attach takes a VCReg, got Rival"):
        attach(nn.Linear(2, 2), Rival())
