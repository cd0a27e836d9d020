"""A pretrained network's head is kept for the classes it was trained for, and drawn anew for others."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from vcreg_hub.checkpoints import find
from vcreg_hub.config import Data, Model, Recipe, Train, override
from vcreg_hub.errors import UsageError
from vcreg_hub.files import write_json
from vcreg_hub.hub.export import write_export
from vcreg_hub.models import native
from vcreg_hub.models.build import build_model
from vcreg_hub.models.head import _trained_classes, renew_head
from vcreg_hub.models.video import build_video_model
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import evaluate_run, train
from vcreg_hub.run.build import build
from vcreg_hub.rundir import RunDir

SHIRTS = ("shirt", "coat", "bag")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(
        name="r",
        model=Model("test_resnet"),
        data=Data("synthetic:8", image_size=32),
        train=Train(batch_size=8, max_steps=1),
        evals=(),
    )
    return train(recipe, tmp_path_factory.mktemp("head") / "run", log=lambda text: None).path


def test_who_says_for_which_classes(run: Path, tmp_path: Path) -> None:

    def said(cfg: Model, frames: int | None = None) -> tuple[str, ...] | None:
        return _trained_classes(build_model(cfg, num_classes=4, in_chans=3, image_size=32, frames=frames))

    classes = said(Model("test_resnet", pretrained=str(run)))
    assert classes == tuple(f"class {i}" for i in range(10))
    exported = write_export(run, tmp_path / "export", licence="mit")
    for source in (exported, exported / "model.safetensors", run / "model.safetensors"):
        assert said(Model("test_resnet", pretrained=str(source))) == classes
    assert said(Model("resnet32_cifar_vcreg", pretrained=True))[:1] == ("T-shirt/top",)
    assert said(Model("videomae_tiny", pretrained="videomae_tiny_vcreg.action_shapes"))[-1] == "spin_back"
    for nothing in (Model("test_resnet"), Model("resnet32_cifar_vcreg"), Model("videomae_tiny")):
        assert said(nothing) is None
    video = build_video_model("videomae_tiny", 3)
    video.save_pretrained(tmp_path / "hf")
    unnamed = Model(f"hf:{tmp_path / 'hf'}", pretrained=True)
    assert said(unnamed, frames=8) is None, "LABEL_0 says nothing"
    video.config.id2label = dict(enumerate(SHIRTS))
    video.save_pretrained(tmp_path / "hf")
    assert said(unnamed, frames=8) == SHIRTS
    assert said(Model(f"hf:{tmp_path / 'hf'}"), frames=8) is None, "without its weights"


@pytest.mark.parametrize("kind", ["timm", "hf"])
def test_a_head_for_other_classes_is_drawn_anew(
    kind: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "timm":
        cfg, classes, example = Model("test_resnet", pretrained=str(run)), None, torch.zeros(1, 3, 32, 32)
    else:
        video = build_video_model("videomae_tiny", 3)
        video.config.id2label = dict(enumerate(SHIRTS))
        video.save_pretrained(tmp_path / "hf")
        cfg = Model(f"hf:{tmp_path / 'hf'}", pretrained=True, kwargs={"head_init_scale": 0.001})
        classes, example = SHIRTS, torch.zeros(1, 8, 3, 32, 32)

    def fresh() -> nn.Module:
        sizes = dict(num_classes=10 if kind == "timm" else 3, in_chans=3, image_size=32)
        return build_model(cfg, **sizes, frames=None if kind == "timm" else 8)

    model, kept = fresh(), fresh()
    classes = classes or _trained_classes(model)
    assert not renew_head(model, cfg, classes, example) and not caplog.messages
    assert not renew_head(model, cfg, [*classes, "one more"], example)
    assert renew_head(model, cfg, list(reversed(classes)), example)
    assert "starts fresh: the weights tell apart" in caplog.messages[-1]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, kept.state_dict()[name])}
    head = "fc" if kind == "timm" else "classifier"
    assert changed and all(name.startswith(f"{head}.") for name in changed)
    if kind == "hf":
        assert 0 < model.classifier.weight.abs().max() < 1e-3


def test_a_training_on_other_classes_starts_fresh_and_an_evaluation_on_them_is_refused(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = RunDir(run).recipe()
    again = replace(recipe, model=replace(recipe.model, pretrained=str(run)))
    kept = build(again)[1].state_dict()
    tensors = RunDir(run).tensors()
    assert all(torch.equal(kept[name], value) for name, value in tensors.items())
    results = RunDir(run).results()
    results["data"]["classes"][0] = "cat"
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "recipe.json", "env.json"):
        (other / name).write_bytes((run / name).read_bytes())
    write_json(other / "results.json", results)
    with caplog.at_level(logging.WARNING):
        fresh = build(override(again, [f"model.pretrained={other}"]))[1].state_dict()
    assert "the weights tell apart cat, class 1, class 2, ..., the data class 0" in caplog.text
    assert not torch.equal(fresh["fc.weight"], tensors["fc.weight"])

    with pytest.raises(UsageError, match="has other classes than this network was trained for"):
        evaluate_run(other, ["evals=classification", "data.split_seed=1"])
    assert evaluate_run(other, ["evals=linear_probe", "data.split_seed=1"])


@pytest.mark.parametrize("source", ["run folder", "export", "Hub id", "release", "video release"])
def test_a_fine_tuning_finds_its_weights_once(
    source: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(module: ModuleType, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append(name) or function(*args))

    out = write_export(run, tmp_path / "test_resnet_vcreg.mine", licence="mit")
    config = json.loads((out / "config.json").read_text())
    write_json(out / "config.json", config | {"label_names": [f"other {i}" for i in range(10)]})
    write_json(out / "results.json", {})
    monkeypatch.setattr(find, "fetch", lambda *_, **__: SimpleNamespace(folder=out))
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
    for module, name in ((find, "_read_folder"), (native, "load_config")):
        counted(module, name)
    pretrained = {"run folder": str(run), "export": str(out), "Hub id": "me/x", "release": "test_resnet_vcreg.mine"}
    if source == "video release":
        cfg, clip = Model("videomae_tiny", "videomae_tiny_vcreg.action_shapes"), (8,)
    else:
        cfg, clip = Model("test_resnet", pretrained[source]), ()
    classes = [f"unheard of {i}" for i in range(6 if clip else 10)]
    sizes = dict(num_classes=len(classes), in_chans=3, image_size=32, frames=clip[0] if clip else None)
    example = torch.zeros(1, *clip, 3, 32, 32)
    model = build_model(cfg, **sizes)
    assert renew_head(model, cfg, classes, example)
    attach(model, VCReg(), "blocks", example_input=example)
    # What transformers loaded of a video network is compared with the file.
    assert calls == ["_read_folder", *(["load_config", "_read_folder"] if clip else [])]
