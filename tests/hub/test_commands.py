"""The hub's commands as a user types them, against the loopback hub."""

from __future__ import annotations

import json
import shutil

import pytest
from hub.folders import make_loadable, make_run
from typer.testing import CliRunner

from vcreg_hub.cli import app
from vcreg_hub.errors import HubError, UsageError, WeightsNotFoundError
from vcreg_hub.models import places

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
def vcreg(hub, monkeypatch, tmp_path):
    """Run a command in an empty folder, logged in; returns what it printed, raises what it raised."""
    # HF_ENDPOINT, as huggingface_hub keeps it after its import.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
    monkeypatch.setenv("HF_TOKEN", hub.token)
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
    with pytest.raises(UsageError, match="--licence"):
        vcreg("card", str(run))

    listed = {entry["name"]: entry for entry in json.loads(vcreg("list", "--json"))}
    assert listed[NAME]["places"] == [f"VCREG_HUB_NAMESPACE=me on {hub.url}"]
    vcreg("download", NAME, "--to", str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "SHA256SUMS").is_file()
    assert "False" not in vcreg("verify", str(tmp_path / "mine"))
    assert "False" not in vcreg("verify", NAME)


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


def test_a_smoke_test_is_never_published(hub, vcreg, run):
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe["data"]["name"] = "synthetic:fashion_mnist"
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    with pytest.raises(UsageError, match="made-up images"):
        vcreg("publish", str(run), "--repo", REPO, "--licence", "apache-2.0", "--yes")
    assert hub.repos == {}
    assert "no number here means anything" in (run / "export" / "README.md").read_text(encoding="utf-8")
