"""`vcreg_hub.export` and `vcreg_hub.push`: a run, an export, or a network that another program trained."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torchvision
from hub.folders import make_loadable

import vcreg_hub
from vcreg_hub.errors import UsageError
from vcreg_hub.files import sha256
from vcreg_hub.hub.foreign import export_module
from vcreg_hub.models.build import load_network
from vcreg_hub.models.checkpoint import load_checkpoint
from vcreg_hub.models.outputs import logits

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
REPO = "me/test_vit.mine"


def network(**changes):
    torch.manual_seed(0)
    return timm.create_model("test_vit", **{"num_classes": 3, "in_chans": 1, "img_size": 32, **changes})


def quiet(_text: str) -> None:
    """The tests read repos, not lines."""


@pytest.fixture
def push(api, retries):
    def call(model, repo=REPO, **settings):
        return vcreg_hub.push(
            model, repo, **{"licence": "mit", "api": api, "retries": retries, "log": quiet, **settings}
        )

    return call


def test_a_network_of_another_loop_is_published_and_loads_with_plain_timm(hub, push, tmp_path):
    model = network(patch_size=8, drop_path_rate=0.1).train()
    attachment = vcreg_hub.attach(model, vcreg_hub.VCReg(alpha=0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = push(model, classes=["shirt", "shoe", "bag"], stated={"data": "my wardrobe", "epochs": "90 | *bold*"})
    assert done.verified and done.pushed
    assert model.training and model.vcreg is attachment and len(attachment.sites) == len(model.blocks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    card = load_card(hub)
    for part in (
        "license: mit", "library_name: timm", "test_vit for image classification", "shirt, shoe, bag",
        "| alpha (variance) | `0.5` |",
        "Since when it had been is not known", "data: my wardrobe", "epochs: 90 \\| \\*bold\\*", "Nobody has checked",
        "the recipe: optimizer, schedule", "results: none was measured", 'timm.create_model("hf-hub:me/test_vit.mine"',
    ):  # fmt: skip
        assert part in card, part
    assert "## Results" not in card and "model-index" not in card


def load_card(hub):
    return hub.repos[REPO].at("main").files["README.md"].data.decode()


def test_a_published_network_is_used_by_its_id(hub, push, default_hub):
    model = network().eval()
    push(model, classes=["shirt", "shoe", "bag"])
    found = load_checkpoint(f"hf-hub:{REPO}")
    plain = timm.create_model(f"hf-hub:{REPO}", pretrained=True).eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(found.network(x), model(x)) and torch.equal(plain(x), model(x))
    assert found.view.classes == ["shirt", "shoe", "bag"] and found.view.image_size == 32


def test_what_is_exported_computes_the_same(tmp_path):
    model = network().eval()
    folder = export_module(model, tmp_path / "out", REPO, licence="mit")
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_network(folder)(x), model(x))
    found = load_checkpoint(folder)
    assert found.view.classes == ["0", "1", "2"] and found.view.in_chans == 1
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["metrics"] == [] and results["files"]["model.safetensors"] == sha256(folder / "model.safetensors")
    assert not (folder / "recipe.json").exists(), "nobody knows the recipe"


def test_networks_of_transformers_and_torchvision(tmp_path, caplog):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
                       patch_size=8, num_labels=3)  # fmt: skip
    folder = export_module(
        ViTForImageClassification(config), tmp_path / "vit", REPO, licence="mit", classes=list("abc")
    )
    assert load_checkpoint(folder).view.classes == ["a", "b", "c"] and (folder / "preprocessor_config.json").is_file()
    net = torchvision.models.squeezenet1_1(num_classes=3).eval()
    folder = export_module(net, tmp_path / "sq", REPO, licence="mit", architecture="torchvision:squeezenet1_1")
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(logits(load_network(folder)(x)), net(x))
    assert "ImageNet's mean and deviation" in caplog.text
    assert "(assumed: the network does not say)" in (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="does not say which architecture"):
        export_module(net, tmp_path / "no", REPO, licence="mit")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"licence": None}, "no licence yet"),
        ({"licence": "apach"}, "unknown licence"),
        ({"classes": ["one"]}, "1 class names were given, but the network has 3 logits"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(hub, push, settings, part):
    with pytest.raises(UsageError) as error:
        push(network(), **settings)
    assert part in str(error.value) and not hub.repos


def test_a_run_is_published_as_the_command_does(hub, push, tmp_path):
    make_loadable(tmp_path / "export")
    run = tmp_path / "export-run"
    done = push(run)
    assert done.verified and "## Results" in load_card(hub)
    with pytest.raises(UsageError, match="stated: of a network; a run folder says so itself"):
        push(run, stated={"data": "x"})


def test_an_export_has_its_card(tmp_path):
    make_loadable(tmp_path / "export")
    run = tmp_path / "export-run"
    folder = vcreg_hub.export(run, tmp_path / "out", licence="mit")
    assert (folder / "README.md").is_file() and (folder / "config.json").is_file()
    with pytest.raises(UsageError, match="unknown licence"):
        vcreg_hub.export(run, tmp_path / "other", licence="nosuch")


def test_an_imported_checkpoint_is_shown_exported_and_published(hub, push, tmp_path):
    from typer.testing import CliRunner

    from vcreg_hub.cli import app
    from vcreg_hub.run.imported import import_checkpoint

    trained = network(patch_size=8).eval()
    torch.save({"state_dict": trained.state_dict(), "epoch": 9}, tmp_path / "last.pth.tar")
    settings = ["model.kwargs.patch_size=8", "model.kwargs.img_size=32", "data.image_size=32"]
    run = import_checkpoint(tmp_path / "last.pth.tar", "test_vit", tmp_path / "run", settings=settings, log=quiet).path
    shown = CliRunner().invoke(app, ["card", str(run), "--licence", "mit", "--repo", REPO]).stdout
    for part in (
        "license: mit",
        "of the file last.pth.tar (sha256",
        "epoch 9",
        "entry state_dict",
        "results: none was",
    ):
        assert part in shown, part
    folder = vcreg_hub.export(run, tmp_path / "export", licence="mit")
    assert "local-dir:." in (folder / "README.md").read_text(encoding="utf-8")
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_network(folder)(images), trained(images))
    assert push(run).verified
    assert load_card(hub).strip() == shown.strip(), "the card that was shown"
    again = push(folder, "me/other.mine", licence=None)
    assert again.verified
