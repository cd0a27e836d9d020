"""A second regularizer has the three things of the first: a loss, its gradient, and a form in JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from regularizer.rival import Rival
from torch import nn

from vcreg_hub.config import Data, Model, Recipe, Regularizer, Train, VCReg, from_json, override, to_dict, to_json
from vcreg_hub.errors import UsageError
from vcreg_hub.hub.card import render_card
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.decov import DeCov
from vcreg_hub.regularizer.loss import rows
from vcreg_hub.regularizer.wld_reg import WLDReg
from vcreg_hub.run import train

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


@pytest.mark.parametrize("regularizer", [Rival(0.3), DeCov(0.7), WLDReg("logdet", 0.2, 0.1, 0.7)], ids=repr)
@pytest.mark.parametrize("double_backward", [False, True])
def test_what_is_injected_is_the_gradient_of_its_loss(regularizer, double_backward):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2)).double()
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    parameters = list(network.parameters())

    features = network[0](x)
    loss = network[1:](features).square().sum() + regularizer.loss_of(rows(features, 1))
    expected = torch.autograd.grad(3 * loss, parameters)

    with attach(network, regularizer, where="0", example_input=x) as vc:
        loss = 3 * vc.watch(network(x).square().sum())
        found = torch.autograd.grad(loss, parameters, create_graph=double_backward)
        (site,) = vc.statistics()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-9, atol=1e-12)
    if not double_backward:
        assert site["effective_rank"] > 1


def test_a_recipe_trains_with_another_regularizer(tmp_path):
    recipe = Recipe(
        "rival", Model("test_vit"), Data("digits", image_size=32, workers=0), train=Train(max_steps=2), vcreg=DeCov(0.1)
    )
    said: list[str] = []
    run = train(recipe, tmp_path / "run", log=said.append)
    assert [site["backwards"] for site in run.results()["regularizer"]] == [2] * len(run.results()["regularizer"])
    assert "decov at" in " ".join(said)
    assert "`decov`" in render_card(run.path, licence="mit")


def test_attach_refuses_what_is_no_regularizer():
    with pytest.raises(UsageError, match="attach takes a regularizer such as VCReg"):
        attach(nn.Linear(2, 2), 0.5)
