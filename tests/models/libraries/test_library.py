"""A library that this package has never heard of: its adapter below is all that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.errors import RunFolderError, UnknownNameError, UsageError, unknown_name
from vcreg_hub.evals.classification import Classification
from vcreg_hub.files import read_tensors, write_json, write_tensors
from vcreg_hub.hub.card import render_card
from vcreg_hub.hub.export import write_export
from vcreg_hub.hub.verify import verify
from vcreg_hub.models import build
from vcreg_hub.models.build import build_model, build_on_meta, input_shape, library_of, load_network
from vcreg_hub.models.head import _trained_classes
from vcreg_hub.models.libraries.library import (
    Library,
    Loader,
    Preprocessing,
    Sizes,
    SnippetSource,
    construct,
    construct_on_meta,
)
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import load_run, train
from vcreg_hub.rundir import RunDir

WIDTHS = {"small": 8, "large": 16}


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.convolution(x))


class ToyNet(nn.Module):
    """(n, c, h, w) -> (n, classes)."""

    def __init__(self, width: int, classes: int, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 4, stride=4)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Toy(Library):
    name = prefix = "toy"

    def build(self, cfg: Model, sizes: Sizes) -> nn.Module:
        name = self.bare(cfg.name)
        if name not in WIDTHS:
            raise unknown_name("toy network", name, WIDTHS)
        make = lambda: ToyNet(WIDTHS[name], sizes.num_classes, sizes.in_chans, **cfg.kwargs)  # noqa: E731
        return construct(name, cfg.kwargs, make)

    def build_on_meta(self, model: str, **kwargs: Any) -> nn.Module:
        return construct_on_meta(lambda: ToyNet(WIDTHS[self.bare(model)], 10, 3, **kwargs))

    def save(self, folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> nn.Module:
        write_tensors(folder / "model.safetensors", model.state_dict())
        arguments = {"classes": len(view.classes), "channels": view.in_chans, **cfg.kwargs}
        config = {"library": self.name, "architecture": self.bare(cfg.name), "arguments": arguments}
        write_json(folder / "config.json", {**config, "label_names": view.classes, "license": licence})
        return model

    def load(self, folder: Path, config: dict[str, Any]) -> nn.Module:
        model = ToyNet(WIDTHS[config["architecture"]], **config["arguments"])
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return model.eval()

    def preprocessing(self, model: Any, source: Path | str | None = None) -> Preprocessing:
        classes = [str(i) for i in range(model.head.out_features)]
        return Preprocessing(classes, model.stem.in_channels, 32, 32, "bilinear", [0.5], [0.5])

    def loader(self, config: Mapping[str, Any] | None, model: str, *, video: bool) -> Loader:
        return Loader(self.name, self.bare(model))

    def snippets(self, source: SnippetSource) -> dict[str, str]:
        return {"": f'import toy\n\nmodel = toy.load("{source.repo_id or "."}")'}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build.LIBRARIES, "toy", Toy())


def recipe(**model: Any) -> Recipe:
    return Recipe(
        name="toy",
        model=Model("toy:small", **model),
        data=Data("synthetic:16", image_size=32),
        train=Train(batch_size=8, max_steps=2),
        evals=(Classification(),),
        vcreg=VCReg(),
    )


def test_from_training_to_a_published_folder_and_back(tmp_path: Path) -> None:
    run = train(recipe(kwargs={"depth": 3}), tmp_path / "run", log=lambda text: None)
    results = run.results()
    assert results["training"]["steps"] == 2
    assert [site["backwards"] for site in results["regularizer"]] == [2, 2, 2]

    out = write_export(run.path, tmp_path / "out", licence="mit")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_network(out)(x), load_run(run.path)[2].eval()(x))
    assert input_shape(out) == (1, 3, 32, 32)
    assert all(check.ok is not False for check in verify(out))
    card = render_card(out, licence="mit", repo_id="me/toy")
    assert "Plain toy loads it" in card and 'model = toy.load("me/toy")' in card

    again = build_model(Model("toy:small", str(out), {"depth": 3}), num_classes=10, in_chans=3, image_size=32)
    assert _trained_classes(again) == tuple(results["data"]["classes"])
    assert torch.equal(again.head.weight, run.tensors()["head.weight"])
    tuned = build_model(Model("toy:small", str(out), {"depth": 3}), num_classes=4, in_chans=3, image_size=32)
    assert tuned.head.weight.shape == (4, 8) and torch.equal(tuned.stem.weight, run.tensors()["stem.weight"])


def test_its_errors_are_those_of_the_others(tmp_path: Path, write_release: Any) -> None:
    sizes = dict(num_classes=4, in_chans=3, image_size=32)
    with pytest.raises(UnknownNameError, match=r"did you mean 'small'"):
        build_model(Model("toy:smal"), **sizes)
    with pytest.raises(UsageError, match=r"small cannot be built with {'deep': 3} for these images"):
        build_model(Model("toy:small", kwargs={"deep": 3}), **sizes)
    with pytest.raises(UsageError, match=r"small takes images: for clips"):
        build_model(Model("toy:small"), **sizes, frames=8)
    with pytest.raises(UnknownNameError, match=r"unknown kind of model 'toys'; did you mean 'toy'"):
        build_model(Model("toys:small"), **sizes)
    write_release(tmp_path / "timm", "test_resnet")
    with pytest.raises(UsageError, match=r"holds weights for timm, but small is toy's; use a timm architecture"):
        build_model(Model("toy:small", str(tmp_path / "timm")), **sizes)


def test_its_blocks_are_found_without_weights() -> None:
    model = build_on_meta("toy:large", depth=4)
    assert [site.name for site in find_blocks(model, "blocks", torch.zeros(1, 3, 32, 32))] == [
        f"blocks.{i}" for i in range(4)
    ]


def test_a_folder_of_a_library_without_an_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(recipe(), tmp_path / "run", log=lambda text: None)
    out = write_export(run.path, tmp_path / "out", licence="mit")
    monkeypatch.delitem(build.LIBRARIES, "toy")
    with pytest.raises(RunFolderError, match=r"config\.json is for toy, which is not known here"):
        load_network(out)
    with pytest.raises(UsageError, match=r"holds weights for toy, but test_resnet is timm's$"):
        build_model(Model("test_resnet", str(out)), num_classes=10, in_chans=3, image_size=32)
    assert RunDir(run.path).complete()


@pytest.mark.parametrize(
    ("name", "pretrained", "base"),
    [
        ("test_resnet", False, None),
        ("test_resnet", True, "timm/test_resnet.r160_in1k"),
        ("test_resnet", "hf-hub:me/start@v1", "me/start"),
        ("test_resnet", "me/start", "me/start"),
        ("test_resnet", "{}/start", None),
        ("test_resnet", "resnet50_vcreg.imagenet", None),
        ("hf:me/network", True, "me/network"),
        ("hf:{}/network", True, None),
        ("videomae_tiny", True, None),
        ("videomae_small", True, "MCG-NJU/videomae-small-finetuned-kinetics"),
        ("torchvision:resnet18", True, None),
    ],
)
def test_a_network_s_base_model_is_the_hub_s_alone(tmp_path, name, pretrained, base):
    (tmp_path / "start").mkdir()
    start = pretrained.format(tmp_path) if isinstance(pretrained, str) else pretrained
    assert library_of(name).base_model(Model(name.format(tmp_path), pretrained=start)) == base


def test_a_folder_that_looks_like_a_hub_id_is_no_base_model(tmp_path, monkeypatch):
    (tmp_path / "runs/first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert library_of("test_resnet").base_model(Model("test_resnet", pretrained="runs/first")) is None
