"""A publication on a silent hub, one that is killed, one without a hub, one of weights in several files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hub.folders import make_export, make_loadable, results, row
from loopback import routes

from vcreg_hub.checkpoints import limits
from vcreg_hub.checkpoints.client import RetryPolicy
from vcreg_hub.checkpoints.find import resolve
from vcreg_hub.errors import HubError, IntegrityError, UsageError
from vcreg_hub.files import scratch_folder, write_json
from vcreg_hub.hub import publish as publishing
from vcreg_hub.hub.bundle import SCRATCH, read_bundle
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.download import download
from vcreg_hub.hub.plan import plan
from vcreg_hub.hub.publish import prepare_upload, publish
from vcreg_hub.hub.verify import verify
from vcreg_hub.models.build import load_network
from vcreg_hub.models.outputs import logits

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
REPO = "me/test_resnet_vcreg.fashion_mnist"
ROUTES = sorted(set(routes()) - {"discussions", "xet", "whoami", "paths", "list", "tree"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("module") / "export")


@pytest.fixture
def hundredth(monkeypatch):
    """Seconds of silence are hundredths: what takes two minutes takes 1.2 seconds."""
    monkeypatch.setattr(limits, "TIMEOUT", limits.TIMEOUT / 100)
    monkeypatch.setattr(publishing, "_SILENCE", publishing._SILENCE / 100)
    monkeypatch.setattr(publishing, "_SILENCE_DOWN", publishing._SILENCE_DOWN / 100)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)


@pytest.mark.parametrize("route", [*ROUTES, "all"])
def test_a_silent_hub_is_given_up_within_two_minutes(exported, hub, api, hundredth, tmp_path, route):
    """With the retries that a user has."""
    if route != "create":
        hub.add(REPO, {".gitattributes": b""})
    said = []

    def silence(line):
        # Whatever was said, the plan is made: from here on the hub says nothing, to any request.
        said.append(line)
        for name in ROUTES:
            hub.fault(name, "timeout", times=None)

    folder = shutil.copytree(exported, tmp_path / "newer")
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder, licence="apache-2.0")
    if route != "all":
        hub.fault(route, "timeout", times=None)
    started = time.monotonic()
    with pytest.raises(HubError):
        publish(
            folder, REPO, api=api, revision="dev", tag="v1", same=None, log=silence if route == "all" else said.append
        )
    assert time.monotonic() - started < 1.2 + 0.8, "two minutes of silence, and what the work itself takes"


def test_a_commit_of_which_the_answer_is_lost_in_silence_is_said_to_be_unknown(exported, hub, api, hundredth):
    hub.fault("commit", "timeout", times=None)

    def silent_then(line):
        if line.startswith("made"):
            return

    original = publishing._operations

    def operations(todo):
        for route in ("refs", "info"):
            hub.fault(route, "timeout", times=None)
        return original(todo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "_operations", operations)
        with pytest.raises(HubError, match=r"whether the commit landed is not known, and the same command finds out$"):
            publish(exported, REPO, api=api, same=None, log=silent_then)
    hub.heal()
    assert publish(exported, REPO, api=api, same=None).pushed


@pytest.mark.parametrize("kind", ["timeout", "500", "reset"])
def test_where_only_the_tag_failed_the_commit_is_said_to_be_there(exported, hub, api, retries, kind):
    hub.fault("tag", kind, times=None)
    with pytest.raises(HubError) as caught:
        publish(exported, REPO, api=api, retries=retries, same=None, tag="v1")
    commit = hub.repos[REPO].branches["main"]
    text = str(caught.value)
    assert text.startswith(
        f"the files are published ({hub.url}/{REPO}/commit/{commit}, commit {commit[:12]}), but the tag"
    )
    assert "v1 was not set" in text and "sends nothing twice" in text
    hub.heal()
    done = publish(exported, REPO, api=api, retries=retries, same=None, tag="v1")
    assert (done.commit, done.pushed, hub.repos[REPO].tags) == (commit, False, {"v1": commit})


def test_where_only_the_download_failed_the_commit_is_said_to_be_there(exported, hub, api, retries):
    hub.fault("get", "500", times=None)
    with pytest.raises(HubError, match=r"^the files are published .* but they could not be downloaded to compare them"):
        publish(exported, REPO, api=api, retries=retries, same=None, tag="v1")
    assert hub.repos[REPO].tags == {}


# ---- what killed publications leave ---------------------------------------------------------------------------------

HOLDS = """
import os, sys, signal
from pathlib import Path
from vcreg_hub.files import scratch_folder
with scratch_folder("vcreg-publish-") as folder:
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, here and in processes that are started."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def start():
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_publication_left_is_swept_and_what_is_in_use_is_not(temporary, exported, tmp_path):
    killed, left = start()
    running, used = start()
    killed.kill()
    killed.communicate()
    mine = temporary / "vcreg-other"
    mine.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (temporary / f"{SCRATCH}link").symlink_to(tmp_path / "elsewhere")
    (temporary / f"{SCRATCH}file").write_text("mine")
    assert (left / "model.safetensors").is_file()
    with prepare_upload(exported, REPO, licence=None, siblings=[], twins=[]) as bundle:
        assert not left.exists() and (used / "model.safetensors").is_file()
        assert bundle.folder.is_relative_to(temporary)
        with scratch_folder(SCRATCH) as second:
            assert bundle.folder.is_dir() and second.is_dir()
    assert not bundle.folder.exists()
    running.communicate("\n")
    assert {path.name for path in temporary.iterdir()} == {"vcreg-other", f"{SCRATCH}link", f"{SCRATCH}file"}
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_all_of_it_lies_in_folders_that_are_swept(temporary, hub, api, retries, exported, stop):
    """Whatever step is cut short: the folders of a publication are all of that kind."""
    made = []
    original = tempfile.mkdtemp

    def noted(*arguments, **named):
        made.append(original(*arguments, **named))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", noted)
        with prepare_upload(exported, REPO, licence=None, siblings=[], twins=[]) as bundle:
            publish(bundle, REPO, api=api, retries=retries, same=None)
    outside = [Path(path).name for path in made if Path(path).parent == temporary]
    assert len(outside) >= 2 and all(name.startswith(f".{SCRATCH}") for name in outside)
    assert list(temporary.iterdir()) == []


# ---- without a hub --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["offline", "timeout", "reset", "500"])
def test_a_plan_is_made_without_the_hub_up_to_the_difference(exported, hub, api, retries, monkeypatch, how):
    if how == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        hub.fault("refs", how, times=None)
    text = plan(exported, REPO, api=api, retries=retries, tag="v1").describe()
    why = "offline mode is on" if how == "offline" else "looking at"
    for expected in (
        f"repo       {REPO} (not looked at: {why}",
        "branch     main",
        "tag        v1",
        "128 bytes  model.safetensors",
        "what of it is new or changed is not known: that needs the hub",
    ):
        assert expected in text
    assert "  new " not in text and "will be made" not in text
    assert (exported / "README.md").read_text(encoding="utf-8") in text
    assert how != "offline" or hub.log == []
    with pytest.raises(HubError, match="nothing was sent"):
        publish(exported, REPO, api=api, retries=retries, same=None)
    assert hub.repos == {}


def test_what_a_plan_refuses_it_refuses_without_the_hub_too(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = shutil.copytree(exported, tmp_path / "folder")
    (folder / "env.json").unlink()
    with pytest.raises(UsageError, match="not ready to be published"):
        plan(folder, REPO)


# ---- weights in several files ---------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path, monkeypatch):
    """An export of a network of transformers in files of 8 kB."""
    config = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 8}
    write_json(tmp_path / "resnet" / "config.json", config)
    monkeypatch.setattr("vcreg_hub.models.libraries.transformers._LARGEST_FILE", "8kB")
    return make_loadable(tmp_path / "several", f"hf:{tmp_path / 'resnet'}", repo_id="me/several")


def test_weights_in_several_files_are_published_downloaded_and_loaded(
    hub, api, retries, several, default_hub, tmp_path
):
    names = {path.name for path in several.iterdir()}
    shards = sorted(name for name in names if name.startswith("model-"))
    assert len(shards) > 1 and "model.safetensors.index.json" in names and "model.safetensors" not in names
    publish(several, "me/several", api=api, retries=retries)
    assert names <= set(hub.files("me/several"))
    default_hub(hub.url, hub.token)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = logits(load_network(several)(x))
    found = download("me/several", to=tmp_path / "to").folder
    assert {path.name for path in found.iterdir()} == names | {"SHA256SUMS"}
    assert all(check.ok is not False for check in verify(found))
    from vcreg_hub.config import Model
    from vcreg_hub.models.build import build_model
    from vcreg_hub.models.checkpoint import load_checkpoint

    recipe_name = Model(f"hf:{tmp_path / 'resnet'}", pretrained=str(found))
    for network in (
        load_network(found),
        load_checkpoint(found).network,
        load_checkpoint("hf:me/several").network,
        build_model(recipe_name, num_classes=3, in_chans=3, image_size=32).eval(),
    ):
        with torch.no_grad():
            assert torch.equal(logits(network(x)), expected)
    weights = resolve("me/several")
    assert weights.file.name == "model.safetensors.index.json"
    blob = (weights.folder / shards[0]).resolve()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert resolve("me/several").folder == weights.folder, "it heals"
    (found / shards[0]).write_bytes(b"x")
    with pytest.raises(IntegrityError, match=shards[0]):
        resolve(str(found))
    (found / shards[0]).unlink()
    with pytest.raises(UsageError, match=f"it has no {shards[0]}"):
        read_bundle(found)


def test_several_files_in_timms_format_load_as_one(several, tmp_path):
    from safetensors.torch import save_file

    whole = make_loadable(tmp_path / "whole")
    from vcreg_hub.files import read_tensors

    tensors = read_tensors(whole / "model.safetensors")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = logits(load_network(whole)(x))
    (whole / "model.safetensors").unlink()
    half = len(tensors) // 2
    index = {}
    for number, names in enumerate((list(tensors)[:half], list(tensors)[half:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, whole / file)
        index |= dict.fromkeys(names, file)
    write_json(whole / "model.safetensors.index.json", {"weight_map": index})
    with torch.no_grad():
        assert torch.equal(logits(load_network(whole)(x)), expected)
    os.remove(whole / "model-00002-of-00002.safetensors")
    with pytest.raises(Exception, match="there is no"):
        load_network(whole)


def test_the_retries_of_a_user_are_kept_where_they_are_shorter():
    assert publishing._silent_at_most(RetryPolicy(timeout=1.0, max_timeouts=1), 45, 2).timeout == 1.0
    assert publishing._silent_at_most(RetryPolicy(), 45, 2).max_timeouts == 2
