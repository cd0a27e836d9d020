"""Every route of a publication, broken in every way: the repo is then as it was or as it should be, never between."""

from __future__ import annotations

import shutil

import pytest
import torch
from hub.folders import make_export, results, row
from loopback import routes

from vcreg_hub.checkpoints.client import RetryPolicy, attempt
from vcreg_hub.errors import HubError, IntegrityError
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.hub.bundle import read_bundle
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.publish import publish

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
REPO = "me/test_resnet_vcreg.fashion_mnist"
# `discussions` is for pull requests, `xet` is never answered, and the others are not part of publishing.
ROUTES = sorted(set(routes()) - {"discussions", "xet", "whoami", "paths", "list", "tree"})
# Which routes a fault of each kind makes sense for.
KINDS = [
    (route, kind)
    for route in ROUTES
    for kind in ("reset", "lost", "500", "429", "truncated")
    if (route, kind) != ("head", "truncated")  # it has no body
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("module") / "export")


@pytest.fixture
def newer(exported, tmp_path):
    """The folder of a second version: other results and another card."""
    folder = shutil.copytree(exported, tmp_path / "newer")
    write_json(folder / "results.json", results(row(90.5)))
    write_tensors(folder / "model.safetensors", {"weight": torch.ones(5)})
    write_card(folder, licence="apache-2.0")
    return folder


@pytest.fixture
def push(api, retries):
    def call(folder, **arguments):
        return publish(folder, REPO, **{"api": api, "retries": retries, "same": None, **arguments})

    return call


def contents(folder):
    return {file.path: file.sha256 for file in read_bundle(folder).files}


def ours(hub, revision="main"):
    return {path: digest for path, digest in hub.files(REPO, revision).items() if path not in OTHERS}


OTHERS = (".gitattributes", "elsewhere.txt")


def commits_of(hub):
    return [commit for commit in hub.repos[REPO].commits.values() if commit.title.startswith("Publish")]


def test_every_route_of_publishing_is_broken_here(exported, hub, push):
    push(exported, revision="dev", tag="v1")
    assert {route for route, _ in hub.log} == set(ROUTES)


@pytest.mark.parametrize(("route", "kind"), KINDS)
def test_a_fault_that_passes_is_outlasted(exported, hub, push, route, kind):
    hub.fault(route, kind)
    push(exported, revision="dev", tag="v1", verify=route in ("head", "get"))
    assert ours(hub, "dev") == ours(hub, "v1") == contents(exported)
    assert len(commits_of(hub)) == 1
    assert not hub.take_fault(route, ""), "the fault was never met"


@pytest.mark.parametrize(("route", "kind"), KINDS)
def test_after_a_fault_that_stays_the_next_run_completes(exported, newer, hub, push, route, kind):
    if route != "create":
        held = {file.path: (exported / file.path).read_bytes() for file in read_bundle(exported).files}
        hub.add(REPO, held | {".gitattributes": b""})
    old, verify = ours(hub), route in ("head", "get")
    hub.fault(route, kind, times=None)
    try:
        push(newer, revision="dev", tag="v2", verify=verify)
    except HubError as error:
        assert "run the same command again" in str(error)
    else:
        # An answer may be lost for good: what the request did is looked up, and nothing is sent twice.
        assert (route, kind) in LOOKED_UP, "a fault that stays was outlasted"
    assert ours(hub) == old
    assert ours(hub, "dev") in ({}, old, contents(newer))
    assert ours(hub, "v2") in ({}, contents(newer))
    hub.heal()
    push(newer, revision="dev", tag="v2", verify=verify)
    assert ours(hub, "dev") == ours(hub, "v2") == contents(newer)
    assert [commit.files["results.json"].sha256 for commit in commits_of(hub)].count(
        contents(newer)["results.json"]
    ) == 1


LOOKED_UP = {(route, kind) for route in ("commit", "put", "verify") for kind in ("lost", "truncated")} | {
    # The weights are there before `verify` is asked; the next attempt is told so and does not ask again.
    ("verify", kind)
    for kind in ("reset", "500", "429")
}


@pytest.mark.parametrize("route", ROUTES)
def test_silence_is_not_waited_for(exported, hub, push, route):
    hub.fault(route, "timeout")
    push(exported, revision="dev", tag="v1")
    assert ours(hub, "dev") == ours(hub, "v1") == contents(exported)
    assert len(commits_of(hub)) == 1


def test_silence_that_stays_is_an_error(exported, hub, push):
    hub.fault("commit", "timeout", times=None)
    with pytest.raises(HubError, match="run the same command again"):
        push(exported)
    assert ours(hub) == {}
    hub.heal()
    push(exported)
    assert ours(hub) == contents(exported)


def test_weights_damaged_on_the_way_up_are_never_committed(exported, hub, push):
    hub.fault("put", "hash", times=None)
    with pytest.raises(HubError, match="nothing was changed there"):
        push(exported)
    assert ours(hub) == {}
    hub.heal()
    push(exported)
    assert ours(hub) == contents(exported)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_a_file_damaged_on_the_way_down_is_noticed_and_nothing_is_tagged(exported, hub, push, name):
    hub.fault("get", "hash", match=name)
    with pytest.raises(IntegrityError, match=name) as caught:
        push(exported, tag="v1")
    assert contents(exported)[name] in str(caught.value)
    assert hub.repos[REPO].tags == {}
    push(exported, tag="v1")
    assert ours(hub, "v1") == contents(exported)


def test_a_commit_that_came_first_is_not_overwritten(exported, newer, hub, push):
    push(exported)
    hub.fault("commit", "race")
    with pytest.raises(HubError, match=r"somebody pushed [0-9a-f]{12} to main"):
        push(newer, tag="v2")
    assert ours(hub) == contents(exported)
    assert "elsewhere.txt" in hub.files(REPO)
    assert hub.repos[REPO].tags == {}
    push(newer, tag="v2")
    assert ours(hub, "v2") == contents(newer)
    assert "elsewhere.txt" in hub.files(REPO)


@pytest.mark.parametrize("kind", ["reset", "lost", "500", "truncated"])
@pytest.mark.parametrize("route", ["commit", "discussions"])
def test_a_pull_request_is_opened_once(exported, newer, hub, push, route, kind):
    push(exported)
    hub.fault(route, kind)
    done = push(newer, pr=True)
    assert len(hub.repos[REPO].pulls) == 1
    assert ours(hub, "refs/pr/1") == contents(newer)
    assert ours(hub) == contents(exported)
    assert hub.repos[REPO].at("refs/pr/1").oid == done.commit


def test_retry_after_is_obeyed(hub, api, naps):
    hub.add(REPO, {"x": b"x"})
    hub.fault("info", "429")
    assert attempt("asking", lambda: api.model_info(REPO), RetryPolicy(first_wait=0.25, sleep=naps.append)).id == REPO
    assert naps == [1.0]


def test_waits_double_and_end(hub, api, naps):
    hub.fault("info", "500", times=None)
    with pytest.raises(HubError, match="asking: Server error"):
        attempt(
            "asking",
            lambda: api.model_info(REPO),
            RetryPolicy(attempts=5, first_wait=1.0, longest_wait=3.0, sleep=naps.append),
        )
    assert naps == [1.0, 2.0, 3.0, 3.0]


def test_what_will_not_pass_is_not_tried_again(hub, api, naps):
    with pytest.raises(HubError, match="check the name"):
        attempt("asking", lambda: api.model_info("me/absent"), RetryPolicy(sleep=naps.append))
    assert naps == []
    assert hub.seen("info") == 1


def test_our_own_mistakes_are_not_called_the_hubs(retries):
    with pytest.raises(KeyError):
        attempt("asking", lambda: {}["absent"], retries)
