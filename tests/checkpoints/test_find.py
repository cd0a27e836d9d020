"""Where weights are found, in which order, and what is checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch

from vcreg_hub.checkpoints import find as place
from vcreg_hub.checkpoints import locations as places
from vcreg_hub.errors import IntegrityError, RunFolderError, UsageError, WeightsNotFoundError
from vcreg_hub.releases import RELEASES, Release, find_release, releases_of

torch.set_num_threads(1)


def release(folder, text="{}", weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def hub_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "PACKAGED", tmp_path / "packaged")
    return tmp_path / "packaged"


def test_a_bare_name_takes_the_default_tag(hub_dir):
    default = release(hub_dir / "resnet50_vcreg.in1k")
    release(hub_dir / "resnet50_vcreg.other")
    assert place.find_weights("resnet50_vcreg").folder == default


def test_a_bare_name_takes_the_only_tag(hub_dir):
    only = release(hub_dir / "resnet50_vcreg.cars")
    release(hub_dir / "resnet50_vcregular.in1k")
    assert place.find_weights("resnet50_vcreg").folder == only


def test_several_tags_are_an_error_that_lists_them(hub_dir):
    release(hub_dir / "resnet50_vcreg.cars")
    release(hub_dir / "resnet50_vcreg.birds")
    with pytest.raises(UsageError, match=r"resnet50_vcreg.birds, resnet50_vcreg.cars: say which"):
        place.find_weights("resnet50_vcreg")
    assert place.find_weights("resnet50_vcreg.cars").folder.name == "resnet50_vcreg.cars"


def test_a_tag_that_is_not_there_is_not_replaced_by_another(hub_dir):
    release(hub_dir / "resnet50_vcreg.cars")
    with pytest.raises(WeightsNotFoundError, match=r"no weights for 'resnet50_vcreg.birds' in VCREG_HUB_DIR="):
        place.find_weights("resnet50_vcreg.birds")


def test_a_folder_comes_before_the_package(hub_dir, packaged):
    inside = release(packaged / "convnext_atto_vcreg.in1k")
    assert place.find_weights("convnext_atto_vcreg").folder == inside
    outside = release(hub_dir / "convnext_atto_vcreg.mine")
    assert place.find_weights("convnext_atto_vcreg").folder == outside


def test_a_variable_that_names_no_folder_is_said(monkeypatch, tmp_path, packaged):
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path / "absent"))
    with pytest.raises(WeightsNotFoundError, match=r"absent is not a folder"):
        place.find_weights("resnet50_vcreg")


def test_the_error_of_a_name_without_a_release(packaged):
    with pytest.raises(WeightsNotFoundError, match=r"Train them, and `vcreg export`"):
        place.find_weights("swin_tiny_patch4_window7_224_vcreg")


def test_the_hash_is_checked_before_loading_and_nothing_is_deleted(hub_dir, monkeypatch):
    right = hashlib.sha256(b"weights").hexdigest()
    rows = [dataclasses.replace(row, sha256=right) if row.name == "resnet50_vcreg" else row for row in RELEASES]
    monkeypatch.setattr("vcreg_hub.releases.RELEASES", tuple(rows))
    folder = release(hub_dir / "resnet50_vcreg.in1k")
    assert place.find_weights("resnet50_vcreg").folder == folder
    (folder / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(IntegrityError) as error:
        place.find_weights("resnet50_vcreg")
    assert right in str(error.value) and hashlib.sha256(b"tampered").hexdigest() in str(error.value)
    assert (folder / "model.safetensors").read_bytes() == b"tampered"
    release(hub_dir / "resnet50_vcreg.mine", weights=b"tampered")
    assert place.find_weights("resnet50_vcreg.mine").folder.name == "resnet50_vcreg.mine"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_the_hash_of_the_export_is_checked_before_loading(hub_dir, name):
    folder = release(hub_dir / "resnet50_vcreg.mine")
    (folder / "preprocessor_config.json").write_text("{}")
    names = ("config.json", "model.safetensors", "preprocessor_config.json")
    hashes = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in (*names, "config.json")}
    (folder / "results.json").write_text(json.dumps({"files": hashes | {"processor_config.json": "0"}}))
    sources = ("resnet50_vcreg.mine", str(folder), str(folder / "model.safetensors"))
    for source in sources:
        assert place.resolve(source).folder == folder
    (folder / name).write_text('{"a": 1}')
    found = hashlib.sha256(b'{"a": 1}').hexdigest()
    for source in sources:
        with pytest.raises(IntegrityError, match=rf"{name} has SHA-256 {found}, but .* exported with {hashes[name]}"):
            place.resolve(source)
    with pytest.raises(IntegrityError, match=r"restore the file, or unset VCREG_HUB_DIR"):
        place.find_weights("resnet50_vcreg.mine")


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": ["a"]}', '{"files": {"model.safetensors": 1}}'])
def test_a_results_file_of_another_kind_records_nothing(hub_dir, text):
    folder = release(hub_dir / "resnet50_vcreg.mine")
    (folder / "results.json").write_text(text)
    assert place.find_weights("resnet50_vcreg").folder == folder
    (folder / "results.json").write_text(text[:-1])
    with pytest.raises(RunFolderError, match=r"results\.json is not JSON"):
        place.find_weights("resnet50_vcreg")


def test_pickled_weights_are_refused(hub_dir):
    folder = release(hub_dir / "resnet50_vcreg.in1k")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model.bin is a pickle"):
        place.find_weights("resnet50_vcreg")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"has no model.safetensors"):
        place.find_weights("resnet50_vcreg")


def test_a_broken_config(hub_dir):
    release(hub_dir / "resnet50_vcreg.in1k", text="{")
    with pytest.raises(IntegrityError, match=r"config.json is not JSON"):
        place.find_weights("resnet50_vcreg")


@pytest.mark.parametrize("source", ["./nothing", "/nothing/here", "a/b/c", "nothing.safetensors", "word"])
def test_a_source_that_is_nothing(source):
    with pytest.raises(WeightsNotFoundError, match=r"no folder and no file here, and no Hub id"):
        place.resolve(source)


def test_sources(tmp_path, hub_dir):
    folder = release(tmp_path / "run")
    assert place.resolve(str(folder)).file == folder / "model.safetensors"
    assert place.resolve(str(folder / "model.safetensors")).config == {}
    (tmp_path / "lone.safetensors").write_bytes(b"")
    assert place.resolve(str(tmp_path / "lone.safetensors")).config is None
    (tmp_path / "old.pth").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is a pickle"):
        place.resolve(str(tmp_path / "old.pth"))
    default = release(hub_dir / "resnet50_vcreg.in1k")
    assert place.resolve("resnet50_vcreg").folder == place.resolve("resnet50_vcreg.in1k").folder == default


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A Hub cache to fill by hand, in offline mode; returns a function that puts a repo there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("VCREG_HUB_NAMESPACE", "me")

    def put(repo, commit="a" * 40):
        folder = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        return release(folder / "snapshots" / commit)

    return put


def test_a_namespace_offline_uses_the_cache_and_says_so(cached, packaged, caplog):
    default = cached("me/resnet50_vcreg.in1k")
    cached("you/resnet50_vcreg.cars")
    assert place.find_weights("resnet50_vcreg").folder == default
    assert "me/resnet50_vcreg.in1k: offline mode (HF_HUB_OFFLINE), so this is the copy in the cache" in caplog.text
    with pytest.raises(WeightsNotFoundError, match=r"the local cache of VCREG_HUB_NAMESPACE=me on .* \(offline mode\)"):
        place.find_weights("convnext_tiny_vcreg")


def test_a_namespace_follows_the_same_tag_rules(cached):
    only = cached("me/resnet50_vcreg.cars")
    assert place.find_weights("resnet50_vcreg").folder == only
    cached("me/resnet50_vcreg.birds")
    with pytest.raises(UsageError, match=r"resnet50_vcreg.birds, resnet50_vcreg.cars: say which"):
        place.find_weights("resnet50_vcreg")


def test_the_hash_is_checked_for_a_namespace_too(cached, monkeypatch):
    rows = [dataclasses.replace(row, sha256="0" * 64) for row in RELEASES]
    monkeypatch.setattr("vcreg_hub.releases.RELEASES", tuple(rows))
    cached("me/resnet50_vcreg.in1k")
    with pytest.raises(IntegrityError, match=f"{'0' * 64}; nothing was loaded or deleted"):
        place.find_weights("resnet50_vcreg")


def test_a_folder_comes_before_a_namespace(cached, hub_dir):
    cached("me/resnet50_vcreg.in1k")
    folder = release(hub_dir / "resnet50_vcreg.in1k")
    assert place.find_weights("resnet50_vcreg").folder == folder
    assert place.find_weights("resnet50_vcreg").origin == f"resnet50_vcreg.in1k from VCREG_HUB_DIR={hub_dir}"


def test_a_hub_id(cached):
    folder = cached("you/anything")
    for source in ("you/anything", "hf-hub:you/anything", "hf-hub:you/anything@" + "a" * 40):
        assert place.resolve(source).folder == folder
    with pytest.raises(WeightsNotFoundError, match=r"no weights at you/nothing on the Hub"):
        place.resolve("you/nothing")


def test_release_rows():
    names = [row.full_name for row in RELEASES]
    assert len(set(names)) == len(names)
    for row in RELEASES:
        assert row.name.endswith("_vcreg") and row.tag
        assert row.published == (row.bytes is not None) == (row.licence is not None)
        inside = places.PACKAGED / row.full_name
        assert inside.is_dir() == (row.place == "package" and row.published)
    assert find_release("resnet50_vcreg") == find_release("resnet50_vcreg.in1k")
    assert find_release("resnet50_vcreg.other") is None and releases_of("resnet50") == []


def test_packaged_weights_are_the_ones_of_their_row():
    for row in RELEASES:
        if row.published and row.place == "package":
            file = place.find_weights(row.full_name).file
            assert file.stat().st_size == row.bytes


def test_rows_name_recipes_that_exist():
    from vcreg_hub.recipes import load_recipe

    for row in RELEASES:
        model = load_recipe(row.recipe).model.name
        # Of a transformers model the row's architecture is its model type, which several sizes share.
        expected = row.name if row.library == "transformers" else row.architecture
        assert model.removesuffix("_vcreg") == expected.removesuffix("_vcreg"), row


def test_a_release_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Release("a_vcreg", "b", "a", "c:d").tag = "x"  # type: ignore[misc]
