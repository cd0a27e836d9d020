"""The hub's commands as a user types them, against the loopback hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hub.folders import make_loadable, make_run
from typer.testing import CliRunner

from vcreg_hub.checkpoints import locations as places
from vcreg_hub.checkpoints.find import resolve
from vcreg_hub.cli import app
from vcreg_hub.config import to_dict
from vcreg_hub.errors import HubError, IntegrityError, UsageError, VCRegError, WeightsNotFoundError
from vcreg_hub.hub.record import is_smoke_test
from vcreg_hub.hub.runs import collect
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import smoke_test

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")
NAME = "test_resnet_vcreg.fashion_mnist"
REPO = f"me/{NAME}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder behind a loadable export."""
    make_loadable(tmp_path_factory.mktemp("module") / "made")
    return next(tmp_path_factory.getbasetemp().rglob("made-run"))


@pytest.fixture
def vcreg(hub, default_hub, monkeypatch, tmp_path):
    """Run a command in an empty folder, logged in; returns what it printed, raises what it raised."""
    default_hub(hub.url, hub.token)
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return call


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_from_a_run_folder_to_a_stranger_and_back(hub, vcreg, run, tmp_path):
    publish = ["publish", str(run), "--repo", REPO, "--licence", "apache-2.0", "--tag", "v1"]
    said = vcreg(*publish)
    assert "nothing was sent" in said
    assert hub.repos == {}
    said = vcreg(*publish, "--yes")
    assert "verified" in said
    commit = hub.repos[REPO].tags["v1"]
    assert commit in said
    assert commit in vcreg(*publish, "--yes"), "a second run finds it done"
    assert len([c for c in hub.repos[REPO].commits.values() if c.title.startswith("Publish")]) == 1
    assert f"hf-hub:{REPO}" in vcreg("card", str(run), "--licence", "apache-2.0", "--repo", REPO)
    assert not (run / "export").exists(), "publishing leaves the run as it was"
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    assert "license: apache-2.0" in vcreg("card", "out"), "an export states its licence"
    told = json.loads(vcreg("card", "out", "--json"))
    assert told["metadata"]["license"] == "apache-2.0" and told["text"].lstrip().startswith("# ")
    with pytest.raises(UsageError, match="--licence"):
        vcreg("card", str(run))

    listed = {entry["name"]: entry for entry in json.loads(vcreg("list", "--json"))}
    assert listed[NAME]["places"] == [f"VCREG_HUB_NAMESPACE=me on {hub.url}"]
    vcreg("download", NAME, "--to", str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "SHA256SUMS").is_file()
    assert "False" not in vcreg("verify", str(tmp_path / "mine"))
    assert "False" not in vcreg("verify", NAME)


def test_what_machines_read(hub, vcreg, run, tmp_path):
    """One JSON document on stdout, whatever is told on the way."""

    def told(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    export = told("export", str(run), "--to", "my export", "--licence", "apache-2.0")
    assert Path(export["weights"]).is_file() and Path(export["card"]).is_file()
    planned = told("publish", "my export", "--repo", REPO)
    assert planned["sent"] is False and planned["plan"]
    done = told("publish", "my export", "--repo", REPO, "--yes")
    assert done["sent"] is True and done["repo_id"] == REPO and len(done["commit"]) == 40
    got = told("download", REPO)
    assert Path(got["folder"], "model.safetensors").is_file() and got["commit"] == done["commit"]
    checks = told("verify", got["folder"])
    assert checks and all(check["ok"] is not False for check in checks)
    shown = CliRunner().invoke(app, ["export", str(run), "--to", "other export", "--licence", "apache-2.0"]).stdout
    assert "weights: 'other export/model.safetensors'" in shown, "quoted, to be copied"


def test_an_export_is_published_with_a_card_that_names_the_repo(hub, vcreg, run, tmp_path):
    twin = make_run(tmp_path / "twin", seed=1, vcreg=None)
    vcreg("export", str(run), "--to", "out", "--licence", "Apache-2.0", "--twin", str(twin))
    card = tmp_path / "out" / "README.md"
    assert "local-dir:." in card.read_text(encoding="utf-8") and "seeds 1 (n = 1)" in card.read_text(encoding="utf-8")
    said = vcreg("publish", "out", "--repo", REPO, "--yes")
    there = hub.repos[REPO].at("main").files["README.md"].data.decode()
    assert f"hf-hub:{REPO}" in there and f"# {NAME}" in there and "license: apache-2.0" in there
    assert "local-dir:" not in there and "the card does not say" not in said
    assert "seeds 1 (n = 1)" in there, "the twin is not lost"
    assert "seeds.json" not in hub.repos[REPO].at("main").files

    # A card that somebody has written in is not replaced unasked.
    mine = card.read_text(encoding="utf-8") + "\nMy own words.\n"
    card.write_text(mine, encoding="utf-8")
    said = vcreg("publish", "out", "--repo", "me/elsewhere")
    assert card.read_text(encoding="utf-8") == mine
    assert "`vcreg card out --repo me/elsewhere --write` renders it anew" in said
    assert "nothing was written; --write puts it into out" in vcreg("card", "out", "--repo", "me/elsewhere")
    assert card.read_text(encoding="utf-8") == mine
    vcreg("card", "out", "--repo", "me/elsewhere", "--write")
    assert "hf-hub:me/elsewhere" in card.read_text(encoding="utf-8")
    assert "the card does not say" not in vcreg("publish", "out", "--repo", "me/elsewhere")
    with pytest.raises(UsageError, match="--write puts a card into a folder"):
        vcreg("card", "resnet32_cifar_vcreg", "--write")
    with pytest.raises(UsageError, match=r"states licence 'apache-2\.0', the card would say 'mit'"):
        vcreg("publish", "out", "--repo", REPO, "--licence", "MIT")


def test_what_ships_is_downloaded_with_its_card(vcreg, tmp_path, monkeypatch):
    monkeypatch.delenv(places.NAMESPACE_VARIABLE)
    vcreg("download", "resnet32_cifar_vcreg", "--to", "mine")
    assert (tmp_path / "mine" / "README.md").read_text(encoding="utf-8") + "\n" == vcreg("card", "resnet32_cifar_vcreg")
    assert "README.md" in (tmp_path / "mine" / "SHA256SUMS").read_text(encoding="utf-8")
    assert "False" not in vcreg("verify", "mine")


def test_a_card_of_weights_that_nobody_has_says_how_to_get_some(vcreg):
    with pytest.raises(WeightsNotFoundError) as error:
        vcreg("card", "resnet50_vcreg")
    for part in ("None have been published yet", "vcreg train imagenet:resnet50_vcreg", "VCREG_HUB_DIR"):
        assert part in str(error.value)


def test_wrong_calls(hub, vcreg, run):
    with pytest.raises(UsageError, match="--licence"):
        vcreg("publish", str(run), "--repo", REPO)
    with pytest.raises(UsageError, match="--pr with --tag"):
        vcreg("publish", str(run), "--repo", REPO, "--licence", "mit", "--pr", "--tag", "v1")
    assert hub.repos == {}


def test_without_a_login(hub, vcreg, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        vcreg("publish", str(run), "--repo", REPO, "--licence", "mit", "--yes")


def test_a_licence_that_is_not_listed_is_named_and_linked(vcreg, run, tmp_path):
    command = ["export", str(run), "--to", "out", "--licence", "other"]
    with pytest.raises(UsageError, match="needs --licence-name and --licence-link"):
        vcreg(*command)
    assert not (tmp_path / "out").exists()
    vcreg(*command, "--licence-name", "ours", "--licence-link", "https://example.com/licence")
    assert "license_name: ours" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_recipes_of_smoke_tests_are_known():
    for address in ("fashion_mnist:convnext_atto_vcreg", "action_shapes:videomae_tiny_vcreg"):
        recipe = load_recipe(address)
        assert is_smoke_test(to_dict(smoke_test(recipe))) and not is_smoke_test(to_dict(recipe))
    assert not is_smoke_test({"name": "fire_smoke", "data": {"name": "folder"}})


def test_a_smoke_test_is_said_and_never_published(hub, vcreg, run, tmp_path):
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe["data"]["name"] = "synthetic:fashion_mnist"
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    before = read(run)
    with pytest.raises(UsageError, match=rf"{run} is a smoke test, or was trained on made-up images"):
        vcreg("publish", str(run), "--repo", REPO, "--licence", "apache-2.0", "--yes")
    assert hub.repos == {} and read(run) == before
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**This is a smoke test.**" in card and "numbers mean nothing" in card
    assert "model-index" not in card and "81.25" not in card
    assert not list((tmp_path / "out" / ".eval_results").glob("*"))
    with pytest.raises(UsageError, match=r"out is a smoke test"):
        vcreg("publish", "out", "--repo", REPO)


def read(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_preview_and_a_refusal_change_nothing(hub, vcreg, run, tmp_path):
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    before = read(tmp_path / "out") | read(run)
    for repo, *given in (("me/a", "out"), ("me/b", str(run), "--licence", "apache-2.0")):
        assert "nothing was sent" in vcreg("publish", *given, "--repo", repo)
        hub.fault("commit", "race")
        with pytest.raises(HubError):
            vcreg("publish", *given, "--repo", repo, "--yes")
        assert "verified" in vcreg("publish", *given, "--repo", repo, "--yes"), "a second run finishes it"
        assert "the files are there already" in vcreg("publish", *given, "--repo", repo, "--yes")
    assert read(tmp_path / "out") | read(run) == before


def test_a_preview_reads_the_weights_of_an_export_once(hub, vcreg, run, tmp_path, monkeypatch):
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    for path in (tmp_path / "out").iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    read, hashed, collected, copied = hashlib.file_digest, [], [], []
    counted = lambda file, kind: (hashed.append(Path(file.name).name), read(file, kind))[1]  # noqa: E731
    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr("vcreg_hub.models.build.load_network", lambda *_: pytest.fail("the network was loaded"))
    monkeypatch.setattr(shutil, "copyfile", lambda source, *_, **__: copied.append(source))
    counting = lambda *given, **about: (collected.append(given), collect(*given, **about))[1]  # noqa: E731
    for module in ("card", "publish"):
        monkeypatch.setattr(f"vcreg_hub.hub.{module}.collect", counting)
    assert "nothing was sent" in vcreg("publish", "out", "--repo", REPO)
    assert hashed.count("model.safetensors") == 1 and collected == [(Path("out"),)] and copied == []
    # With words of one's own it is sent as it is.
    with open(tmp_path / "out" / "README.md", "a", encoding="utf-8") as card:
        card.write("\nMy own words.\n")
    assert "nothing was sent" in vcreg("publish", "out", "--repo", REPO)
    assert hashed.count("model.safetensors") == 1 and len(collected) == 2 and copied == []


def test_two_publications_of_one_run_at_once(hub, vcreg, run):
    from vcreg_hub.hub.publish import prepare_upload

    about = {"licence": "apache-2.0", "siblings": [], "twins": []}
    with prepare_upload(run, "me/a", **about) as one:
        with prepare_upload(run, "me/b", **about) as other:
            assert one.folder != other.folder
        assert not other.folder.exists()
        assert "hf-hub:me/a" in (one.folder / "README.md").read_text(encoding="utf-8")
    assert not one.folder.exists()


def test_a_card_for_another_repo_is_rendered_for_this_one(hub, vcreg, run, tmp_path):
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    vcreg("card", "out", "--repo", "me/first", "--write")
    vcreg("publish", "out", "--repo", "me/second", "--yes")
    there = hub.repos["me/second"].at("main").files["README.md"].data.decode()
    assert "hf-hub:me/second" in there and "me/first" not in there


@pytest.mark.parametrize("given", [("--tag", "v 1"), ("--tag", "main"), ("--revision", "../x"), ("--revision=-x",)])
def test_names_that_git_does_not_take_are_refused_first(hub, vcreg, run, given):
    with pytest.raises(UsageError, match=r"no name that git takes|the branch's name too"):
        vcreg("publish", str(run), "--repo", REPO, "--licence", "mit", *given, "--yes")
    assert hub.log == []


def test_what_was_altered_is_neither_downloaded_nor_published(hub, vcreg, run, tmp_path, monkeypatch):
    vcreg("export", str(run), "--to", f"hub/{NAME}", "--licence", "apache-2.0")
    folder = tmp_path / "hub" / NAME
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "hub"))
    vcreg("download", NAME, "--to", "mine")
    for name in ("recipe.json", "env.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text + "\n", encoding="utf-8")
        for command in (("download", NAME, "--to", "other"), ("publish", str(folder), "--repo", REPO)):
            with pytest.raises(
                IntegrityError, match=rf"{name} has SHA-256 [0-9a-f]{{64}}, but .* exported with [0-9a-f]"
            ):
                vcreg(*command)
        with pytest.raises(IntegrityError, match=rf"^1 of \d+ checks failed: {name}$"):
            vcreg("verify", str(folder))
        (folder / name).write_text(text, encoding="utf-8")
    assert not (tmp_path / "other").exists() and hub.log == []


def test_pickles_are_refused_with_the_conversion(vcreg, run, hub, monkeypatch):
    vcreg("export", str(run), "--to", "out", "--licence", "apache-2.0")
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("a pickle was read"))
    for folder in (run, run.parent / "out"):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    export = ("export", str(run), "--to", "other", "--licence", "mit")
    publish = ("publish", str(run), "--repo", REPO, "--licence", "mit")
    for command in (export, publish, ("publish", "out", "--repo", REPO), ("verify", "out")):
        with pytest.raises(UsageError, match=r"pytorch_model\.bin is a pickle.*To convert"):
            vcreg(*command)


def test_a_file_where_a_folder_should_be(vcreg, hub, tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    for to in ("taken", "taken/below"):
        with pytest.raises(UsageError, match=r"taken is a file, and --to .* is to be a folder"):
            vcreg("download", "resnet32_cifar_vcreg", "--to", to)
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


def test_offline_says_that_no_hub_was_asked(vcreg, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match="me/x7 is not in the local cache, and offline mode is on"):
        vcreg("download", "me/x7")
    with pytest.raises(WeightsNotFoundError, match=r"no weights at me/x7 on the Hub: .* offline mode is on"):
        resolve("me/x7")
    with pytest.raises(
        VCRegError, match=r"no 'nosuch' on this machine: it is no folder, and it is not in the local cache"
    ):
        vcreg("verify", "nosuch")
    assert hub.log == []
