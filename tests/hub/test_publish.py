from __future__ import annotations

import getpass
import json
import re
import shutil
import socket

import pytest
from hub.folders import make_export, make_loadable, results, row
from huggingface_hub import HfApi

from vcreg_hub.errors import HubError, IntegrityError, UsageError
from vcreg_hub.files import sha256, write_json, write_tensors
from vcreg_hub.hub import privacy
from vcreg_hub.hub.bundle import read_bundle
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.export import write_export
from vcreg_hub.hub.plan import plan
from vcreg_hub.hub.publish import publish
from vcreg_hub.hub.verify import same_logits, verify
from vcreg_hub.releases import is_release_file
from vcreg_hub.rundir import RunDir

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
REPO = "me/test_resnet_vcreg.fashion_mnist"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("module") / "export")


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "export")


@pytest.fixture
def push(api, retries):
    """`publish` to the loopback hub, comparing hashes alone."""

    def call(folder, repo=REPO, **arguments):
        return publish(folder, repo, **{"api": api, "retries": retries, "same": None, **arguments})

    return call


def contents(folder):
    return {file.path: file.sha256 for file in read_bundle(folder).files}


# ---- the plan -----------------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing_and_says_everything(folder, hub, api, retries):
    (folder / "state.pt").write_bytes(b"pickle")
    text = plan(folder, REPO, api=api, retries=retries, tag="v1").describe()
    assert hub.repos == {}
    assert {route for route, _ in hub.log} == {"refs"}
    for expected in (f"{REPO} (will be made", "tag        v1", "128 bytes  model.safetensors", "state.pt (never"):
        assert expected in text
    assert (folder / "README.md").read_text(encoding="utf-8") in text


def test_a_plan_shows_the_difference_from_what_is_there(folder, hub, api, push, retries):
    push(folder)
    hub.add(REPO, {"notes.txt": b"somebody's own"})
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder, licence="apache-2.0")
    text = plan(folder, REPO, api=api, retries=retries).describe()
    assert '-      "value": 81.25,' in text
    assert '+      "value": 90.5,' in text
    assert "notes.txt (not ours)" in text
    assert re.search(r"same +128 bytes  model\.safetensors", text)


def test_a_plan_for_a_new_branch_compares_with_what_it_starts_from(folder, hub, api, push, retries):
    push(folder)
    main = hub.repos[REPO].branches["main"][:12]
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder)
    text = plan(folder, REPO, api=api, retries=retries, revision="try").describe()
    assert f"branch     try (will be created from main at {main}" in text
    assert re.search(r"same +128 bytes  model\.safetensors", text)
    assert re.search(r"changed +[\d,]+ bytes  results\.json", text)
    assert '+      "value": 90.5,' in text
    assert "  new " not in text
    assert set(hub.repos[REPO].branches) == {"main"}


def test_a_plan_notes_a_card_that_does_not_know_its_repo(folder, hub, api, retries):
    assert "the card does not say how to load it" in plan(folder, REPO, api=api, retries=retries).describe()
    write_card(folder, licence="apache-2.0", repo_id=REPO)
    assert "the card does not say" not in plan(folder, REPO, api=api, retries=retries).describe()


def test_a_plan_for_the_same_again_says_so(folder, api, push, retries):
    push(folder)
    assert "nothing to change" in plan(folder, REPO, api=api, retries=retries).describe()


# ---- one commit, then the tag -------------------------------------------------------------------------------------


def test_publishing_is_one_commit_and_a_tag(folder, hub, push):
    done = push(folder, tag="v1")
    repo = hub.repos[REPO]
    assert [commit.title for commit in repo.commits.values()][1:] == [repo.commits[done.commit].title]
    assert hub.files(REPO, "v1") == contents(folder) | {".gitattributes": hub.files(REPO)[".gitattributes"]}
    assert repo.tags == {"v1": done.commit}
    assert done.pushed and done.verified


def test_a_second_run_finds_it_done(folder, hub, push):
    first = push(folder, tag="v1")
    second = push(folder, tag="v1")
    assert (second.commit, second.pushed) == (first.commit, False)
    assert len(hub.repos[REPO].commits) == 2


def test_a_newer_version_replaces_the_old_one_whole(folder, hub, push):
    (folder / "curve.png").write_bytes(_png())
    push(folder, tag="v1")
    hub.add(REPO, {"notes.txt": b"somebody's own", "pytorch_model.bin": b"pickle"})
    (folder / "curve.png").unlink()
    write_json(folder / "results.json", results(row(90.5, split="val")))
    write_card(folder, licence="apache-2.0")
    push(folder, tag="v2")
    ours = {path: digest for path, digest in hub.files(REPO, "v2").items() if is_release_file(path)}
    assert ours == contents(folder)
    assert "notes.txt" in hub.files(REPO)
    assert "curve.png" in hub.files(REPO, "v1")


def test_tags_never_move(folder, hub, push):
    push(folder, tag="v1")
    before = hub.repos[REPO].tags["v1"]
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder)
    with pytest.raises(UsageError, match=r"has a tag v1 already, at [0-9a-f]{12}, and tags never move"):
        push(folder, tag="v1")
    assert hub.repos[REPO].tags == {"v1": before}


def test_a_branch_of_its_own(folder, hub, push):
    push(folder)
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder)
    push(folder, revision="try")
    assert hub.files(REPO, "try")["results.json"] == sha256(folder / "results.json")
    assert hub.files(REPO, "main")["results.json"] != sha256(folder / "results.json")


def test_a_pull_request_changes_no_branch(folder, hub, push):
    push(folder)
    main = hub.files(REPO)
    write_json(folder / "results.json", results(row(90.5)))
    write_card(folder)
    first, second = push(folder, pr=True), push(folder, pr=True)
    assert first.url.endswith("/discussions/1")
    assert (second.commit, second.pushed) == (first.commit, False)
    assert hub.files(REPO) == main
    assert len(hub.repos[REPO].pulls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pr": True, "tag": "v1"}, "--pr with --tag"),
        ({"pr": True, "revision": "dev"}, "--pr with --revision"),
        ({"pr": True}, "to open a pull request for"),
        ({"repo": "x"}, "give owner/name"),
        ({"repo": "a/b/c"}, "is not a repo"),
        ({"repo": "../x"}, "is not a repo"),
    ],
)
def test_arguments_that_do_not_go_together(folder, hub, push, arguments, message):
    with pytest.raises(UsageError, match=message):
        push(folder, **arguments)
    assert hub.repos == {}


# ---- who sees it --------------------------------------------------------------------------------------------------


def test_a_private_repo_is_made_private(folder, hub, push):
    push(folder, private=True)
    assert hub.repos[REPO].private


def test_the_visibility_of_a_repo_that_exists_is_checked(folder, hub, push):
    hub.add(REPO, {".gitattributes": b""})
    with pytest.raises(UsageError, match="is public and stays so"):
        push(folder, private=True)
    hub.repos[REPO].private = True
    with pytest.raises(UsageError, match="is private and stays so"):
        push(folder, private=False)
    push(folder)
    assert hub.repos[REPO].private


def test_nothing_goes_up_when_a_new_repo_is_not_private_after_all(folder, hub, push, monkeypatch):
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **_: hub.add(repo, {".gitattributes": b""}))
    with pytest.raises(HubError, match="is public although it was to be private; nothing was uploaded"):
        push(folder, private=True)
    assert set(hub.files(REPO)) == {".gitattributes"}


def test_without_a_login_nothing_is_asked(folder, hub, retries):
    with pytest.raises(HubError, match="hf auth login"):
        publish(folder, REPO, api=HfApi(endpoint=hub.url), retries=retries)
    assert hub.log == []


def test_a_token_without_rights_is_explained(folder, hub, retries):
    with pytest.raises(HubError, match="HF_TOKEN"):
        publish(folder, REPO, api=HfApi(endpoint=hub.url, token="hf_" + "x" * 30), retries=retries)


def test_offline_mode_is_explained(folder, api, hub, retries, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline mode is on"):
        publish(folder, REPO, api=api, retries=retries)


def test_a_card_that_the_hub_refuses_leaves_everything_as_it_was(folder, hub, push):
    hub.rejected_card = "fashion_mnist"
    with pytest.raises(HubError, match=r"Invalid metadata in README\.md"):
        push(folder)
    assert set(hub.files(REPO)) == {".gitattributes"}
    hub.rejected_card = None
    push(folder)


# ---- what may go up -----------------------------------------------------------------------------------------------


def test_only_files_of_the_list_go_up(folder, hub, push):
    for name in ("state.pt", "notes.txt", "metrics.csv", "weights/model.safetensors", ".env", "a b.png", "x.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    push(folder)
    assert set(hub.files(REPO)) - {".gitattributes"} == {
        "README.md", "config.json", "env.json", "model.safetensors", "recipe.json", "results.json"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "recipe.json", "env.json"])
def test_an_incomplete_folder_is_refused(folder, hub, push, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"it has no {name}"):
        push(folder)
    assert hub.log == []


def test_a_symbolic_link_is_refused(folder, tmp_path, push):
    shutil.move(folder / "env.json", tmp_path / "env.json")
    (folder / "env.json").symlink_to(tmp_path / "env.json")
    with pytest.raises(UsageError, match="symbolic link"):
        push(folder)


def test_weights_that_are_no_safetensors_are_refused(folder, push):
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(Exception, match="not a whole safetensors file"):
        push(folder)


TOKEN = "hf_" + "aB3dE5gH7jK9" * 3


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        (TOKEN, "a token"),
        ("/home/somebody/data/imagenet", "an absolute path"),
        ("C:\\Users\\somebody\\data", "a Windows path"),
        ("~/data/imagenet", "an absolute path"),
        ("kestrel-17", "the machine's name"),
        ("jdoe", "the login name"),
    ],
)
@pytest.mark.parametrize("place", ["recipe", "results", "env", "card", "eval", "png", "weights", "config"])
def test_nothing_private_goes_up(folder, hub, push, monkeypatch, secret, what, place):
    monkeypatch.setattr(socket, "gethostname", lambda: "kestrel-17.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    _put(folder, place, secret)
    with pytest.raises(UsageError, match=f"would publish.*{what}"):
        push(folder)
    assert hub.log == []


def test_the_token_of_this_login_never_goes_up_whatever_it_looks_like(folder, push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an-enterprise-token")
    _put(folder, "card", "an-enterprise-token")
    with pytest.raises(UsageError, match="the token of this login"):
        push(folder)


def test_the_owner_may_have_the_login_name(folder, hub, push, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    monkeypatch.setattr(privacy, "_tells", lambda name: True)
    write_card(folder, licence="apache-2.0", repo_id=REPO)
    push(folder)
    _put(folder, "env", "by me")
    push(folder)
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    _put(folder, "env", "by jdoe")
    with pytest.raises(UsageError, match="the login name: jdoe"):
        push(folder)


def test_a_folder_made_on_this_machine_gives_nothing_away(tmp_path):
    """The real names of this machine and login, on a folder that `export` and `write_card` made here."""
    bundle = read_bundle(make_loadable(tmp_path / "export", repo_id=REPO))
    everything = b"".join((bundle.folder / file.path).read_bytes() for file in bundle.files)
    assert str(tmp_path).encode() not in everything
    assert not any(name.encode() in everything for name in privacy._machine_names() + privacy._login_names())


# ---- what was exported ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loadable(tmp_path_factory):
    return make_loadable(tmp_path_factory.mktemp("loadable") / "export", repo_id=REPO)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_was_altered_after_the_export_is_not_published(loadable, tmp_path, hub, push, name):
    folder = shutil.copytree(loadable, tmp_path / "export")
    if name == "config.json":
        (folder / name).write_text((folder / name).read_text(encoding="utf-8").replace("0.25", "0.24"))
    else:
        tensors = RunDir(folder).tensors()
        first = next(iter(tensors))
        write_tensors(folder / name, tensors | {first: tensors[first] + 1})
    exported = sha256(loadable / name)
    with pytest.raises(IntegrityError, match=rf"{name} has SHA-256 .* exported with {exported}: it was altered since"):
        push(folder)
    assert hub.repos == {}
    states = {check.what: check.ok for check in verify(folder, load=False)}
    assert [what for what, ok in states.items() if ok is False] == [name]


def test_an_export_says_its_hashes_and_may_be_made_again(loadable, tmp_path, hub, api, retries, push):
    recorded = RunDir(loadable).results()["files"]
    names = ("config.json", "env.json", "model.safetensors", "recipe.json")
    assert recorded == {name: sha256(loadable / name) for name in names}
    states = {check.what: check.ok for check in verify(loadable, load=False)}
    assert states["model.safetensors"] and states["config.json"]
    folder = shutil.copytree(loadable, tmp_path / "export")
    other = make_loadable(tmp_path / "other", seed=1)
    write_export(other.with_name("other-run"), folder, licence="apache-2.0", overwrite=True)
    write_card(folder, licence="apache-2.0", repo_id=REPO)
    assert "does not record" not in plan(folder, REPO, api=api, retries=retries).describe()
    assert push(folder).verified


def test_an_older_export_is_published_with_a_note(folder, api, retries, push):
    assert "note: results.json does not record the hash" in plan(folder, REPO, api=api, retries=retries).describe()
    assert push(folder).verified


# ---- verification -------------------------------------------------------------------------------------------------


def test_verification_loads_what_it_downloaded(tmp_path, hub, push):
    push(make_loadable(tmp_path / "export", repo_id=REPO), same=same_logits)
    assert hub.seen("get") == 6, "a file each"


def test_another_network_is_noticed(tmp_path):
    one, other = make_loadable(tmp_path / "one"), make_loadable(tmp_path / "other", seed=1)
    same_logits(one, one)
    with pytest.raises(IntegrityError, match="does not give the logits"):
        same_logits(one, other)


def test_without_verification_nothing_is_downloaded(folder, hub, push):
    assert not push(folder, verify=False).verified
    assert hub.seen("get") == 0


def test_a_hub_without_xet_is_explained(folder, hub, push, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="Set HF_HUB_DISABLE_XET=1"):
        push(folder)
    assert hub.seen("xet") > 0
    assert set(hub.files(REPO)) == {".gitattributes"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    push(folder)


def _put(folder, place, secret):
    if place in ("recipe", "results", "env", "config"):
        path = folder / f"{place}.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values["note"] = {"inner": [secret]}
        write_json(path, values)
    elif place == "card":
        with (folder / "README.md").open("a", encoding="utf-8") as file:
            file.write(f"\nmade with {secret} here\n")
    elif place == "eval":
        (folder / ".eval_results").mkdir()
        (folder / ".eval_results" / "more.yaml").write_text(f"- note: {secret}\n", encoding="utf-8")
    elif place == "png":
        (folder / "curve.png").write_bytes(_png(secret))
    else:
        import torch

        write_tensors(folder / "model.safetensors", {"w": torch.zeros(1)}, metadata={"from": secret})


def _png(comment=None):
    import io

    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    if comment is not None:
        text.add_text("Comment", comment)
    out = io.BytesIO()
    Image.new("L", (2, 2)).save(out, "PNG", pnginfo=text)
    return out.getvalue()
