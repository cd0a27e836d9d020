"""The network for points: its sites, and one output that is a logistic loss."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional as F

import vcreg_hub
from vcreg_hub.config import Model
from vcreg_hub.errors import ConfigError
from vcreg_hub.models.build import build_model


def built(**kwargs):
    return build_model(Model("mlp", kwargs=kwargs), num_classes=2, in_chans=2, image_size=1)


def test_the_cross_entropy_of_two_classes_is_the_logistic_loss_of_one_output():
    torch.manual_seed(0)
    network, points, labels = built(), torch.randn(9, 2), torch.randint(2, (9,))
    assert network.fc.out_features == 1
    output = network.fc(network.forward_features(points))[:, 0]
    by_hand = F.softplus(-(2 * labels - 1) * output).mean()
    assert torch.allclose(F.cross_entropy(network(points), labels), by_hand, atol=1e-6)
    assert torch.allclose(network.forward_head(network.forward_features(points), pre_logits=True).relu(),
                          network.forward_features(points))  # fmt: skip


def test_sites_are_the_hidden_layers_after_their_relu():
    with vcreg_hub.attach(built(), vcreg_hub.VCReg(), "hidden.*", torch.zeros(1, 2)) as attached:
        assert [site.name for site in attached.sites] == ["hidden.0", "hidden.1"]
    layers = built(hidden=[8, 6, 4], drop_rate=0.7, norm=True).hidden
    assert [[type(part).__name__ for part in layer] for layer in layers] == [
        ["Linear", "BatchNorm1d", "Dropout", "ReLU"]
    ] * 3
    assert [layer[0].out_features for layer in layers] == [8, 6, 4]
    with pytest.raises(ConfigError, match="width of each hidden layer"):
        built(hidden=[])


def test_it_is_one_of_timm_s_and_another_class_count_has_as_many_outputs():
    network = timm.create_model("mlp", num_classes=5, in_chans=3)
    assert network(torch.zeros(4, 3)).shape == (4, 5)
    network.reset_classifier(2)
    assert network(torch.zeros(4, 3)).shape == (4, 2) and network.get_classifier().out_features == 1
    network.reset_classifier(0)
    assert network(torch.zeros(4, 3)).shape == (4, 500)
