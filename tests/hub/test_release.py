from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from hub.folders import make_run, results, row

from vcreg_hub.config import Model, to_json
from vcreg_hub.errors import RunFolderError, UnknownNameError
from vcreg_hub.hub import release as module
from vcreg_hub.hub.index import cards_folder, read_card, read_records
from vcreg_hub.hub.release import make_release
from vcreg_hub.models.factory import build_model
from vcreg_hub.recipes import load_recipe
from vcreg_hub.releases import RELEASES, Release
from vcreg_hub.rundir import sha256, write_tensors

NAME = "test_resnet_vcreg.fashion_mnist"
ROW = Release("test_resnet_vcreg", "fashion_mnist", "test_resnet", "somewhere", place="package")


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_release", lambda name: ROW if name == NAME else None)
    # Seed 10 is after seed 2: by number, not by name.
    for seed in (10, 2):
        final = tmp_path / "study/final"
        make_run(final / f"vcreg/seed{seed}", seed=seed, values=results(row(80.0 + seed)), weights=False)
        make_run(final / f"plain/seed{seed}", seed=seed, vcreg=None, values=results(row(70.0 + seed)))
        model = build_model(Model("test_resnet"), num_classes=3, in_chans=3, image_size=32)
        write_tensors(final / f"vcreg/seed{seed}/model.safetensors", model.state_dict())
    return tmp_path / "study"


def test_the_first_seed_is_shipped_beside_the_numbers_of_all(study, tmp_path):
    packaged, cards = tmp_path / "weights", tmp_path / "cards"
    made = make_release(NAME, study, licence="apache-2.0", cards=cards, packaged=packaged)
    weights = packaged / NAME / "model.safetensors"
    assert sorted(path.name for path in packaged.iterdir()) == [NAME]
    assert sorted(path.name for path in (packaged / NAME).iterdir()) == ["config.json", "model.safetensors"]
    hashes = {"sha256": sha256(weights), "config_sha256": sha256(weights.with_name("config.json"))}
    assert made == replace(ROW, licence="apache-2.0", bytes=weights.stat().st_size, **hashes)
    record = json.loads((cards / f"{NAME}.json").read_text(encoding="utf-8"))
    assert record["recipe"]["train"]["seed"] == 2
    assert [run["recipe"]["train"]["seed"] if "recipe" in run else run["seed"] for run in record["runs"]] == [2, 10]
    card = (cards / f"{NAME}.md").read_text(encoding="utf-8")
    assert "86.00 ± 5.66" in card and f'timm.create_model("{NAME}", pretrained=True)' in card
    assert f"`vcreg reproduce {NAME}`" in card and "`vcreg train somewhere`" in card and "recipe.json`;" not in card
    # Once more in its place.
    assert make_release(NAME, study, licence="apache-2.0", cards=cards, packaged=packaged) == made


def test_an_unfinished_run_or_an_unknown_name_makes_nothing(study, tmp_path):
    packaged, cards = tmp_path / "weights", tmp_path / "cards"
    with pytest.raises(UnknownNameError, match=r"resnet32_cifar_vcreg\.fashion_mnist"):
        make_release("resnet32_cifar.fashion_mnist", study, licence="mit", cards=cards, packaged=packaged)
    (study / "final/plain/seed10/results.json").unlink()
    with pytest.raises(RunFolderError, match=r"seed10; `vcreg reproduce` makes and resumes them"):
        make_release(NAME, study, licence="mit", cards=cards, packaged=packaged)
    assert not packaged.exists() and not cards.exists()


@pytest.mark.parametrize(
    "name", [found.full_name for found in RELEASES if found.published and found.place == "package"]
)
def test_the_card_of_what_ships_loads_it_as_printed(name):
    card = read_card(name)
    (snippet,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    names: dict = {}
    exec(compile(snippet, name, "exec"), names)
    assert names["logits"].shape == (1, 10) and torch.isfinite(names["logits"]).all()


def test_what_ships_is_small_and_has_the_hash_of_its_row_and_record():
    rows = [release for release in RELEASES if release.published and release.place == "package"]
    assert len(rows) == 2 and sum(release.bytes for release in rows) < 12e6
    recorded = {record["name"]: record["weights"]["sha256"] for record in read_records(cards_folder())}
    for release in rows:
        weights = module.PACKAGED / release.full_name / "model.safetensors"
        assert sha256(weights) == release.sha256 == recorded[release.full_name]
        assert sha256(weights.with_name("config.json")) == release.config_sha256


@pytest.mark.parametrize("name", ["resnet32_cifar_vcreg", "convnext_zepto_rms_vcreg"])
def test_the_recipe_of_what_ships_is_the_one_it_was_trained_by(name):
    (record,) = [record for record in read_records(cards_folder()) if record["name"] == f"{name}.fashion_mnist"]
    trained = {k: v for k, v in record["recipe"].items() if k != "assumed"}
    now = json.loads(to_json(load_recipe(record["packaged"])))
    assert trained == {k: v for k, v in now.items() if k in trained}
