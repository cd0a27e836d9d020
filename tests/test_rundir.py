"""A broken run folder says what is broken."""

from __future__ import annotations

import hashlib

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import RunFolderError
from vcreg_hub.files import sha256, write_tensors
from vcreg_hub.rundir import RunDir


def test_broken_folders_say_what_is_broken(tmp_path):
    run = RunDir(tmp_path)
    with pytest.raises(RunFolderError, match=r"no results\.json"):
        run.results()
    (tmp_path / "results.json").write_text('{"metrics": [')
    with pytest.raises(RunFolderError, match=r"results\.json is not JSON"):
        run.results()
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(RunFolderError, match="list"):
        run.results()
    with pytest.raises(RunFolderError, match=r"no .*model\.safetensors"):
        run.tensors()
    write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(100)})
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-8])
    with pytest.raises(RunFolderError, match="not a whole safetensors file"):
        run.tensors()
    assert not run.complete()


def test_recipe_and_hash(tmp_path):
    recipe = Recipe("r", Model("convnext_atto"), Data("digits"))
    RunDir(tmp_path).write_recipe(recipe)
    assert RunDir(tmp_path).recipe() == recipe
    assert sha256(tmp_path / "recipe.json") == hashlib.sha256((tmp_path / "recipe.json").read_bytes()).hexdigest()
