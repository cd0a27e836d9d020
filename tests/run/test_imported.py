"""A checkpoint of another program becomes a run folder that computes what its network computed."""

from __future__ import annotations

import argparse
import json

import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from typer.testing import CliRunner

import vcreg_hub
from vcreg_hub.cli import app
from vcreg_hub.errors import UsageError
from vcreg_hub.models.checkpoint import load_checkpoint
from vcreg_hub.models.outputs import logits
from vcreg_hub.run.imported import import_checkpoint
from vcreg_hub.run.predict import predict


def trained(**kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", **kwargs).eval()


def test_timms_checkpoint_is_measured_and_named_as_it_was_trained(tmp_path):
    network = trained(num_classes=3, in_chans=1)
    arguments = argparse.Namespace(
        model="test_resnet", img_size=48, mean=[0.3], std=[0.2], crop_pct=1.0, interpolation="bicubic"
    )
    held = {"state_dict": {}, "state_dict_ema": network.state_dict(), "args": arguments, "epoch": 4}
    torch.save(held, tmp_path / "last.pth.tar")
    said: list[str] = []
    run = import_checkpoint(
        tmp_path / "last.pth.tar", "test_resnet", tmp_path / "run", classes=["a", "b", "c"], log=said.append
    )
    assert run.complete() and run.results()["metrics"] == []
    known = run.results()["training"]["imported"]
    assert known["file"] == "last.pth.tar" and known["entry"] == "state_dict_ema" and known["epoch"] == 4
    found = load_checkpoint(run.path)
    view = found.view
    assert (view.classes, view.in_chans, view.image_size, view.resize) == (["a", "b", "c"], 1, 48, 48)
    assert (view.mean, view.std, view.interpolation) == ([0.3], [0.2], "bicubic")
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        assert torch.equal(found.network(images), network(images))
    Image.new("L", (50, 60), 120).save(tmp_path / "grey.png")
    (shown,) = predict(run.path, [tmp_path / "grey.png"], 3)
    assert sorted(name for name, _ in shown.classes) == ["a", "b", "c"]


def test_what_is_told_comes_before_what_the_file_says(tmp_path):
    network = trained(num_classes=4)
    torch.save({"model": network.state_dict()}, tmp_path / "net.pth")
    settings = ["data.image_size=64", "data.mean=[0.1,0.2,0.3]", "data.resize=80"]
    run = import_checkpoint(
        tmp_path / "net.pth", "test_resnet", tmp_path / "run", settings=settings, log=lambda line: None
    )
    view = load_checkpoint(run.path).view
    assert (view.image_size, view.resize, view.mean, view.classes) == (64, 80, [0.1, 0.2, 0.3], ["0", "1", "2", "3"])


def test_a_lightning_module_and_its_own_loss(tmp_path):
    network = trained(num_classes=5)
    state = {f"net.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(5)}, "global_step": 12}, tmp_path / "last.ckpt")
    said: list[str] = []
    run = import_checkpoint(tmp_path / "last.ckpt", "test_resnet", tmp_path / "run", log=said.append)
    assert any("left out" in line and "loss.weight" in line for line in said)
    assert run.results()["training"]["imported"]["left_out"] == 1
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(logits(load_checkpoint(run.path).network(images)), network(images))


def test_torchvisions_own_file_and_a_folder_of_transformers(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth", _use_new_zipfile_serialization=False)
    run = import_checkpoint(tmp_path / "resnet18.pth", "torchvision:resnet18", tmp_path / "tv", log=lambda line: None)
    found = load_checkpoint(run.path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.network(images), network(images))
    assert found.view.image_size == 224 and len(found.view.classes) == 3
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    other = transformers.ResNetForImageClassification(config).eval()
    other.save_pretrained(tmp_path / "hf")
    with pytest.raises(UsageError, match=r"how its pixels are prepared.*data\.mean="):
        import_checkpoint(tmp_path / "hf", f"hf:{tmp_path / 'hf'}", tmp_path / "run", log=lambda line: None)
    view = ["data.image_size=64", "data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]"]
    run = import_checkpoint(
        tmp_path / "hf", f"hf:{tmp_path / 'hf'}", tmp_path / "run", settings=view, log=lambda line: None
    )
    with torch.no_grad():
        assert torch.equal(logits(load_checkpoint(run.path).network(images)), other(images).logits)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"model": "test_vit"}, "another network|do not fit"),
        ({"classes": ["a"]}, "1 class names were given, but the weights have 4 logits"),
        ({"settings": ["train.epochs=3"]}, "of an imported network are told"),
        ({"settings": ["model.kwargs.foo=3"]}, "model.kwargs do not fit test_resnet"),
        ({"classes": ["a", "a", "b", "c"]}, "a stands there more than once"),
        ({"entry": "ema"}, "no weights under 'ema'"),
    ],
)
def test_what_does_not_fit_leaves_nothing_behind(tmp_path, about, said):
    torch.save({"state_dict": trained(num_classes=4).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=said):
        import_checkpoint(tmp_path / "net.pth", about.pop("model", "test_resnet"), tmp_path / "run", log=print, **about)
    assert not (tmp_path / "run").exists()


def test_another_image_size_and_broken_weights_are_refused_and_a_size_told_is_taken(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=2, img_size=96).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"pos_embed is .*data.image_size=N"):
        import_checkpoint(tmp_path / "net.pth", "test_vit", tmp_path / "run", log=print)
    for number, setting in enumerate(("data.image_size=96", "model.kwargs.img_size=96")):
        run = import_checkpoint(tmp_path / "net.pth", "test_vit", tmp_path / f"{number}", settings=[setting], log=print)
        images = torch.randn(1, 3, 96, 96)
        with torch.no_grad():
            assert torch.equal(load_checkpoint(run.path).network(images), network(images))
    (row, *_) = vcreg_hub.evaluate(run.path, "knn", settings=["data.name=digits"], cache=False)
    assert row.dataset == "digits"
    broken = {**network.state_dict(), "head.bias": torch.tensor([0.0, float("nan")])}
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(UsageError, match=r"head.bias has values that are not finite"):
        import_checkpoint(
            tmp_path / "broken.pth", "test_vit", tmp_path / "b", settings=["data.image_size=96"], log=print
        )


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(trained(num_classes=2).state_dict(), "net.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    arguments = ["import", "net.pth", "--model", "test_resnet", "--out", "run", "--classes", "names.txt", "--json"]
    done = CliRunner().invoke(app, arguments)
    told = json.loads(done.stdout)
    assert told["run"] == "run" and told["data"]["classes"] == ["cat", "dog"]
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, UsageError) and "exists already" in str(again.exception)
