"""Files are whole or absent, and a broken run folder says what is broken."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import RunFolderError
from vcreg_hub.files import read_tensors, replacing, sha256, write_json, write_tensors, write_text
from vcreg_hub.rundir import RunDir


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_refused_value_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_follow_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_tensors_that_share_memory_survive(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": whole, "b": whole, "c": whole.t(), "d": torch.tensor(3)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


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
