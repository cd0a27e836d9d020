from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from hub.folders import make_export, make_loadable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcreg_hub.checkpoints import find as weights
from vcreg_hub.checkpoints import locations as places
from vcreg_hub.errors import (
    HubError,
    IntegrityError,
    UnknownNameError,
    UsageError,
    VCRegError,
    WeightsNotFoundError,
)
from vcreg_hub.files import sha256
from vcreg_hub.hub.download import _copy_to, download
from vcreg_hub.hub.publish import publish
from vcreg_hub.hub.verify import verify
from vcreg_hub.releases import RELEASES, Release, is_release_file

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
NAME = "test_resnet_vcreg.fashion_mnist"
REPO = f"me/{NAME}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("module") / "export")


@pytest.fixture
def files(exported):
    paths = [path for path in exported.rglob("*") if path.is_file()]
    return {str(path.relative_to(exported)): path.read_bytes() for path in paths}


@pytest.fixture
def get(hub, api, retries, default_hub, monkeypatch):
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    default_hub(hub.url, hub.token)

    def call(name=NAME, **arguments):
        return download(name, **{"api": api, "retries": retries, **arguments})

    return call


@pytest.fixture
def released(monkeypatch):
    """Give the table a row for NAME with that hash."""

    def make(digest):
        row = Release("test_resnet_vcreg", "fashion_mnist", "test_resnet", "x:y", licence="mit", sha256=digest, bytes=1)
        for module in ("vcreg_hub.releases", "vcreg_hub.hub.download", "vcreg_hub.hub.verify"):
            monkeypatch.setattr(f"{module}.RELEASES", (*RELEASES, row))

    return make


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- finding ------------------------------------------------------------------------------------------------------


def test_what_was_published_is_downloaded(exported, hub, api, get, retries, files):
    done = publish(exported, REPO, api=api, retries=retries, same=None, tag="v1")
    found = get()
    assert read(found.folder) == files
    assert (found.commit, found.offline) == (done.commit, False)
    assert get(REPO).folder == get("test_resnet_vcreg").folder == get(f"{REPO}@v1").folder == found.folder


def test_a_revision_is_a_branch_tag_or_commit(hub, get, files):
    old = hub.add(REPO, files)
    hub.repos[REPO].tags["v1"] = old
    hub.add(REPO, {"config.json": b"{}"})
    for revision in ("v1", old):
        assert get(revision=revision).commit == old
    assert get().commit != old
    with pytest.raises(UnknownNameError, match=r"unknown revision of me/.*'v2'.*main|v1"):
        get(revision="v2")


def test_a_folder_and_the_package_are_places_too(hub, get, exported, tmp_path, monkeypatch):
    monkeypatch.delenv(places.NAMESPACE_VARIABLE)
    monkeypatch.setattr(places, "PACKAGED", tmp_path / "packaged")
    packaged = shutil.copytree(exported, tmp_path / "packaged" / NAME)
    assert get().folder == packaged
    given = shutil.copytree(exported, tmp_path / "given" / NAME)
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))
    assert get().folder == given
    with pytest.raises(UsageError, match="has no revisions"):
        get(revision="v1")
    assert hub.log == []


def test_weights_that_nobody_has_name_the_places_and_the_recipe(hub, get):
    with pytest.raises(WeightsNotFoundError, match=r"VCREG_HUB_NAMESPACE=me.*vcreg train imagenet:resnet50_vcreg"):
        get("resnet50_vcreg")
    with pytest.raises(WeightsNotFoundError, match="there is no repo me/absent"):
        get("me/absent")
    with pytest.raises(UnknownNameError, match=r"did you mean 'resnet50_vcreg"):
        get("resnet50_vcrog")


def test_a_private_repo_is_not_seen_without_a_login(hub, get, files):
    from huggingface_hub import HfApi

    hub.add(REPO, files, private=True)
    assert get(REPO).commit
    with pytest.raises(WeightsNotFoundError, match="or this login may not see it"):
        get(REPO, api=HfApi(endpoint=hub.url, token=False))


# ---- trust --------------------------------------------------------------------------------------------------------


def test_the_weights_are_compared_with_the_table_before_they_are_used(hub, get, files, released, exported, tmp_path):
    hub.add(REPO, files)
    good = sha256(exported / "model.safetensors")
    released(good)
    get(to=tmp_path / "good")
    released("0" * 64)
    with pytest.raises(IntegrityError) as caught:
        get(to=tmp_path / "bad")
    assert good in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert not (tmp_path / "bad").exists()
    assert read(tmp_path / "good")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_damaged_on_the_way_is_an_error_that_deletes_nothing(hub, get, files, name, tmp_path):
    hub.add(REPO, files)
    hub.fault("get", "hash", times=None, match=name)
    with pytest.raises(IntegrityError, match=f"{name} has hash .* but me/.* lists") as caught:
        get(to=tmp_path / "to")
    damaged = next(word for word in str(caught.value).split() if word.endswith(name))
    assert (tmp_path / damaged).is_file()
    assert not (tmp_path / "to").exists()
    with pytest.raises(IntegrityError, match="--force"):
        get()
    hub.heal()
    assert read(get().folder) == files


def test_a_cache_that_was_damaged_later_is_noticed_offline(hub, get, files, monkeypatch):
    hub.add(REPO, files)
    folder = get().folder
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(IntegrityError, match=r"model\.safetensors has hash"):
        get()
    assert blob.is_file()


def test_pickles_are_refused_with_the_way_to_convert(hub, get, files):
    del files["model.safetensors"]
    hub.add(REPO, files | {"pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(UsageError, match=r"pytorch_model\.bin is a pickle.*save_file"):
        get()
    assert hub.seen("get") == 0


def test_only_files_of_the_list_are_taken(hub, get, files):
    hub.add(REPO, files | {"modeling.py": b"evil", "pytorch_model.bin": b"\x80\x04", "sub/model.safetensors": b"x"})
    assert read(get().folder) == files


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "a//b", "C:/x", "..\\x", "~/x", "./x", "a/./b", "x\0y", ".eval_results/../../x"],
)
def test_names_that_leave_the_folder_are_refused(hub, get, files, path):
    hub.add(REPO, files | {path: b"evil"})
    with pytest.raises(IntegrityError, match="outside of its folder"):
        get()
    assert hub.seen("get") == 0


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(st.sampled_from(["..", ".", "/", "\\", "a", ".eval_results", "x.yaml", "~", ":", "\0", "é"])).map(
        "".join
    )
)
def test_no_allowed_name_leaves_its_folder(tmp_path, path):
    if is_release_file(path):
        assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve())


# ---- a folder of one's own ----------------------------------------------------------------------------------------


def test_files_are_copied_with_their_sums(hub, get, files, tmp_path):
    hub.add(REPO, files)
    found = get(to=tmp_path / "to")
    assert found.folder == tmp_path / "to"
    held = read(found.folder)
    sums = dict(line.split("  ")[::-1] for line in held.pop("SHA256SUMS").decode().splitlines())
    assert held == files
    assert set(sums) == set(files)
    assert not any(path.is_symlink() for path in found.folder.rglob("*"))
    get(to=tmp_path / "to")


def test_other_files_of_those_names_are_not_replaced_unasked(hub, get, files, tmp_path):
    hub.add(REPO, files)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "results.json").write_text("mine")
    with pytest.raises(UsageError, match=r"results\.json is there with other content"):
        get(to=tmp_path / "to")
    assert read(tmp_path / "to") == {"results.json": b"mine"}
    get(to=tmp_path / "to", force=True)
    assert read(tmp_path / "to")["results.json"] == files["results.json"]


def test_a_link_in_the_target_leads_nowhere_else(hub, get, files, tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to" / ".eval_results").symlink_to(tmp_path / "elsewhere")
    hub.add(REPO, {**files, ".eval_results/more.yaml": b"- value: 1"})
    with pytest.raises(UsageError, match="leads out of"):
        get(to=tmp_path / "to")
    assert read(tmp_path / "elsewhere") == {}


# ---- a hub that fails ---------------------------------------------------------------------------------------------

FAULTS = [
    (route, kind)
    for route in ("info", "head", "get")
    for kind in ("reset", "lost", "500", "429", "truncated", "timeout")
    if (route, kind) != ("head", "truncated")
]


@pytest.mark.parametrize(("route", "kind"), FAULTS)
def test_a_fault_that_passes_is_outlasted(hub, get, files, route, kind):
    hub.add(REPO, files)
    hub.fault(route, kind)
    assert read(get().folder) == files


@pytest.mark.parametrize(("route", "kind"), [fault for fault in FAULTS if fault[1] != "timeout"])
def test_after_a_fault_that_stays_the_next_run_completes(hub, get, files, route, kind, tmp_path):
    hub.add(REPO, files)
    hub.fault(route, kind, times=None, match="model.safetensors" if route != "info" else "")
    with pytest.raises(HubError, match="run the same command again"):
        get(to=tmp_path / "to")
    assert not (tmp_path / "to").exists()
    hub.heal()
    asked = hub.seen("get")
    assert read(get().folder) == files
    # What was finished is not fetched again.
    assert hub.seen("get") - asked <= len(files) if route == "info" else hub.seen("get") - asked < len(files)


@pytest.fixture
def large(files, monkeypatch):
    """The files with weights of a megabyte, read in pieces of 64 KiB."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    return files | {"model.safetensors": bytes(range(256)) * 4100}


def asked_for(hub):
    return [there for path, there in hub.ranges if path == "model.safetensors"]


def test_a_file_that_breaks_off_goes_on_where_it_broke(hub, get, large):
    hub.add(REPO, large)
    hub.fault("get", "truncated", match="model.safetensors")
    assert read(get().folder) == large
    assert asked_for(hub) == [None, f"bytes={8 << 16}-"]


def test_what_a_killed_download_left_is_never_taken(hub, get, large, tmp_path):
    hub.add(REPO, large)
    blobs = tmp_path / "cache" / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    digest = sha256_of(large["model.safetensors"])
    for name in (f"{digest}.part", f"{digest}.incomplete", f"{digest}.0123abcd.incomplete"):
        (blobs / name).write_bytes(b"x" * 300_000)
    assert read(get().folder) == large
    assert asked_for(hub) == [None], "it starts over"


def sha256_of(data):
    return hashlib.sha256(data).hexdigest()


def test_offline_mode_takes_the_cache_and_says_so(hub, get, files, monkeypatch):
    hub.add(REPO, files)
    online = get()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.log.clear()
    said = []
    found = get(log=said.append)
    assert (found.folder, found.offline, found.commit) == (online.folder, True, online.commit)
    assert any("offline mode" in line and "cache" in line for line in said)
    assert hub.log == []
    said.clear()
    with pytest.raises(WeightsNotFoundError):
        get("convnext_tiny_vcreg", log=said.append)
    assert any("the cache does not have it" in line for line in said)


def test_a_hub_that_does_not_answer_leaves_the_cache(hub, get, files):
    hub.add(REPO, files)
    online = get()
    hub.fault("info", "reset", times=None)
    said = []
    found = get(log=said.append)
    assert (found.folder, found.offline) == (online.folder, True)
    assert any("does not answer" in line for line in said)
    with pytest.raises(HubError):
        get("me/other")


# ---- looking again ------------------------------------------------------------------------------------------------


def states(checks):
    return {check.what: check.ok for check in checks}


def test_a_copied_folder_is_verified(tmp_path):
    _copy_to(make_loadable(tmp_path / "export"), tmp_path / "to")
    checks = verify(tmp_path / "to")
    assert states(checks) == {
        **dict.fromkeys(
            ["README.md", "config.json", "env.json", "model.safetensors", "recipe.json", "results.json"], True
        ),
        "release": None,
        "loads": True,
    }
    (tmp_path / "to" / "config.json").write_text("{}")
    (tmp_path / "to" / "env.json").unlink()
    checks = verify(tmp_path / "to")
    assert [check.what for check in checks if check.ok is False] == ["config.json", "env.json", "loads"]


def test_a_cache_is_verified(hub, get, files, exported, released):
    hub.add(REPO, files)
    released(sha256(exported / "model.safetensors"))
    folder = get().folder
    assert set(states(verify(REPO, load=False)).values()) == {True}
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    found = states(verify(REPO, load=False))
    assert found["model.safetensors"] is False
    assert found["README.md"] is True


def test_a_folder_without_sums_says_that_there_is_nothing_to_compare_with(exported):
    assert states(verify(exported, load=False))["model.safetensors"] is None


def test_what_is_not_there_cannot_be_verified(hub, api):
    for name in ("me/absent", "absent_vcreg.x"):
        with pytest.raises(VCRegError, match="on this machine"):
            verify(name)


def test_a_release_is_verified_by_its_name(hub, get, files, exported, tmp_path, monkeypatch):
    hub.add(REPO, files)
    get()
    assert states(verify(NAME, load=False))["model.safetensors"] is True
    _copy_to(exported, tmp_path / "given" / NAME)
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))
    (tmp_path / "given" / NAME / "README.md").write_text("other")
    assert states(verify(NAME, load=False))["README.md"] is False


def test_a_bare_name_is_verified_as_it_is_loaded(hub, get, files, exported, tmp_path, monkeypatch):
    hub.add(REPO, files)
    get()
    hub.log.clear()
    assert states(verify("test_resnet_vcreg", load=False))["model.safetensors"] is True
    assert hub.log == []
    monkeypatch.delenv(places.NAMESPACE_VARIABLE)
    checks = verify("resnet32_cifar_vcreg", load=False)
    assert states(checks) == {"config.json": True, "model.safetensors": True, "release": True}
    assert weights.find_weights("resnet32_cifar_vcreg").folder == places.PACKAGED / checks[-1].detail.split()[-1]
    for tag in ("one", "two"):
        _copy_to(exported, tmp_path / "given" / f"test_resnet_vcreg.{tag}")
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))
    with pytest.raises(UsageError, match="say which"):
        verify("test_resnet_vcreg")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_every_file_of_a_release_in_the_package_is_compared(tmp_path, monkeypatch, name):
    full_name = "resnet32_cifar_vcreg.fashion_mnist"
    folder = shutil.copytree(places.PACKAGED / full_name, tmp_path / full_name)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(b"0.286", b"0.386") if name == "config.json" else data[:-1] + b"x")
    assert (folder / name).read_bytes() != data
    monkeypatch.setattr(places, "PACKAGED", tmp_path)
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    found = states(verify(full_name, load=False))
    assert found[name] is False and None not in found.values()
    assert states(verify(folder, load=False)) == found
    with pytest.raises(IntegrityError, match=rf"{name} has SHA-256.*To go on, install vcreg_hub again"):
        weights.find_weights(full_name)
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path))
    for look in (weights.find_weights, download):
        with pytest.raises(IntegrityError, match=r"restore the file, or unset VCREG_HUB_DIR"):
            look(full_name)


@pytest.mark.parametrize("name", [row.full_name for row in RELEASES if row.place == "package" and row.published])
def test_of_what_ships_every_hash_is_recorded(monkeypatch, name):
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(places.NAMESPACE_VARIABLE, raising=False)
    assert set(states(verify(name, load=False)).values()) == {True}


def test_a_preprocessor_is_compared_with_the_record_behind_the_card(tmp_path, monkeypatch, released):
    folder, name = make_export(tmp_path / NAME), "preprocessor_config.json"
    (folder / name).write_text("{}")
    released(sha256(folder / "model.safetensors"))
    # The package holds no recipe.json of a release: that is told beside its card.
    (folder / "recipe.json").unlink()
    record = {"results": {"files": {name: sha256(folder / name), "recipe.json": "0" * 64}}}
    (tmp_path / f"{NAME}.json").write_text(json.dumps(record))
    monkeypatch.setattr("vcreg_hub.checkpoints.checksums.cards_folder", lambda: tmp_path)
    assert states(verify(folder, load=False))[name] is True
    assert "recipe.json" not in states(verify(folder, load=False))
    (folder / name).write_text('{"do_resize": false}')
    assert states(verify(folder, load=False))[name] is False


def test_the_same_trust_holds_where_timm_loads(hub, get, files, released):
    """`find_weights`, which `timm.create_model` goes through, refuses the same weights that `download` refuses."""
    hub.add(REPO, files)
    released("0" * 64)
    with pytest.raises(IntegrityError):
        weights.find_weights(NAME)
