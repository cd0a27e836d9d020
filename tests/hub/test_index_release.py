from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from hub.folders import make_run, results, row

from vcreg_hub.config import Model, Video, differences, from_json
from vcreg_hub.errors import RunFolderError, UnknownNameError
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.files import read_tensors, sha256, write_tensors
from vcreg_hub.hub import index as module
from vcreg_hub.hub.index import cards_folder, make_release, read_card, read_records
from vcreg_hub.models.build import build_model
from vcreg_hub.models.video import create_video_model
from vcreg_hub.recipes import load_recipe
from vcreg_hub.releases import RELEASES, Release

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


def test_a_video_release_is_of_the_first_split_and_brings_its_processor(tmp_path, monkeypatch):
    name = "videomae_tiny_vcreg.shapes"
    changes = dict(library="transformers", task="video-classification", experiment="shapes_finetuned")
    row_ = Release("videomae_tiny_vcreg", "shapes", "videomae", "somewhere", place="package", **changes)
    monkeypatch.setattr(module, "find_release", lambda asked: row_)
    network, final = Model("videomae_tiny"), tmp_path / "runs/final"
    for split in (2, 1):
        for kind in ("plain", "vcreg"):
            clips = dict(model=network, video=Video(split=split, frames=8), where="final")
            values = results(row(60.0 + 10 * split, dataset="shapes", fold=split))
            run = make_run(final / f"{kind},split={split}/seed0", values=values, weights=False, **clips, **(
                {} if kind == "vcreg" else {"vcreg": None}))  # fmt: skip
            model = build_model(network, num_classes=3, in_chans=3, image_size=32, frames=8)
            write_tensors(run / "model.safetensors", model.state_dict())
    packaged, cards = tmp_path / "weights", tmp_path / "cards"
    made = make_release(name, tmp_path / "runs", licence="mit", cards=cards, packaged=packaged)
    assert (packaged / name / "video_preprocessor_config.json").exists()
    trained = read_tensors(final / "vcreg,split=1/seed0/model.safetensors")
    shipped = create_video_model("videomae_tiny", 3, str(packaged / name), vcreg=False).state_dict()
    assert shipped.keys() == trained.keys() and all(torch.equal(shipped[key], trained[key]) for key in trained)
    assert made.bytes == (packaged / name / "model.safetensors").stat().st_size
    card = (cards / f"{name}.md").read_text(encoding="utf-8")
    assert "mean of 2 splits" in card and "75.00" in card and "Seed of these weights: 0, split 1" in card
    assert "`vcreg reproduce shapes_finetuned` repeats every number" in card and "training clips" in card


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
    snippet, *_ = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    names: dict = {}
    exec(compile(snippet, name, "exec"), names)
    (record,) = [record for record in read_records(cards_folder()) if record.name == name]
    classes = len(record.results["data"]["classes"])
    assert names["logits"].shape == (1, classes) and torch.isfinite(names["logits"]).all()


def test_what_ships_is_small_and_has_the_hash_of_its_row_and_record():
    rows = [release for release in RELEASES if release.published and release.place == "package"]
    assert len(rows) == 3 and sum(release.bytes for release in rows) < 12e6
    recorded = {record.name: record.weights.sha256 for record in read_records(cards_folder())}
    for release in rows:
        weights = module.PACKAGED / release.full_name / "model.safetensors"
        assert sha256(weights) == release.sha256 == recorded[release.full_name]
        assert sha256(weights.with_name("config.json")) == release.config_sha256


@pytest.mark.parametrize("row", [row for row in RELEASES if row.published and row.place == "package"], ids=str)
def test_the_recipe_of_what_ships_is_the_one_it_was_trained_by(row):
    (record,) = [record for record in read_records(cards_folder()) if record.name == row.full_name]
    trained = from_json(json.dumps(record.recipe))  # fields that came since have their defaults
    assert set(differences(trained, load_recipe(record.packaged))) <= {"assumed"}
    assert (
        [one.recipe for one in EXPERIMENTS[row.experiment or row.full_name].compared]
        == [row.recipe]
        == [record.packaged]
    )


def test_what_ships_of_video_starts_a_fine_tuning_by_its_name():
    release = create_video_model("videomae_tiny", pretrained="videomae_tiny_vcreg.action_shapes", vcreg=False)
    assert release.config.id2label[4] == "spin"
    model = create_video_model("videomae_tiny", 3, "videomae_tiny_vcreg")
    shared = {k: v for k, v in release.state_dict().items() if not k.startswith("classifier.")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in shared.items())
    assert model.classifier.weight.shape[0] == 3
