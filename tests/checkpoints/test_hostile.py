"""A hub or repo that means harm: nothing is written outside the cache, no pickle is read, each error is one line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from hub.folders import make_export
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcreg_hub.checkpoints import locations as places
from vcreg_hub.checkpoints.checksums import expected_checksums, exported_checksums
from vcreg_hub.checkpoints.fetch import fetch
from vcreg_hub.checkpoints.find import find_weights, resolve
from vcreg_hub.checkpoints.limits import guarded
from vcreg_hub.config import Model
from vcreg_hub.errors import IntegrityError, RunFolderError, UsageError, VCRegError, printable
from vcreg_hub.files import parse_json, sha256, write_json, write_tensors
from vcreg_hub.hub.download import download
from vcreg_hub.hub.listing import list_releases
from vcreg_hub.hub.verify import verify
from vcreg_hub.models.build import build_model, load_network
from vcreg_hub.models.checkpoint import load_checkpoint
from vcreg_hub.models.zoo import register_model

NAME = "test_resnet_vcreg.fashion_mnist"
REPO = f"me/{NAME}"
HASHES = ("../../x", "/tmp/vcreg-outside", "abc", "0" * 41, "0" * 63 + "g", "..", "a/b", "0" * 63 + "\\")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("module") / "export")


@pytest.fixture
def files(exported):
    paths = [path for path in exported.rglob("*") if path.is_file()]
    return {str(path.relative_to(exported)): path.read_bytes() for path in paths}


@pytest.fixture
def published(hub, files, default_hub, monkeypatch):
    """A repo on the hub of this environment, in the namespace where weights are looked for."""
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    register_model("test_resnet")
    hub.add(REPO, files)
    return hub


def tree(folder):
    """Every path below a folder outside the cache, with its content."""
    paths = [path for path in folder.rglob("*") if "cache" not in path.relative_to(folder).parts[:1]]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


WAYS = {
    "download": lambda: download(REPO),
    "force": lambda: download(REPO, force=True),
    "find_weights": lambda: find_weights(NAME),
    "resolve": lambda: resolve(REPO),
    "pretrained": lambda: timm.create_model(f"test_resnet_vcreg.{NAME.partition('.')[2]}", pretrained=True),
    "load_checkpoint": lambda: load_checkpoint(f"hf-hub:{REPO}"),
    "transformers": lambda: load_checkpoint(f"hf:{REPO}"),
}


def refused(way, match):
    with pytest.raises(VCRegError, match=match) as caught:
        WAYS[way]()
    assert str(caught.value).isprintable(), "one line, without control characters"
    return str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_an_etag_that_is_no_hash_is_refused_before_anything_is_fetched(published, tmp_path, way):
    before = tree(tmp_path)
    for etag in HASHES:
        published.lie("head", {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'})
        refused(way, "which is no hash of 40 or 64 hexadecimal digits: nothing was fetched")
        published.heal()
    assert published.seen("get") == 0
    assert tree(tmp_path) == before
    assert not Path("/tmp/vcreg-outside").exists()


@pytest.mark.parametrize("header", ["X-Repo-Commit", "X-Xet-Hash", "X-Linked-Size"])
@pytest.mark.parametrize("value", ["../../x", "/tmp/x", "9" * 5000, "-1"])
def test_other_headers_of_which_a_path_is_made(published, tmp_path, header, value):
    before = tree(tmp_path)
    published.lie("head", {header: value})
    refused("download", f"answers {header}")
    assert tree(tmp_path) == before and published.seen("get") == 0


def test_a_commit_with_the_news_that_a_file_is_missing(published, tmp_path):
    """huggingface_hub notes it below the commit that it was told."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with guarded(), pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "absent.json")
    before = tree(tmp_path)
    published.lie("head", {"X-Repo-Commit": "../../../evil"})
    with guarded(), pytest.raises(IntegrityError, match="X-Repo-Commit"):
        hf_hub_download(REPO, "absent.json")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("listed", HASHES)
def test_a_listed_hash_or_commit_that_is_none(published, tmp_path, listed):
    lfs = {"sha256": listed, "size": 1, "pointerSize": 1}
    for body in (
        {"sha": listed, "siblings": [{"rfilename": "config.json", "blobId": "0" * 40}]},
        {"sha": "0" * 40, "siblings": [{"rfilename": "config.json", "blobId": listed}]},
        {"sha": "0" * 40, "siblings": [{"rfilename": "model.safetensors", "size": 1, "lfs": lfs}]},
    ):
        published.lie("info", body={"id": REPO, **body})
        for way in ("download", "find_weights", "transformers"):
            text = refused(way, "nothing was fetched|there are no weights|no configuration")
            assert listed in text.encode().decode("unicode_escape") or listed[:40] in text
        published.heal()
    assert published.seen("head") == published.seen("get") == 0


DEEP = b"[" * 100_000 + b"]" * 100_000
ANSWERS = [
    DEEP,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[]",
    b"7",
    b'"x"',
    b"null",
    b'{"id": 5}',
    b'{"id": "x\\u001b[2J\\n", "sha": "\\u001b[31m\\n\\ud800"}',
    b'{"id": "me/x", "sha": "' + b"0" * 40 + b'", "siblings": 5}',
    b'{"id": "me/x", "sha": "' + b"0" * 40 + b'", "siblings": [{"rfilename": 5}]}',
    b'{"id": "me/x", "sha": "' + b"0" * 40 + b'", "siblings": [{"rfilename": "a\\u001b\\nb", "blobId": "x\\u0007"}]}',
    b'{"id": "me/x", "sha": "' + b"0" * 40 + b'", "siblings": [{"rfilename": "x", "lfs": "y"}]}',
    b'{"id": "me/x", "sha": "' + b"0" * 40 + b'", "siblings": [{"rfilename": "x", "size": ' + b"9" * 5000 + b"}]}",
    b"<html>",
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_an_answer_that_makes_no_sense_is_an_error_of_one_line(published, number):
    published.lie("info", body=ANSWERS[number])
    for way in ("download", "resolve", "transformers"):
        refused(way, ".")
    published.heal()
    published.lie("list", body=ANSWERS[number])
    _, notes = list_releases(cards=Path("absent"))
    assert all(note.isprintable() for note in notes)


def test_names_of_a_list_are_those_of_repos(published):
    repos = [{"id": f"me/x{c}_vcreg.y", "siblings": []} for c in ("\x1b[2J", "\n", "/../", "\ud800", "")]
    published.lie("list", body=repos)
    listed, _ = list_releases(cards=Path("absent"))
    strange = [entry.name for entry in listed if entry.name.startswith("x")]
    assert strange == ["x_vcreg.y"]


# ---- what a repo itself holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/proc/self/pagemap", "../x", "/etc/passwd", "a/b", "x\x1b", "model.bin", ""])
def test_a_record_names_files_of_its_own_folder_alone(published, exported, tmp_path, name):
    folder = shutil.copytree(exported, tmp_path / "folder")
    results = json.loads((folder / "results.json").read_text())
    write_json(folder / "results.json", results | {"files": {name: "0" * 64}})
    published.add(REPO, {"results.json": (folder / "results.json").read_bytes()})
    for look in (exported_checksums, resolve, verify, expected_checksums, lambda path: load_checkpoint(str(path))):
        with pytest.raises(IntegrityError, match="which is no file of a release") as caught:
            look(folder if look is not resolve else str(folder))
        assert str(caught.value).isprintable()
    for way in ("download", "find_weights", "resolve"):
        refused(way, "which is no file of a release|there are no weights")
    (folder / "results.json").unlink()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name or '..'}\n")
    with pytest.raises(IntegrityError, match="which is no file of a release"):
        expected_checksums(folder)


@pytest.mark.parametrize("name", ["results.json", "config.json", "recipe.json", "env.json"])
def test_json_of_any_depth_is_refused_in_one_line(exported, tmp_path, name):
    folder = shutil.copytree(exported, tmp_path / "folder")
    for depth in (101, 900, 200_000):
        (folder / name).write_text("[" * depth + "]" * depth)
        for look in (load_checkpoint, lambda path: download_of(path, tmp_path)):
            if name in ("recipe.json", "env.json"):
                continue
            with pytest.raises(VCRegError) as caught:
                look(folder)
            assert str(caught.value).isprintable() and "100 deep" in str(caught.value)
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parse_json((folder / name).read_text())


def download_of(folder, tmp_path):
    return resolve(str(folder))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20))
def test_what_an_error_says_can_be_printed(text):
    told = str(IntegrityError(f"a {text} b"))
    assert told.isprintable() and told.startswith("a ")
    told.encode("utf-8")
    assert printable(text) == text or not text.isprintable()


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def evil(tmp_path):
    """A pickle, and the file that reading it leaves."""
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Payload(tmp_path / "ran")}))
    return path, tmp_path / "ran"


@pytest.mark.parametrize("model", ["test_resnet", "torchvision:resnet18", "hf:folder", "videomae_tiny"])
def test_arguments_of_a_network_reach_no_pickle(evil, tmp_path, monkeypatch, model):
    path, ran = evil
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 8}
    write_json(tmp_path / "folder" / "config.json", config)
    for kwargs in (
        {"checkpoint_path": str(path)},
        {"pretrained": str(path)},
        {"pretrained_cfg": {"file": str(path)}},
        {"pretrained_cfg_overlay": {"file": str(path)}},
        {"pretrained_cfg_overlay": {"url": path.as_uri(), "custom_load": True}},
        {"weights": "DEFAULT"},
        {"cache_dir": str(tmp_path)},
        {"_name_or_path": str(path)},
        {"attn_implementation": "owner/kernel"},
        {"auto_map": {"AutoConfig": "evil--x.y"}},
    ):
        with pytest.raises(UsageError, match=r"model\.kwargs\..*: weights are named by `pretrained` alone"):
            build_model(Model(model, kwargs=kwargs), num_classes=3, in_chans=3, image_size=32)
    assert not ran.exists()


def test_a_config_reaches_no_pickle(evil, exported, tmp_path):
    path, ran = evil
    folder = shutil.copytree(exported, tmp_path / "folder")
    shutil.copyfile(path, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    for arguments in ({"checkpoint_path": str(path)}, {"pretrained_cfg_overlay": {"file": str(path)}}):
        write_json(folder / "config.json", config | {"model_args": arguments})
        for look in (load_network, load_checkpoint, lambda folder: resolve(str(folder))):
            with pytest.raises(UsageError, match="weights are named by `pretrained` alone"):
                look(folder)
    (folder / "model.safetensors").unlink()
    write_json(folder / "config.json", config)
    for look in (load_checkpoint, lambda folder: resolve(str(folder))):
        with pytest.raises(UsageError, match="is a pickle"):
            look(folder)
    assert not ran.exists()


# ---- the Hub's own hashes -------------------------------------------------------------------------------------------


@pytest.fixture
def stock(published, tmp_path):
    """timm's repo of a stock network, as the hub has it, and its weights."""
    repo = timm.get_pretrained_cfg("test_resnet").hf_hub_id
    torch.manual_seed(0)
    model = timm.create_model("test_resnet")
    write_tensors(tmp_path / "stock.safetensors", model.state_dict())
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {}}
    weights = (tmp_path / "stock.safetensors").read_bytes()
    published.add(repo, {"config.json": json.dumps(config).encode(), "model.safetensors": weights})
    return model.state_dict()


@pytest.fixture
def native(published, tmp_path):
    """A classifier of transformers on the hub, without any hash of ours."""
    import transformers

    config = transformers.ResNetConfig(depths=[1, 1], hidden_sizes=[16, 32], embedding_size=8, num_labels=3)
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path / "native")
    transformers.BitImageProcessor().save_pretrained(tmp_path / "native")
    paths = [path for path in (tmp_path / "native").iterdir()]
    published.add("me/native", {path.name: path.read_bytes() for path in paths})
    return model.state_dict()


def loads_stock():
    return build_model(Model("test_resnet", pretrained=True), num_classes=1000, in_chans=3, image_size=64)


def same(model, tensors):
    return all(torch.equal(model.state_dict()[name], value) for name, value in tensors.items())


def test_pretrained_stock_networks_are_compared_with_the_hubs_hashes(published, stock):
    published.fault("get", "hash", times=None, match="model.safetensors")
    for load in (loads_stock, lambda: load_checkpoint("test_resnet")):
        with pytest.raises(IntegrityError, match=r"model\.safetensors has hash .* lists"):
            load()
    published.heal()
    assert same(loads_stock(), stock) and same(load_checkpoint("test_resnet").network, stock)


def test_pretrained_transformers_are_compared_with_the_hubs_hashes(published, native):
    published.fault("get", "hash", times=None, match="model.safetensors")
    for load in (
        lambda: load_checkpoint("hf:me/native"),
        lambda: build_model(Model("hf:me/native", pretrained=True), num_classes=3, in_chans=3, image_size=32),
        lambda: build_model(Model("hf:me/native", pretrained="me/native"), num_classes=3, in_chans=3, image_size=32),
    ):
        with pytest.raises(IntegrityError, match=r"model\.safetensors has hash .* lists"):
            load()
    published.heal()
    assert same(load_checkpoint("hf:me/native").network, native)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["blob", "file", "link"])
def test_a_poisoned_cache_heals_by_itself(published, files, name, how, tmp_path):
    folder = fetch(REPO).folder
    path = folder / name
    if how == "blob":
        path.resolve().write_bytes(b"poison")
    elif how == "file":
        path.unlink()
        path.write_bytes(b"poison")
    else:
        (tmp_path / "poison").write_bytes(b"poison")
        path.unlink()
        path.symlink_to(tmp_path / "poison")
    said = []
    assert (fetch(REPO, log=said.append).folder / name).read_bytes() == files[name]
    assert any("fetching it again" in line for line in said)
    assert not (tmp_path / "poison").exists() or (tmp_path / "poison").read_bytes() == b"poison"
    said.clear()
    fetch(REPO, log=said.append)
    assert said == []


def test_a_tag_that_moved_since_it_was_cached_is_said(published, files, caplog):
    first = published.add(REPO, {})
    published.repos[REPO].tags["v1"] = first
    said = []
    assert fetch(REPO, "v1", log=said.append).commit == first and said == []
    second = published.add(REPO, {"env.json": b"{}"})
    assert fetch(REPO, log=said.append).commit == second and said == [], "a branch moves"
    published.repos[REPO].tags["v1"] = second
    assert fetch(REPO, "v1", log=said.append).commit == second
    assert said == [f"tag v1 of {REPO} has moved since it was cached: it was at {first[:12]}, it is at {second[:12]}"]
    published.repos[REPO].tags["v1"] = first
    resolve(f"{REPO}@v1")
    assert "tag v1" in caplog.text and "has moved" in caplog.text


def test_an_index_names_files_beside_it(tmp_path):
    from vcreg_hub.files import read_tensors

    for name in ("../x.safetensors", "/proc/self/pagemap", "x.bin", 5):
        write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name}})
        with pytest.raises(RunFolderError, match=r"index of weights|beside it"):
            read_tensors(tmp_path / "model.safetensors.index.json")


def test_a_revision_is_a_name_that_git_takes(published):
    for revision in ("../../x", "a b", "/x", "x\n"):
        with pytest.raises(UsageError, match="no name that git takes"):
            fetch(REPO, revision)
    assert published.log == []
    assert sha256(fetch(REPO).folder / "config.json")
