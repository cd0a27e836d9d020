"""What a run says of the network it started from."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.files import tensors_sha256, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import train
from vcreg_hub.rundir import START

TINY = Recipe(
    name="start",
    model=Model("test_convnext"),
    data=Data("synthetic:8", image_size=32),
    train=Train(epochs=2, batch_size=8, max_steps=2),
    evals=(),
)


def quiet(text: str) -> None:
    pass


def begun_with(recipe, path):
    folder = train(recipe, path, log=quiet)
    assert not (path / START).exists()
    return folder.results()["training"]["start_sha256"]


def test_a_fingerprint_is_of_names_kinds_and_values():
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)).to(torch.bfloat16)
    want = hashlib.sha256()
    for name in sorted(model.state_dict()):
        tensor = model.state_dict()[name]
        want.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        kind = torch.int16 if tensor.dtype == torch.bfloat16 else torch.int64
        want.update(
            b"".join(int(v).to_bytes(kind.itemsize, "little", signed=True) for v in tensor.view(kind).flatten())
        )
    assert tensors_sha256(model.state_dict()) == want.hexdigest()
    with torch.no_grad():
        model[0].bias.add_(1)
    assert tensors_sha256(model.state_dict()) != want.hexdigest()


def test_twins_and_only_they_have_one_start(tmp_path):
    plain = begun_with(TINY, tmp_path / "plain")
    assert begun_with(replace(TINY, vcreg=VCReg()), tmp_path / "vcreg") == plain
    assert begun_with(replace(TINY, train=replace(TINY.train, seed=1)), tmp_path / "other") != plain


def test_a_resumed_run_names_the_start_it_had(tmp_path, monkeypatch):
    weights = tmp_path / "weights.safetensors"
    start = train(TINY, tmp_path / "start", log=quiet)
    write_tensors(weights, start.tensors())
    recipe = replace(TINY, model=replace(TINY.model, pretrained=str(weights)))
    whole = begun_with(recipe, tmp_path / "whole")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("vcreg_hub.run.train"), "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "broken", log=quiet)
    write_tensors(weights, {name: tensor * 2 for name, tensor in start.tensors().items()})
    assert begun_with(recipe, tmp_path / "broken") == whole
    assert begun_with(recipe, tmp_path / "doubled") != whole
