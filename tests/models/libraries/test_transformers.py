"""transformers' image classifiers: the native classes, at the sizes the paper uses."""

from __future__ import annotations

import pytest
import torch
import transformers

from vcreg_hub.errors import ConfigError, UnknownNameError, UsageError, WeightsNotFoundError
from vcreg_hub.models.libraries.transformers import IMAGE_NETWORKS, create_image_model
from vcreg_hub.regularizer.vcreg import VCReg

torch.set_num_threads(1)

# Class, blocks, and millions of parameters with 1000 classes, as published.
EXPECTED = {
    "resnet50": (transformers.ResNetForImageClassification, 16, 25.557),
    "convnext_tiny": (transformers.ConvNextForImageClassification, 18, 28.589),
    "vit_base_patch32_224": (transformers.ViTForImageClassification, 12, 88.224),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_native_class_size_and_sites(name):
    kind, blocks, millions = EXPECTED[name]
    with torch.device("meta"):
        model = create_image_model(name)
    assert type(model) is kind and model.config.num_labels == 1000
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == millions
    assert len(model.vcreg.sites) == blocks and model.vcreg.cfg == VCReg()


def test_arguments():
    with torch.device("meta"):
        final = create_image_model("resnet50", num_classes=5, vcreg=VCReg(alpha=1.0), where="final")
        plain = create_image_model("resnet50", vcreg=False)
    assert final.config.num_labels == 5 and final.vcreg.cfg.alpha == 1.0
    assert [site.side for site in final.vcreg.sites] == ["input"]
    assert not hasattr(plain, "vcreg")
    with pytest.raises(UnknownNameError, match=r"did you mean 'resnet50'"):
        create_image_model("resnet5")
    with pytest.raises(ConfigError, match=r"vcreg is a"):
        create_image_model("resnet50", vcreg=3)


@pytest.fixture
def tiny(monkeypatch):
    settings = dict(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2, image_size=32)
    monkeypatch.setitem(IMAGE_NETWORKS, "convnext_tiny", ("convnext", settings))
    return create_image_model("convnext_tiny", num_classes=4)


def test_weights(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "convnext_tiny_vcreg.mine"
    tiny.save_pretrained(folder)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    x = torch.randn(2, 3, 32, 32)
    for source in (True, str(folder)):
        model = create_image_model("convnext_tiny", pretrained=source)
        assert model.config.num_labels == 4 and len(model.vcreg.sites) == 2
        assert torch.equal(model.eval()(x).logits, tiny.eval()(x).logits)
    model = create_image_model("convnext_tiny", num_classes=9, pretrained=str(folder))
    assert model(x).logits.shape == (2, 9)
    assert torch.equal(model.convnext.layernorm.weight, tiny.convnext.layernorm.weight)
    with pytest.raises(UsageError, match=r"is a 'convnext', but resnet50 is a 'resnet'"):
        create_image_model("resnet50", pretrained=str(folder))


def test_weights_that_are_not_there(tmp_path, monkeypatch, write_release):
    with pytest.raises(WeightsNotFoundError, match=r"imagenet:convnext_tiny_vcreg"):
        create_image_model("convnext_tiny", pretrained=True)
    write_release(tmp_path / "convnext_tiny_vcreg.mine", "test_convnext")
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"is in timm's format: timm.create_model"):
        create_image_model("convnext_tiny", pretrained=True)
