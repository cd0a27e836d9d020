"""torchvision's networks as timm's: every pair of the table that is small enough computes the same function."""

from __future__ import annotations

import pytest
import timm
import torch
from torchvision import models

from vcreg_hub.models.libraries.library import Sizes
from vcreg_hub.models.libraries.torchvision import EQUIVALENTS, _as_timm, _paired, _same_function

torch.set_num_threads(1)
SMALL = {"resnet18": 32, "resnext50_32x4d": 32, "convnext_tiny": 32, "densenet121": 32}


def test_the_table_names_what_both_libraries_have():
    known = models.list_models(module=models)
    for theirs, ours in EQUIVALENTS.items():
        assert theirs in known and timm.is_model(ours)


@pytest.mark.parametrize("name", SMALL)
def test_an_equivalent_computes_the_same(name):
    torch.manual_seed(0)
    size = {"image_size": SMALL[name]} if name.startswith("vit") else {}
    model = models.get_model(name, num_classes=3, **size).eval()
    equivalent = _as_timm(name, model, Sizes(3, 3, SMALL[name]))
    assert equivalent is not None
    x = torch.randn(2, 3, SMALL[name], SMALL[name])
    with torch.no_grad():
        torch.testing.assert_close(equivalent(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EQUIVALENTS if name not in SMALL])
def test_every_equivalent_computes_the_same(name):
    size = {"image_size": 32} if name.startswith("vit") else {}
    model = models.get_model(name, num_classes=3, **size).eval()
    assert _as_timm(name, model, Sizes(3, 3, 32)) is not None


def test_a_vision_transformer_computes_the_same():
    torch.manual_seed(0)
    sizes = dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=3)
    model = models.VisionTransformer(**sizes).eval()
    equivalent = timm.create_model(
        "vit_base_patch32_224",
        img_size=32,
        patch_size=8,
        depth=2,
        num_heads=2,
        embed_dim=32,
        mlp_ratio=2,
        num_classes=3,
    )
    pairs = _paired(equivalent.state_dict(), model.state_dict())
    assert pairs["blocks.1.attn.qkv.weight"] == "encoder.layers.encoder_layer_1.self_attention.in_proj_weight"
    assert _same_function(model, equivalent, pairs, (1, 3, 32, 32))


def test_a_wrong_pairing_is_noticed():
    model, equivalent = models.resnet18(num_classes=3), timm.create_model("resnet18", num_classes=3)
    pairs = _paired(equivalent.state_dict(), model.state_dict())
    assert _same_function(model, equivalent, pairs, (1, 3, 32, 32))
    one, other = "layer1.0.bn1.weight", "layer1.0.bn2.weight"
    assert not _same_function(model, equivalent, {**pairs, one: pairs[other], other: pairs[one]}, (1, 3, 32, 32))


def test_what_has_no_equivalent():
    model = models.mobilenet_v2(num_classes=3)
    assert _as_timm("mobilenet_v2", model, Sizes(3, 3, 32)) is None
    assert _paired(model.state_dict(), timm.create_model("test_vit").state_dict()) is None
