"""The `*_vcreg` names: timm's networks, timm's arguments, and the regularizer on the blocks."""

from __future__ import annotations

import argparse
import copy
import json
import warnings

import pytest
import timm
import torch

import vcreg_hub.models.zoo as zoo
from vcreg_hub.errors import (
    BlocksNotFoundError,
    ConfigError,
    IntegrityError,
    UnknownNameError,
    UsageError,
    WeightsNotFoundError,
)
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.releases import RELEASES

torch.set_num_threads(1)
NAME = zoo.register_model("test_convnext")
BLOCKS = {"resnet50": 16, "convnext_tiny": 18, "convnext_atto": 12, "vit_base_patch32_224": 12, "resnet32_cifar": 15}


@pytest.fixture
def logits():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def compute(model):
        return model.eval()(x)

    return compute


def test_timm_lists_the_names():
    listed = timm.list_models("*_vcreg")
    for row in RELEASES:  # those of transformers' own classes are not timm's to list
        ours = row.library != "transformers"
        assert (row.name in listed) == ours
        assert (row.full_name in timm.list_models("*_vcreg*", include_tags=True)) == ours
    assert {"resnet50_vcreg", "convnext_tiny_vcreg", "convnext_atto_vcreg", "vit_base_patch32_224_vcreg"} <= set(listed)


def test_timm_lists_as_pretrained_only_what_this_package_carries():
    pretrained = timm.list_models("*_vcreg", pretrained=True)
    assert {name.partition(".")[0] for name in pretrained} == {
        row.name for row in RELEASES if row.place == "package" and row.published and row.library != "transformers"
    }


@pytest.mark.parametrize("architecture", BLOCKS)
def test_regularizer_on_every_block(architecture):
    model = timm.create_model(f"{architecture}_vcreg", num_classes=3)
    assert len(model.vcreg.sites) == BLOCKS[architecture]
    assert model.vcreg.cfg == VCReg()
    assert model.pretrained_cfg["architecture"] == architecture


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 7}, {"in_chans": 1}, {"global_pool": "max"}])
def test_is_the_stock_network(arguments):
    torch.manual_seed(0)
    ours = timm.create_model(NAME, **arguments)
    torch.manual_seed(0)
    stock = timm.create_model("test_convnext", **arguments)
    assert type(ours) is type(stock)
    assert list(ours.state_dict()) == list(stock.state_dict())
    x = torch.randn(2, arguments.get("in_chans", 3), 32, 32)
    for training in (True, False):
        assert torch.equal(ours.train(training)(x), stock.train(training)(x))


def test_vcreg_argument():
    cfg = VCReg(alpha=0.3, beta=0.01)
    assert timm.create_model(NAME, vcreg=cfg).vcreg.cfg == cfg
    assert timm.create_model(NAME, vcreg=True).vcreg.cfg == VCReg()
    assert not hasattr(timm.create_model(NAME, vcreg=False), "vcreg")
    with pytest.raises(ConfigError, match=r"vcreg is a vcreg_hub.VCReg.*got 0.64"):
        timm.create_model(NAME, vcreg=0.64)


def test_settings_as_timms_command_line_gives_them(tmp_path, logits):
    """train.py reads `--model-kwargs "vcreg={'alpha': 0.3}" where=final` as literals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=timm.utils.ParseKwargs)
    given = parser.parse_args(["--model-kwargs", "vcreg={'alpha': 0.3, 'beta': 0.01}", "where=final"]).model_kwargs
    model = timm.create_model(NAME, num_classes=4, **given)
    assert model.vcreg.cfg == VCReg(alpha=0.3, beta=0.01)
    assert [(site.name, site.side) for site in model.vcreg.sites] == [("head.fc", "input")]
    assert len(timm.create_model(NAME, where="stages.*.blocks.0").vcreg.sites) == 4
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    text = (tmp_path / "config.json").read_text()
    assert "vcreg" not in text and "where" not in text
    assert torch.equal(logits(timm.create_model(f"local-dir:{tmp_path}", pretrained=True)), logits(model))
    with pytest.raises(UnknownNameError, match="unknown field of VCReg 'alhpa'; did you mean 'alpha'"):
        timm.create_model(NAME, vcreg={"alhpa": 0.3})
    with pytest.raises(BlocksNotFoundError, match="where='nowhere'"):
        timm.create_model(NAME, where="nowhere")


@pytest.mark.parametrize("name", timm.list_models("*_vcreg*", include_tags=True))
def test_what_timm_says_of_a_name_is_true_of_its_network(name):
    said, model = timm.get_pretrained_cfg(name), timm.create_model(name, vcreg=False)
    found = {key: json.loads(json.dumps(model.pretrained_cfg[key])) for key in model.pretrained_cfg}
    for fact in ("input_size", "mean", "std", "num_classes", "pool_size", "crop_pct", "interpolation", "classifier"):
        assert json.loads(json.dumps(getattr(said, fact))) == found[fact], fact
    assert said.num_classes == model.num_classes and said.input_size[0] == model.in_chans
    if name.startswith("vit"):  # of tokens
        assert said.pool_size is None
        return
    assert model.eval().forward_features(torch.zeros(1, *said.input_size)).shape[2:] == tuple(said.pool_size)


def test_names_stay_in_their_family():
    assert "resnet50_vcreg" in timm.list_models("*_vcreg", module="resnet")
    for name in timm.list_models("*_vcreg"):
        assert family(name) == family(name.removesuffix("_vcreg"))
    assert not {"zoo", "_registry"} & set(timm.list_modules())
    zoo.register_model("dla46x_c")
    assert timm.list_models("*_vcreg", module="dla") == ["dla46x_c_vcreg"]


def family(name: str) -> str:
    return next(module for module in timm.list_modules() if timm.models.is_model_in_modules(name, module))


@pytest.mark.parametrize("name", ["resnet18_vcreg", "resnet18_vcreg.in1k"])
def test_an_unregistered_name_is_answered_with_what_to_do(name):
    with pytest.raises(RuntimeError, match=r"call vcreg_hub.register_model\('resnet18'\) first") as error:
        timm.create_model(name)
    assert isinstance(error.value, UnknownNameError) and f"create_model({name.partition('.')[0]!r})" in str(error.value)
    for other in ("resnet18_vcregs", "nothing_vcreg"):
        with pytest.raises(RuntimeError, match="Unknown model"):
            timm.create_model(other)
    assert not timm.is_model("resnet18_vcreg")


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_scriptable_is_the_plain_network_and_says_so(logits):
    with pytest.warns(UserWarning, match=r"test_convnext_vcreg with scriptable=True is the plain network.*vcreg=False"):
        model = timm.create_model(NAME, scriptable=True)
    assert not hasattr(model, "vcreg")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        meant = timm.create_model(NAME, scriptable=True, vcreg=False)
        assert timm.create_model(NAME).vcreg.sites
    meant.load_state_dict(model.state_dict())
    assert torch.equal(logits(torch.jit.script(model)), logits(meant))


def test_features_only():
    ours = timm.create_model(NAME, features_only=True, out_indices=(1, 3))
    assert len(ours.vcreg.sites) == len(timm.create_model(NAME).vcreg.sites)
    assert [tuple(t.shape) for t in ours(torch.randn(1, 3, 64, 64))] == [(1, 32, 8, 8), (1, 64, 2, 2)]


def test_registering_again_changes_nothing():
    entry = timm.models.model_entrypoint(NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert zoo.register_model("test_convnext") == zoo.register_model(NAME) == NAME
    assert timm.models.model_entrypoint(NAME) is entry


def test_registering_what_timm_does_not_have():
    with pytest.raises(UnknownNameError, match=r"did you mean .*'resnet50'"):
        zoo.register_model("resnett50")
    with pytest.raises(UsageError, match=r"without a tag: 'resnet50', not"):
        zoo.register_model("resnet50.a1_in1k")


def test_says_nothing_of_other_peoples_weights():
    config = timm.create_model(NAME, vcreg=False).pretrained_cfg
    stock = timm.create_model("test_convnext").pretrained_cfg
    assert stock["hf_hub_id"]
    assert not {"hf_hub_id", "url", "license", "tag", "origin_url"} & set(config)
    assert config["mean"] == stock["mean"] and config["first_conv"] == stock["first_conv"]


@pytest.mark.parametrize("vcreg", [None, True, False, VCReg(alpha=0.5)])
def test_timms_own_export_says_the_stock_architecture(tmp_path, vcreg, logits):
    model = timm.create_model(NAME, num_classes=4, vcreg=vcreg)
    timm.models.save_for_hf(copy.deepcopy(model), tmp_path, safe_serialization=True)
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text)["architecture"] == "test_convnext" and "vcreg" not in text
    assert torch.equal(logits(timm.create_model(f"local-dir:{tmp_path}", pretrained=True)), logits(model))


def test_weights_from_a_folder_with_their_own_classes_and_preprocessing(tmp_path, monkeypatch, write_release, logits):
    model = write_release(tmp_path / f"{NAME}.mine", "test_convnext", classes=4, size=32)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    found = timm.create_model(NAME, pretrained=True)
    assert found.num_classes == 4 and len(found.vcreg.sites) == 9
    assert torch.equal(logits(found), logits(model))
    config = timm.data.resolve_model_data_config(found)
    assert tuple(config["input_size"]) == (3, 32, 32) and tuple(config["mean"]) == (0.3, 0.3, 0.3)
    assert config["interpolation"] == "bilinear" and config["crop_pct"] == 32 / 36
    assert torch.equal(logits(timm.create_model(f"{NAME}.mine", pretrained=True, vcreg=False)), logits(model))


def test_a_call_overrides_classes_and_channels(tmp_path, monkeypatch, write_release):
    model = write_release(tmp_path / f"{NAME}.mine", "test_convnext", classes=4)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    found = timm.create_model(NAME, pretrained=True, num_classes=9, in_chans=1)
    assert found(torch.randn(2, 1, 32, 32)).shape == (2, 9)
    backbone, weights = model.state_dict(), found.state_dict()
    for name, tensor in backbone.items():
        if not name.startswith(("head.fc.", "stem.0.weight")):
            assert torch.equal(weights[name], tensor), name
    maps = timm.create_model(NAME, pretrained=True, features_only=True)(torch.randn(1, 3, 64, 64))
    assert len(maps) == 4


def test_the_same_class_count_keeps_the_head(tmp_path, monkeypatch, write_release, logits):
    model = write_release(tmp_path / f"{NAME}.mine", "test_convnext", classes=4)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    assert torch.equal(logits(timm.create_model(NAME, pretrained=True, num_classes=4)), logits(model))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            config.pop(name)
            config["pretrained_cfg"].pop(name, None)
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"num_classes": 7}, IntegrityError, r"says 7 classes, but head.fc.weight has 4 rows"),
        ({"num_classes": None}, IntegrityError, "does not say num_classes"),
        ({"architecture": "test_resnet"}, UsageError, "is a 'test_resnet', expected 'test_convnext'"),
        ({"model_type": "vit"}, UsageError, "not in timm's format"),
    ],
)
@pytest.mark.parametrize("asked", [{}, {"num_classes": 7}])
def test_a_wrong_configuration_never_leaves_a_random_head(
    tmp_path, monkeypatch, write_release, changes, error, message, asked
):
    folder = tmp_path / f"{NAME}.mine"
    write_release(folder, "test_convnext", classes=4)
    edit_config(folder, **changes)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    with pytest.raises(error, match=message):
        timm.create_model(NAME, pretrained=True, **asked)


@pytest.mark.parametrize("asked", [{"num_classes": 9}, {"features_only": True}, {"in_chans": 1}])
def test_foreign_tensors_are_an_error_also_where_timm_does_not_look(tmp_path, monkeypatch, write_release, asked):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / f"{NAME}.mine"
    write_release(folder, "test_convnext")
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("stages.", "layers."): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"missing \(stages.0"):
        timm.create_model(NAME, pretrained=True, **asked)


def test_a_tag_without_weights_is_its_configuration_as_in_timm(tmp_path, monkeypatch, write_release):
    stock = timm.create_model("test_vit.r160_in1k")
    assert (stock.num_classes, stock.pretrained_cfg["tag"]) == (1000, "r160_in1k")
    with pytest.raises(RuntimeError, match=r"Invalid pretrained tag \(nope\)"):
        timm.create_model("test_vit.nope")

    trained = timm.create_model("resnet32_cifar_vcreg.fashion_mnist", pretrained=True)
    fresh = timm.create_model("resnet32_cifar_vcreg.fashion_mnist")
    assert fresh.conv1.weight.shape == trained.conv1.weight.shape == (16, 1, 3, 3)
    assert not torch.equal(fresh.conv1.weight, trained.conv1.weight)
    views = [timm.data.resolve_model_data_config(model) for model in (fresh, trained)]
    assert views[0] == views[1] and len(fresh.vcreg.sites) == len(trained.vcreg.sites)
    assert timm.create_model("resnet32_cifar_vcreg.fashion_mnist", num_classes=3, in_chans=3).fc.out_features == 3

    write_release(tmp_path / f"{NAME}.mine", "test_convnext", classes=4)
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    mine = timm.create_model(f"{NAME}.mine", vcreg=False)
    assert mine.num_classes == 4 and tuple(mine.pretrained_cfg["mean"]) == (0.3, 0.3, 0.3)
    # Not published yet: nothing is known of it but the network.
    assert timm.create_model("resnet50_vcreg.in1k", vcreg=False).num_classes == 1000
    for name in (f"{NAME}.nope", "resnet32_cifar_vcreg.nope"):
        with pytest.raises(
            UnknownNameError, match=r"invalid pretrained tag 'nope' for .*; known: (none|fashion_mnist)"
        ):
            timm.create_model(name)


@pytest.mark.parametrize("name", ["resnet32_cifar_vcreg", "convnext_zepto_rms_vcreg"])
def test_a_release_without_pooling_needs_no_classifier(name):
    with pytest.raises(UsageError, match=r"leaves no vector for the 10 classes of .*: add num_classes=0"):
        timm.create_model(name, pretrained=True, global_pool="")
    model = timm.create_model(name, pretrained=True, global_pool="", num_classes=0).eval()
    assert model(torch.zeros(1, 1, 32, 32)).ndim == 4


def test_weights_given_through_timms_overlay(tmp_path, write_release, logits):
    model = write_release(tmp_path, "test_convnext", classes=4)
    overlay = {"file": str(tmp_path / "model.safetensors")}
    with pytest.raises(UsageError, match=r"add num_classes"):
        timm.create_model(NAME, pretrained=True, num_classes=4, pretrained_cfg_overlay=overlay)
    found = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={**overlay, "num_classes": 4})
    assert torch.equal(logits(found), logits(model))


def test_nobody_has_published_the_imagenet_weights():
    with pytest.raises(WeightsNotFoundError) as error:
        timm.create_model("convnext_tiny_vcreg", pretrained=True)
    for part in ("this package", "imagenet:convnext_tiny_vcreg", "VCREG_HUB_DIR", "VCREG_HUB_NAMESPACE", "published"):
        assert part in str(error.value)
