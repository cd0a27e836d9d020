from __future__ import annotations

import json
import shutil

import pytest
from hub.folders import make_export, make_run, results, row

from vcreg_hub.checkpoints import locations as places
from vcreg_hub.errors import RunFolderError, WeightsNotFoundError
from vcreg_hub.files import sha256
from vcreg_hub.hub.index import (
    _render_index,
    _write_release,
    cards_folder,
    drifted,
    headline_text,
    read_card,
    read_records,
    refresh,
)
from vcreg_hub.hub.listing import list_releases
from vcreg_hub.hub.runs import collect
from vcreg_hub.releases import RELEASES

NAME = "test_resnet_vcreg.fashion_mnist"


@pytest.fixture
def cards(tmp_path):
    runs = [
        make_run(tmp_path / f"v{s}", seed=s, values=results(row(80.0 + s), row(70.0 + s, metric="probe_top1")))
        for s in range(3)
    ]
    twins = [
        make_run(tmp_path / f"p{s}", seed=s, vcreg=None, values=results(row(78.0), row(65.0 + s, metric="probe_top1")))
        for s in range(3)
    ]
    folder = tmp_path / "model_cards"
    _write_release(collect(runs[0], licence="mit", name=NAME, siblings=runs, twins=twins), folder)
    return folder


def test_a_release_is_three_files_and_a_line(cards):
    files = ["README.md", f"{NAME}.json", f"{NAME}.md", f"{NAME}.png"]
    assert sorted(path.name for path in cards.iterdir()) == files
    (record,) = read_records(cards)
    assert len(record.weights.sha256) == 64
    index = (cards / "README.md").read_text(encoding="utf-8")
    assert (
        f"| [{NAME}]({NAME}.md) | timm | probe\\_top1".replace("\\_", "_") + " on fashion_mnist, class, test "
        "| 71.00 ± 1.00 % (n = 3) | 66.00 ± 1.00 (n = 3) | 0.00 MB | mit |"
    ) in index
    assert headline_text(record) == "probe_top1 71.00 ± 1.00 % (n = 3; baseline 66.00 ± 1.00)"
    for release in RELEASES:
        assert f"| {release.full_name} | `vcreg train {release.recipe}` |" in index


def test_a_record_holds_all_that_its_card_is_rendered_from(cards):
    assert drifted(cards) == []
    path = cards / f"{NAME}.md"
    path.write_text(path.read_text(encoding="utf-8").replace("71.00", "99.00"), encoding="utf-8")
    assert drifted(cards) == [f"{NAME}.md"]
    (cards / "README.md").unlink()
    assert drifted(cards) == refresh(cards) == [f"{NAME}.md", "README.md"]
    assert drifted(cards) == []


def test_a_damaged_record_is_named(cards):
    record = json.loads((cards / f"{NAME}.json").read_text(encoding="utf-8"))
    (cards / f"{NAME}.json").write_text(json.dumps(record | {"format": 99}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="format 1"):
        read_records(cards)


def test_a_card_is_found_by_its_name_with_or_without_tag(cards):
    assert read_card(NAME, cards) == read_card("test_resnet_vcreg", cards) == (cards / f"{NAME}.md").read_text("utf-8")
    with pytest.raises(WeightsNotFoundError, match=f"there are: {NAME}"):
        read_card("absent_vcreg", cards)


def test_an_index_without_releases_lists_what_is_missing():
    text = _render_index([])
    assert "## Not trained yet" in text
    assert "| resnet50_vcreg.in1k |" in text


def test_the_cards_of_this_repository_are_rendered_from_their_numbers():
    folder = cards_folder()
    if folder is None:
        pytest.skip("no model cards yet")
    assert drifted(folder) == [], "scripts/cards renders them again"


@pytest.fixture
def nowhere(hub, default_hub, monkeypatch, tmp_path):
    default_hub(hub.url, hub.token)
    monkeypatch.delenv(places.FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(places.NAMESPACE_VARIABLE, raising=False)
    monkeypatch.setattr(places, "PACKAGED", tmp_path / "packaged")


def test_the_list_is_the_table_and_what_is_really_there(nowhere, hub, api, retries, cards, tmp_path, monkeypatch):
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    hub.add("me/convnext_atto_vcreg.in1k", files)
    hub.add("me/swin_vcreg.mine", files | {"README.md": b"its card"})
    hub.add("me/unrelated", files)
    hub.add("you/resnet50_vcreg.in1k", files)
    make_export(tmp_path / "given" / NAME)
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))
    listed, notes = list_releases(api=api, cards=cards, retries=retries)
    by_name = {entry.name: entry for entry in listed}
    assert set(by_name) == {row.full_name for row in RELEASES} | {"swin_vcreg.mine", NAME}
    assert notes == []
    assert by_name["convnext_atto_vcreg.in1k"].places[0].startswith("VCREG_HUB_NAMESPACE=me")
    assert by_name["convnext_atto_vcreg.in1k"].headline == "no card here"
    assert by_name["swin_vcreg.mine"].headline == f"card: {hub.url}/me/swin_vcreg.mine"
    assert by_name["resnet50_vcreg.in1k"].places == ()
    assert by_name["resnet50_vcreg.in1k"].headline == "not trained yet"
    assert by_name[NAME].places == (f"VCREG_HUB_DIR={tmp_path / 'given'}",)
    assert by_name[NAME].headline.startswith("probe_top1 71.00")
    assert json.dumps([entry.as_dict() for entry in listed])


def test_the_list_says_what_cannot_be_loaded_and_why(nowhere, hub, api, retries, cards, tmp_path, monkeypatch):
    config, weights = {"config.json": b"{}"}, {"model.safetensors": b"weights"}
    hub.add("me/swin_vcreg.foreign", config | {"pytorch_model.bin": b"x"})
    hub.add("me/swin_vcreg.bare", weights)
    good = make_export(tmp_path / "given" / "convnext_atto_vcreg.good")
    names = ("altered", "large", "pickled", "empty")
    folders = {name: shutil.copytree(good, good.with_name(f"convnext_atto_vcreg.{name}")) for name in names}
    recorded = {"format": 1, "files": {"model.safetensors": sha256(good / "model.safetensors")}}
    for folder in (good, folders["altered"], folders["large"]):
        (folder / "results.json").write_text(json.dumps(recorded), encoding="utf-8")
    for name in ("altered", "large"):
        (folders[name] / "model.safetensors").write_bytes(b"x" * (good / "model.safetensors").stat().st_size)
    (folders["pickled"] / "model.safetensors").rename(folders["pickled"] / "model.pth")
    for path in folders["empty"].rglob("*.*"):
        if path.is_file():
            path.unlink()
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))

    def troubles():
        listed, _ = list_releases(api=api, cards=cards, retries=retries)
        assert all(not entry.places for entry in listed if entry.troubles)
        return {entry.name.partition(".")[2]: entry.troubles[0] for entry in listed if entry.troubles}

    found = troubles()
    assert set(found) == {"bare", "foreign", *names}
    assert found["bare"].endswith(": no config.json")
    assert found["altered"].startswith(f"VCREG_HUB_DIR={tmp_path / 'given'}: model.safetensors has not the hash")
    assert found["foreign"].endswith(": only pickled weights (pytorch_model.bin), which are not loaded")
    assert found["pickled"].endswith("only pickled weights (model.pth), which are not loaded")
    assert found["empty"].endswith("no model.safetensors")
    # A large file's content is not read for a list.
    monkeypatch.setattr("vcreg_hub.hub.listing.HASHED", 10)
    assert not {"altered", "large"} & set(troubles())


def test_the_list_compares_the_size_of_a_release(nowhere, tmp_path, monkeypatch):
    row = next(row for row in RELEASES if row.bytes)
    folder = tmp_path / "given" / row.full_name
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv(places.FOLDER_VARIABLE, str(tmp_path / "given"))
    listed = {entry.name: entry for entry in list_releases()[0]}
    assert "model.safetensors has not the size" in listed[row.full_name].troubles[0]
    assert listed[row.full_name].places == ()


def test_a_namespace_that_does_not_answer_is_a_note(nowhere, hub, api, retries, monkeypatch):
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    hub.fault("list", "500", times=None)
    listed, notes = list_releases(api=api, retries=retries)
    assert len(listed) == len(RELEASES)
    assert len(notes) == 1
    assert "listing me" in notes[0]


def test_offline_the_cache_is_listed(nowhere, hub, api, retries, monkeypatch):
    monkeypatch.setenv(places.NAMESPACE_VARIABLE, "me")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, notes = list_releases(api=api, retries=retries)
    assert hub.log == []
    assert "offline mode" in notes[0]
