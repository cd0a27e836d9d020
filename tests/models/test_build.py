"""A recipe's network by name: timm's, transformers', torchvision's; its logits and its features."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from torch import nn

import vcreg_hub.models.zoo as zoo
from vcreg_hub.config import Model
from vcreg_hub.errors import ConfigError, UnknownNameError, UsageError, WeightsNotFoundError
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.models.build import build_model
from vcreg_hub.models.outputs import features, logits

torch.set_num_threads(1)
zoo.register_model("test_convnext")

RESNET = dict(model_type="resnet", depths=[1, 1], hidden_sizes=[16, 32], embedding_size=8)
CONVNEXT = dict(model_type="convnext", depths=[1, 1], hidden_sizes=[8, 16], num_stages=2)
VIT = dict(
    model_type="vit", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, patch_size=8
)
TINY = {"resnet": RESNET, "convnext": CONVNEXT, "vit": VIT}


def build(name, pretrained=False, classes=4, in_chans=3, size=32, **kwargs):
    torch.manual_seed(0)
    cfg = Model(name, pretrained, kwargs)
    return build_model(cfg, num_classes=classes, in_chans=in_chans, image_size=size)


@pytest.fixture(params=list(TINY))
def hf_config(request, tmp_path):
    """A folder with a transformers config.json and nothing else."""
    write_json(tmp_path / "net" / "config.json", TINY[request.param])
    return tmp_path / "net"


def saved(model, folder):
    model.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def same_logits(one, other, in_chans=3):
    x = torch.randn(2, in_chans, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.equal(logits(one.eval()(x)), logits(other.eval()(x)))


@pytest.mark.parametrize("name", ["test_convnext", "test_convnext.r160_in1k", "test_vit", "torchvision:resnet18"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_shapes_and_mode(name, in_chans):
    model = build(name, in_chans=in_chans)
    assert model.training
    assert logits(model(torch.randn(2, in_chans, 32, 32))).shape == (2, 4)


def test_the_image_size_reaches_networks_built_for_one():
    assert build("test_vit", size=64).patch_embed.img_size == (64, 64)
    assert build("torchvision:vit_b_32", size=64).image_size == 64


def test_a_vcreg_name_is_its_stock_network():
    model = build("test_convnext_vcreg")
    assert not hasattr(model, "vcreg")
    assert same_logits(model, build("test_convnext"))


def test_kwargs_reach_the_constructor():
    assert build("test_convnext", drop_path_rate=0.5).stages[3].blocks[0].drop_path.drop_prob > 0
    with pytest.raises(ConfigError, match=r"test_convnext cannot be built with .*drop_paths"):
        build("test_convnext", drop_paths=0.5)
    with pytest.raises(ConfigError, match=r"model.kwargs.num_classes: the data decide it"):
        build_model(Model("test_convnext", kwargs={"num_classes": 3}), num_classes=4, in_chans=3, image_size=32)


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("convnext_atom", "convnext_atto"),
        ("torchvision:resnet19", "resnet18"),
        ("torchvison:resnet18", "torchvision"),
    ],
)
def test_unknown_names(name, nearest):
    with pytest.raises(UnknownNameError, match=f"did you mean .*{nearest}"):
        build(name)


class TestTransformers:
    def test_from_a_folder_or_a_config_file(self, hf_config):
        for name in (f"hf:{hf_config}", f"hf:{hf_config / 'config.json'}"):
            model = build(name, in_chans=1)
            assert model.training and model.config.num_labels == 4
            assert logits(model(torch.randn(2, 1, 32, 32))).shape == (2, 4)

    def test_weights_with_the_same_and_with_a_fresh_head(self, hf_config, tmp_path):
        model = build(f"hf:{hf_config}")
        source = saved(model, tmp_path / "weights")
        assert same_logits(build(f"hf:{source}", pretrained=True), model)
        assert same_logits(build(f"hf:{hf_config}", pretrained=source), model)
        other = build(f"hf:{source}", pretrained=True, classes=9)
        assert logits(other.eval()(torch.randn(2, 3, 32, 32))).shape == (2, 9)
        for name, tensor in model.state_dict().items():
            if not name.startswith("classifier."):
                assert torch.equal(other.state_dict()[name], tensor), name

    def test_weights_of_a_run_folder(self, hf_config, tmp_path):
        model = build(f"hf:{hf_config}")
        write_tensors(tmp_path / "run" / "model.safetensors", model.state_dict())
        assert same_logits(build(f"hf:{hf_config}", pretrained=str(tmp_path / "run")), model)
        other = build(f"hf:{hf_config}", pretrained=str(tmp_path / "run"), classes=7)
        assert other.config.num_labels == 7

    def test_weights_of_another_size_name_the_tensors(self, hf_config, tmp_path):
        source = saved(build(f"hf:{hf_config}"), tmp_path / "weights")
        config = json.loads((hf_config / "config.json").read_text())
        config["hidden_size" if config["model_type"] == "vit" else "hidden_sizes"] = (
            64 if config["model_type"] == "vit" else [8, 32] if config["model_type"] == "convnext" else [16, 64]
        )
        write_json(hf_config / "config.json", config)
        with pytest.raises(
            UsageError, match=rf"the weights of {source} do not fit .* mismatched \({config['model_type']}"
        ):
            build(f"hf:{hf_config}", pretrained=source, classes=7)

    def test_pickles_are_refused(self, hf_config, tmp_path):
        model = build(f"hf:{hf_config}")
        (tmp_path / "old").mkdir()
        model.config.save_pretrained(tmp_path / "old")
        torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
        with pytest.raises(UsageError, match=r"pytorch_model.bin is a pickle"):
            build(f"hf:{tmp_path / 'old'}", pretrained=True)

    def test_wrong_sources(self, hf_config, tmp_path):
        with pytest.raises(WeightsNotFoundError, match=r"is a configuration without weights"):
            build(f"hf:{hf_config / 'config.json'}", pretrained=True)
        with pytest.raises(WeightsNotFoundError, match=r"no configuration at"):
            build(f"hf:{tmp_path / 'absent'}")
        with pytest.raises(WeightsNotFoundError, match=r"there is no file"):
            build(f"hf:{tmp_path / 'absent.json'}")
        write_json(tmp_path / "bert" / "config.json", {"model_type": "bert"})
        with pytest.raises(ConfigError, match=r"is a 'bert', which AutoModelForImageClassification has no class for"):
            build(f"hf:{tmp_path / 'bert'}")
        with pytest.raises(UnknownNameError, match=r"did you mean 'hidden_act'"):
            build(f"hf:{hf_config}", hidden_acts="gelu")
        with pytest.raises(ConfigError, match=r"hidden_act=3 does not fit a"):
            build(f"hf:{hf_config}", hidden_act=3)

    def test_code_from_a_repo_is_never_run(self, tmp_path):
        config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
        write_json(tmp_path / "mine" / "config.json", config)
        (tmp_path / "mine" / "mine.py").write_text("raise SystemExit('the code of a repo was run')\n")
        with pytest.raises((ConfigError, WeightsNotFoundError)):
            build(f"hf:{tmp_path / 'mine'}")

    def test_the_backbone_alone(self, tmp_path):
        from transformers import ViTConfig, ViTModel

        settings = {k: v for k, v in VIT.items() if k != "model_type"}
        ViTModel(ViTConfig(**settings, image_size=32)).save_pretrained(tmp_path)
        model = build(f"hf:{tmp_path}", pretrained=True)  # its pooler has no place here, and that is fine
        assert logits(model(torch.randn(1, 3, 32, 32))).shape == (1, 4)


class TestPretrained:
    def test_an_exported_folder(self, tmp_path, write_release):
        model = write_release(tmp_path / "test_convnext_vcreg.mine", "test_convnext", classes=4)
        assert same_logits(build("test_convnext", pretrained=str(tmp_path / "test_convnext_vcreg.mine")), model)

    def test_a_vcreg_release(self, tmp_path, monkeypatch, write_release):
        model = write_release(tmp_path / "test_convnext_vcreg.mine", "test_convnext", classes=4)
        monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
        assert same_logits(build("test_convnext_vcreg", pretrained=True), model)
        assert same_logits(build("test_convnext", pretrained="test_convnext_vcreg"), model)
        assert build("test_convnext_vcreg.mine", pretrained=True, classes=9).num_classes == 9

    @pytest.mark.parametrize("name", ["test_convnext", "test_vit", "torchvision:resnet18"])
    def test_a_run_folder_or_a_file(self, name, tmp_path):
        model = build(name)
        write_tensors(tmp_path / "model.safetensors", model.state_dict())
        assert same_logits(build(name, pretrained=str(tmp_path)), model)
        assert same_logits(build(name, pretrained=str(tmp_path / "model.safetensors")), model)
        other = build(name, pretrained=str(tmp_path), classes=9, in_chans=1)
        assert logits(other(torch.randn(2, 1, 32, 32))).shape == (2, 9)

    def test_another_networks_weights(self, tmp_path):
        write_tensors(tmp_path / "model.safetensors", build("test_vit").state_dict())
        with pytest.raises(UsageError, match=r"do not fit ConvNeXt: .*missing \(stem.0.weight"):
            build("test_convnext", pretrained=str(tmp_path))

    def test_another_librarys_folder(self, tmp_path, write_release):
        write_release(tmp_path / "timm", "test_convnext")
        write_json(tmp_path / "net" / "config.json", VIT)
        with pytest.raises(UsageError, match=r"do not fit|holds weights for timm"):
            build(f"hf:{tmp_path / 'net'}", pretrained=str(tmp_path / "timm"))
        native = saved(build(f"hf:{tmp_path / 'net'}"), tmp_path / "native")
        with pytest.raises(UsageError, match=r"holds weights for transformers, but test_vit is timm's"):
            build("test_vit", pretrained=native)

    def test_no_such_source(self):
        with pytest.raises(WeightsNotFoundError, match=r"no folder and no file here"):
            build("test_convnext", pretrained="./absent")


@pytest.mark.parametrize(
    "name, dimension",
    [("test_convnext", 64), ("test_vit", 64), ("test_resnet", 96), ("resnet32_cifar", 64), ("test_efficientnet", 256)],
)
def test_features_are_what_timm_calls_pre_logits(name, dimension):
    model = build(name).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = features(model, x)
        assert found.shape == (2, dimension)
        torch.testing.assert_close(found, model.forward_head(model.forward_features(x), pre_logits=True).flatten(1))
        torch.testing.assert_close(model.get_classifier()(found), model(x))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:squeezenet1_1"])
def test_features_of_torchvision(name):
    model = build(name).eval()
    with torch.no_grad():
        found = features(model, torch.randn(2, 3, 32, 32))
    assert found.shape == (2, 1280 if "mobile" in name else 512)


def test_features_of_transformers(hf_config):
    model = build(f"hf:{hf_config}").eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = features(model, x)
        classifier = [m for m in model.classifier.modules() if isinstance(m, nn.Linear)][-1]
        torch.testing.assert_close(classifier(found), model(x).logits)


def test_features_follow_a_replaced_classifier_and_leave_no_hook():
    model = build("test_convnext").eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first = features(model, x)
        model.reset_classifier(9)
        assert torch.equal(features(model, x), first)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_logits_of_what_has_none():
    tensor = torch.randn(2, 3)
    assert logits((tensor, None)) is tensor
    with pytest.raises(UsageError, match=r"a dict holds no logits"):
        logits({"x": tensor})


def test_googlenets_auxiliary_outputs_are_not_its_logits():
    model = build("torchvision:googlenet", init_weights=False, aux_logits=True, transform_input=False)
    assert logits(model(torch.randn(2, 3, 64, 64))).shape == (2, 4)


def test_timm_names_are_timms():
    assert type(build("test_resnet")) is type(timm.create_model("test_resnet"))
