"""A method with two views and a projector of its own: trained, killed, resumed, evaluated and exported."""

from __future__ import annotations

import csv

import pytest
import timm
import torch
from tasks.two_views import TwoViews

from vcreg_hub.config import Data, Model, Recipe, Task, Train, VCReg, from_json, override, to_json
from vcreg_hub.errors import ConfigError, RunFolderError
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.run import train
from vcreg_hub.tasks.classification import Classification
from vcreg_hub.tasks.task import TaskModule
from vcreg_hub.training.state import load_state

RECIPE = Recipe(
    name="two_views",
    model=Model("test_convnext"),
    data=Data("digits", val_fraction=0.2, train_images=96, image_size=32, crop="pad", hflip=0.0, workers=0),
    train=Train(epochs=2, batch_size=32, keep="best"),
    evals=(LinearProbe(),),
    vcreg=VCReg(),
    task=TwoViews(),
)


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


class Killed(Exception):
    """Stands for the end of a process at a chosen place."""


def killed_in_the_second_epoch(monkeypatch, folder):
    call, seen = TwoViews.loss, []

    def loss(self, *arguments):
        seen.extend([1] * torch.is_grad_enabled())
        if len(seen) == 5:
            raise Killed
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TwoViews, "loss", loss)
        with pytest.raises(Killed):
            train(RECIPE, folder, log=quiet)


def test_a_projector_is_trained_and_resumed_and_left_out_of_the_weights(tmp_path, monkeypatch):
    from vcreg_hub.hub.export import write_export

    whole = train(RECIPE, tmp_path / "whole", log=quiet)
    killed_in_the_second_epoch(monkeypatch, tmp_path / "broken")
    (file,) = (tmp_path / "broken" / "state").glob("step-*.safetensors")
    state = load_state(file)
    heads = {name: part for name, part in state["model"].items() if name.startswith("heads.projector.")}
    assert heads and len(state["optimizer"]) == sum(name.startswith("network.") for name in state["model"]) + 6, (
        "the optimizer has the parameters of both"
    )
    resumed = train(RECIPE, tmp_path / "broken", log=quiet)
    stock = timm.create_model("test_convnext", num_classes=10, in_chans=1)
    assert whole.tensors().keys() == stock.state_dict().keys()
    assert all(torch.equal(tensor, resumed.tensors()[name]) for name, tensor in whole.tensors().items())
    assert resumed.results()["metrics"] == whole.results()["metrics"]
    assert {row["metric"] for row in whole.results()["metrics"]} == {"probe_top1", "probe_mean_per_class"}
    assert whole.recipe() == RECIPE

    rows = list(csv.DictReader((whole.path / "metrics.csv").read_text().splitlines()))
    assert "train_agree" in rows[0] and "val_top1" not in rows[0], "the task watches its own loss"
    best = min(rows, key=lambda row: float(row["train_loss"]))["epoch"]
    assert whole.results()["training"]["selected"].startswith("last epoch" if best == "2" else "epoch 1")

    folder = write_export(whole.path, tmp_path / "export", licence="apache-2.0")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert loaded.state_dict().keys() == stock.state_dict().keys()


def test_a_task_is_addressed_and_set_like_any_other():
    assert from_json(to_json(RECIPE)) == RECIPE
    assert override(RECIPE, ["task.width=3"]).task == TwoViews(width=3)
    assert override(RECIPE, ["task=classification"]).task == Classification()
    assert override(RECIPE, ["task=tasks.two_views:TwoViews"]) == RECIPE


def test_several_views_are_not_mixed(tmp_path):
    with pytest.raises(ConfigError, match="mix one view of a sample, but the task takes 2"):
        train(override(RECIPE, ["train.mixup=0.2"]), tmp_path / "run", log=quiet)


def test_a_module_has_the_network_s_names_and_the_heads_beside_them():
    network = timm.create_model("test_convnext", num_classes=3, in_chans=1)
    module = TaskModule(TwoViews(), network, Train(), torch.zeros(1, 1, 32, 32))
    assert {name.partition(".")[0] for name, _ in module.named_parameters()} == {"network", "heads"}
    plain = TaskModule(Classification(), network, Train(), torch.zeros(1, 1, 32, 32))
    assert [name for name, _ in plain.named_parameters()] == [f"network.{n}" for n, _ in network.named_parameters()]
    with pytest.raises(NotImplementedError):
        Task().loss(module, (), Train())


def test_a_state_of_the_old_form_is_refused(tmp_path, monkeypatch):
    from vcreg_hub.training import state

    with monkeypatch.context() as patch:
        patch.setattr(state, "_FORMAT", 1)
        killed_in_the_second_epoch(monkeypatch, tmp_path / "run")
    with pytest.raises(RunFolderError, match="has state format 1, this version reads 3"):
        train(RECIPE, tmp_path / "run", log=quiet)
