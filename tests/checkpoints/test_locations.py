"""A Hub namespace over HTTP: what is found there, and what is said when it is not, or cannot be reached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import socket
import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from vcreg_hub.checkpoints import client, limits
from vcreg_hub.checkpoints import locations as places
from vcreg_hub.checkpoints.client import RetryPolicy
from vcreg_hub.checkpoints.find import find_weights, resolve
from vcreg_hub.errors import HubError, IntegrityError, UsageError, WeightsNotFoundError
from vcreg_hub.hub.download import download
from vcreg_hub.hub.listing import list_releases
from vcreg_hub.releases import RELEASES

FILES = {"config.json": b'{"architecture": "resnet50"}', "model.safetensors": b"weights"}


@pytest.fixture(autouse=True)
def namespace(hub, default_hub, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setenv("VCREG_HUB_NAMESPACE", "me")
    monkeypatch.delenv("VCREG_HUB_DIR", raising=False)


def test_the_default_tag_needs_no_list(hub):
    hub.add("me/resnet50_vcreg.in1k", FILES)
    hub.add("me/resnet50_vcreg.cars", FILES)
    found = find_weights("resnet50_vcreg")
    assert found.file.read_bytes() == b"weights" and found.config == {"architecture": "resnet50"}
    assert found.origin.startswith("resnet50_vcreg.in1k from VCREG_HUB_NAMESPACE=me")
    assert hub.seen("list") == 0


def test_the_only_tag_and_several(hub):
    hub.add("me/resnet50_vcreg.cars", FILES)
    hub.add("you/resnet50_vcreg.birds", FILES)
    assert find_weights("resnet50_vcreg").origin.startswith("resnet50_vcreg.cars")
    hub.add("me/resnet50_vcreg.birds", FILES)
    with pytest.raises(UsageError, match=r"holds resnet50_vcreg.birds, resnet50_vcreg.cars: say which"):
        find_weights("resnet50_vcreg")


def test_nothing_there(hub):
    with pytest.raises(WeightsNotFoundError, match=r"for .resnet50_vcreg. in VCREG_HUB_NAMESPACE=me on http"):
        find_weights("resnet50_vcreg")


def test_pickled_weights_alone_are_not_taken(hub):
    hub.add("me/resnet50_vcreg.in1k", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(WeightsNotFoundError, match=r"pytorch_model\.bin is a pickle.*save_file"):
        find_weights("resnet50_vcreg.in1k")


def test_the_hash_is_checked_before_loading(hub, monkeypatch):
    right = hashlib.sha256(b"the weights of the release").hexdigest()
    rows = [dataclasses.replace(row, sha256=right) for row in RELEASES]
    monkeypatch.setattr("vcreg_hub.releases.RELEASES", tuple(rows))
    hub.add("me/resnet50_vcreg.in1k", FILES)
    with pytest.raises(IntegrityError, match=rf"has SHA-256 {hashlib.sha256(b'weights').hexdigest()}.*{right}"):
        find_weights("resnet50_vcreg")


def test_the_hash_of_the_export_is_checked_before_loading(hub):
    right = hashlib.sha256(b"what was exported").hexdigest()
    record = {"results.json": json.dumps({"files": {"model.safetensors": right}}).encode()}
    hub.add("me/resnet50_vcreg.in1k", FILES | record)
    wrong = hashlib.sha256(b"weights").hexdigest()
    for load in (lambda: find_weights("resnet50_vcreg"), lambda: resolve("me/resnet50_vcreg.in1k")):
        for _ in range(2):  # as it is fetched, and from the cache
            with pytest.raises(
                IntegrityError, match=rf"SHA-256 {wrong}, but results\.json .* {right}.*publish the run again"
            ):
                load()
    with pytest.raises(IntegrityError, match=rf"SHA-256 {wrong}, but .* exported with {right}.*publish the run again"):
        download("resnet50_vcreg", api=HfApi(endpoint=hub.url))
    hub.add("me/resnet50_vcreg.in1k", {"model.safetensors": b"what was exported"})
    assert find_weights("resnet50_vcreg").file.read_bytes() == b"what was exported"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_was_damaged_on_the_way_or_since_is_not_loaded(hub, name):
    """`timm.create_model` compares with the hub's hashes as `vcreg download` does, also what is in the cache."""
    hub.add("me/resnet50_vcreg.in1k", FILES)
    hub.fault("get", "hash", times=None, match=name)
    loads = (
        lambda: find_weights("resnet50_vcreg"),
        lambda: resolve("me/resnet50_vcreg.in1k"),
        lambda: download("resnet50_vcreg"),
    )
    for load in loads:
        with pytest.raises(IntegrityError, match=rf"{name} has hash .* but me/resnet50_vcreg.in1k lists .*--force"):
            load()
    hub.heal()
    assert find_weights("resnet50_vcreg").file.read_bytes() == b"weights"


def test_only_what_loads_a_network_is_fetched_for_it(hub):
    hub.add("me/resnet50_vcreg.in1k", FILES | {"README.md": b"# card", "curve.png": b"png", "results.json": b"{}"})
    folder = find_weights("resnet50_vcreg").folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "results.json"}
    assert (download("resnet50_vcreg").folder / "README.md").is_file()


def test_a_fault_that_passes_is_outlasted_where_a_network_is_built(hub):
    hub.add("me/resnet50_vcreg.in1k", FILES)
    for route, kind in (("info", "reset"), ("head", "500"), ("get", "429"), ("get", "truncated")):
        hub.fault(route, kind)
    assert find_weights("resnet50_vcreg").file.read_bytes() == b"weights"


def test_a_hub_id_with_a_revision(hub):
    first = hub.add("you/net", FILES)
    hub.add("you/net", {**FILES, "model.safetensors": b"newer"})
    assert resolve("you/net").file.read_bytes() == b"newer"
    assert resolve(f"hf-hub:you/net@{first}").file.read_bytes() == b"weights"
    with pytest.raises(WeightsNotFoundError, match=r"no weights at you/net@v9 on the Hub: .*(v9|Revision|404)"):
        resolve("you/net@v9")


def test_a_hub_that_does_not_answer_is_said(hub):
    hub.add("me/resnet50_vcreg.in1k", FILES)
    for route in ("get", "list"):
        hub.fault(route, "reset", times=None)
    with pytest.raises(WeightsNotFoundError, match=r"could not be reached|could not be read"):
        find_weights("resnet50_vcreg")
    hub.heal()
    assert find_weights("resnet50_vcreg").file.read_bytes() == b"weights"


@pytest.fixture
def unreachable(default_hub):
    """A hub's address where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        default_hub(url)
        yield url


@pytest.fixture
def packaged(tmp_path):
    """A release in the package."""
    inside = tmp_path / "packaged" / "resnet50_vcreg.in1k"
    inside.mkdir(parents=True)
    for name, data in FILES.items():
        (inside / name).write_bytes(data)
    return inside


def test_a_hub_that_cannot_be_reached_is_asked_once_and_costs_no_waiting(
    unreachable, naps, packaged, monkeypatch, caplog
):
    asked = []
    head = get_session().head
    monkeypatch.setattr(
        type(get_session()), "head", lambda self, url, **options: (asked.append(url), head(url, **options))[1]
    )
    for _ in range(3):
        assert find_weights("resnet50_vcreg").folder == packaged
    note = f"VCREG_HUB_NAMESPACE=me: {unreachable} does not answer"
    assert note in caplog.text and "taking resnet50_vcreg.in1k from this package" in caplog.text
    with pytest.raises(WeightsNotFoundError, match=note):
        find_weights("convnext_tiny_vcreg")
    with pytest.raises(WeightsNotFoundError, match=r"does not answer .*, and the local cache does not have you/net"):
        resolve("you/net")
    said: list[str] = []
    assert download("resnet50_vcreg", log=said.append).folder == packaged
    assert any(note in line for line in said)
    _, notes = list_releases()
    assert len(notes) == 1 and notes[0].startswith(note)
    assert asked == [unreachable]
    assert naps == []


def test_a_hub_that_cannot_be_reached_leaves_the_cache(hub, monkeypatch):
    hub.add("me/resnet50_vcreg.in1k", FILES)
    there = find_weights("resnet50_vcreg").folder
    monkeypatch.setattr(client, "_answers", {hub.url: (time.monotonic(), f"{hub.url} does not answer")})
    hub.log.clear()
    assert find_weights("resnet50_vcreg").folder == there
    assert download("resnet50_vcreg", api=HfApi(endpoint=hub.url)).offline
    assert hub.log == []
    # It is asked again after a while.
    monkeypatch.setattr(client, "_answers", {hub.url: (time.monotonic() - 61, f"{hub.url} does not answer")})
    assert find_weights("resnet50_vcreg").folder == there
    assert hub.log


def test_a_hub_that_falls_silent_is_not_waited_for_twice(hub, packaged, monkeypatch, caplog):
    there = packaged
    hub.add("me/resnet50_vcreg.in1k", FILES)
    hub.fault("head", "timeout", times=None)
    monkeypatch.setattr(limits, "TIMEOUT", 0.3)
    started = time.monotonic()
    assert find_weights("resnet50_vcreg").folder == there
    assert time.monotonic() - started < 10, "less than one silence of the server"
    assert f"{hub.url} does not answer (no answer from 127.0.0.1 within 0.6 seconds)" in caplog.text
    hub.log.clear()
    assert find_weights("resnet50_vcreg").folder == there
    assert hub.log == []


@pytest.mark.parametrize("route", ["info", None])
def test_a_silent_hub_is_not_waited_for_by_download(hub, monkeypatch, route):
    """route: what is not answered; None for a hub that takes the connection and says nothing at all."""
    hub.add("me/x", FILES)
    online = download("me/x", api=HfApi(endpoint=hub.url))
    monkeypatch.setattr(limits, "TIMEOUT", 0.3)
    api, said = HfApi(endpoint=hub.url), []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        if route is None:
            api = HfApi(endpoint=f"http://127.0.0.1:{mute.getsockname()[1]}")
        else:
            monkeypatch.setattr(client, "_answers", {})
            hub.fault(route, "timeout", times=None)
        started = time.monotonic()
        for _ in range(2):  # the second time it is remembered
            found = download("me/x", api=api, log=said.append)
            assert (found.folder, found.offline) == (online.folder, True)
        assert time.monotonic() - started < 4
        assert f"{api.endpoint} does not answer" in said[0] and "the copy in the cache" in said[0]
        with pytest.raises(HubError, match=r"does not answer"):
            download("me/absent", api=api)


def test_a_hub_that_is_silent_is_not_waited_for(hub, monkeypatch):
    """huggingface_hub's list takes no timeout, and tries again five times by itself."""
    hub.add("me/resnet50_vcreg.mine", FILES)
    hub.fault("list", "timeout", times=None)
    monkeypatch.setattr(limits, "TIMEOUT", 0.4)
    started = time.monotonic()
    # The other wording is that of huggingface_hub 1.
    silent = r"the list of me could not be read: (no answer from 127\.0\.0\.1|timed out)"
    with pytest.raises(WeightsNotFoundError, match=silent):
        find_weights("resnet50_vcreg")
    listed, notes = list_releases(api=HfApi(endpoint=hub.url), retries=RetryPolicy(1, timeout=0.4, deadline=0.8))
    assert time.monotonic() - started < 10, "less than one silence of the server"
    assert len(notes) == 1
    assert re.match(r"listing me: (no answer from 127\.0\.0\.1 within 0\.8 seconds|timed out)", notes[0])
    assert {entry.name for entry in listed} >= {row.full_name for row in RELEASES}
    hub.heal()
    assert find_weights("resnet50_vcreg").file.read_bytes() == b"weights"
    assert "resnet50_vcreg.mine" in {entry.name for entry in list_releases(api=HfApi(endpoint=hub.url))[0]}
