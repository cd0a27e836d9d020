"""Features of files and data sets, in memory and in files of three kinds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pyarrow import parquet
from run.test_predict import CLIPS, GREY, picture, video
from safetensors import safe_open

import vcreg_hub
from vcreg_hub.config import Data
from vcreg_hub.data import load_data
from vcreg_hub.errors import DataError, UnknownNameError, UsageError
from vcreg_hub.evals import extraction
from vcreg_hub.models import outputs


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for i in range(3):
            picture(tmp_path / "in" / "train" / name / f"{i}.png", i, "L" if name == "cat" else "RGB")
    return tmp_path / "in"


def test_a_data_set_under_the_networks_own_view():
    found = vcreg_hub.features(GREY, "digits", split="test")
    assert found.arrays["pooled"].shape == (500, 64) and found.class_names == tuple("0123456789")
    checkpoint = vcreg_hub.models.checkpoint.load_checkpoint(GREY)
    data = load_data(checkpoint.shown(Data("digits", workers=0)))
    np.testing.assert_array_equal(found.labels, data.labels("test"))
    image, _, _ = data.eval_batches("test", 1).dataset[7]
    with torch.no_grad():
        alone = outputs.features(checkpoint.network, image[None])[0]
    np.testing.assert_allclose(found.arrays["pooled"][7], alone, atol=1e-5)
    assert found.paths[7] == "image 7 of digits/test" and found.model == GREY


def test_files_have_the_labels_of_their_folders(folder, caplog):
    found = vcreg_hub.features(GREY, folder, outputs=("pooled", "spatial", "blocks"))
    assert [found.class_names[label] for label in found.labels] == ["cat"] * 3 + ["dog"] * 3
    assert [Path(path).name for path in found.paths] == ["0.png", "1.png", "2.png"] * 2
    assert found.arrays["spatial"].shape == (6, 64, 8, 8)
    assert len([name for name in found.arrays if name.startswith("blocks.")]) == 15
    np.testing.assert_allclose(found.arrays["pooled"], found.arrays["spatial"].mean((2, 3)), atol=1e-5)
    assert "3 files are colour: the network sees them in grey" in caplog.text


def test_a_colour_network_sees_a_grey_set_in_three_channels(caplog):
    model = timm.create_model("test_convnext", num_classes=3)
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    found = vcreg_hub.features(model, "digits", cache=False)
    assert len(found.labels) == 500
    assert "digits has 1 channel: its images are shown in three equal channels" in caplog.text


def test_a_file_that_cannot_be_read_is_left_out_and_named(folder, caplog):
    (folder / "train" / "cat" / "1.png").write_bytes(b"no picture")
    found = vcreg_hub.features(GREY, folder)
    assert len(found.labels) == len(found.paths) == len(found.arrays["pooled"]) == 5
    assert "1 of 6 samples are left out" in caplog.text and "cat/1.png does not decode" in caplog.text
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 6 files can be read"):
        vcreg_hub.features(GREY, folder)


def test_odd_and_broken_files_are_the_same_to_predict_features_and_evaluate(tmp_path, caplog):
    """One decoder: what one of them reads, turns, scales or refuses, the others do too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "test"):
        for kind, value in (("dark", 40), ("pale", 200)):
            folder = tmp_path / "in" / split / kind
            folder.mkdir(parents=True)
            pixels = np.clip(np.random.RandomState(value).normal(value, 20, (40, 50, 3)), 0, 255).astype(np.uint8)
            plain = Image.fromarray(pixels)
            plain.save(folder / "turned.jpg", exif=exif)
            plain.convert("RGBA").save(folder / "alpha.png")
            plain.convert("CMYK").save(folder / "ink.tif")
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
            Image.fromarray(pixels[..., 0].astype(np.float32) / 255).save(folder / "float.tif")
            Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(folder / "nan.tif")
            (folder / "short.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:-300])
    model = timm.create_model("test_convnext", num_classes=3)
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    broken = {f"{kind}/{name}" for kind in ("dark", "pale") for name in ("nan.tif", "short.jpg")}

    def names(paths):
        return {"/".join(Path(path).parts[-2:]) for path in paths}

    predicted = vcreg_hub.predict(model, tmp_path / "in" / "test")
    assert names(one.path for one in predicted if one.error) == broken and len(predicted) == 14
    files = vcreg_hub.features(model, tmp_path / "in" / "test", cache=False)
    data = Data("folder", root=str(tmp_path / "in"), max_failed=9)
    of_set = vcreg_hub.features(model, data, cache=False)
    assert files.paths == of_set.paths and names(files.paths) & broken == set() and len(files.paths) == 10
    np.testing.assert_array_equal(files.arrays["pooled"], of_set.arrays["pooled"])
    np.testing.assert_array_equal(files.labels, of_set.labels)
    caplog.clear()
    settings = ["data.name=folder", f"data.root={tmp_path / 'in'}", "data.max_failed=9", "data.workers=0"]
    (row, *_) = vcreg_hub.evaluate(model, "knn", settings=settings, cache=False)
    assert row.value == pytest.approx(100 * 10 / 14, abs=1e-4), "the broken ones are wrong, the others easy"
    said = [message for message in caplog.messages if "the image counts as wrong" in message]
    assert len(said) == 8


def test_videos(tmp_path):
    video(tmp_path / "in" / "spin" / "a.avi", 1)
    (tmp_path / "in" / "spin" / "b.avi").write_bytes(b"no video")
    found = vcreg_hub.features(CLIPS, tmp_path / "in", outputs=("pooled", "blocks"))
    assert len(found.paths) == 1 and found.class_names == ("spin",)
    assert all(array.shape == found.arrays["pooled"].shape for array in found.arrays.values())


def test_what_is_in_the_files_is_what_came_out(folder, tmp_path):
    found = vcreg_hub.features(GREY, folder, outputs=("pooled", "spatial"), to=tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", "np") as file:
        about = file.metadata()
        for name in ("pooled", "spatial"):
            np.testing.assert_array_equal(file.get_tensor(name), found.arrays[name])
        np.testing.assert_array_equal(file.get_tensor("labels"), found.labels)
    assert json.loads(about["paths"]) == list(found.paths) and json.loads(about["class_names"]) == ["cat", "dog"]
    assert json.loads(about["model"]) == GREY

    found.save(tmp_path / "f.parquet")
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("path").to_pylist() == list(found.paths)
    assert table.column("class").to_pylist() == ["cat"] * 3 + ["dog"] * 3
    shapes = json.loads(table.schema.metadata[b"shapes"])
    for name in ("pooled", "spatial"):
        rows = np.array(table.column(name).to_pylist(), dtype=np.float32).reshape(-1, *shapes[name])
        np.testing.assert_array_equal(rows, found.arrays[name])

    vcreg_hub.features(GREY, folder, to=tmp_path / "f.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), found.arrays["pooled"])
    with (tmp_path / "f.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(found.paths) and rows[5]["class"] == "dog"


def test_the_second_time_nothing_is_extracted(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("VCREG_FEATURES_DIR", str(tmp_path / "kept"))
    first = vcreg_hub.features(GREY, folder)
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 1
    monkeypatch.setattr(extraction, "_part", lambda *_: pytest.fail("extracted again"))
    again = vcreg_hub.features(GREY, folder)
    np.testing.assert_array_equal(again.arrays["pooled"], first.arrays["pooled"])


@pytest.mark.parametrize(
    ("data", "settings", "kind", "part"),
    [
        ("digitz", {}, UnknownNameError, "did you mean 'digits'"),
        ("digits", {"to": "x.txt"}, UsageError, "expected a name that ends in"),
        ("digits", {"to": "x.npy", "outputs": ("pooled", "spatial")}, UsageError, "holds one array"),
        ("digits", {"to": "x.npy", "outputs": ("blocks",)}, UsageError, "holds one array"),
        ("digits", {"outputs": ("poled",)}, UnknownNameError, "did you mean 'pooled'"),
        ("no/such/file.png", {}, UsageError, "there is no file or folder"),
        ("hmdb51", {}, Exception, "hmdb51"),
    ],
)
def test_what_cannot_be_done_says_so(data, settings, kind, part):
    with pytest.raises(kind) as error:
        vcreg_hub.features(GREY, data, **settings)
    assert part in str(error.value)


def test_the_command(folder, tmp_path, capsys):
    from vcreg_hub.cli.use import features

    to = tmp_path / "out.safetensors"
    features(GREY, [str(folder)], to, ["pooled"], "test", None, "class", 64, 0, "no", True)
    assert f"features: {to} (pooled 6x64)" in capsys.readouterr().out and to.is_file()
    with pytest.raises(UsageError, match="--root and --labels are of a data set"):
        features(GREY, [str(folder)], to, None, "test", "somewhere", "class", 64, 0, "no", True)
    with pytest.raises(UsageError, match="--split is train, val or test"):
        features(GREY, ["digits"], to, None, "tset", None, "class", 64, 0, "no", True)
    features(GREY, ["folder"], to, None, "train", str(folder), "class", 64, 0, "no", True)
    assert "pooled 5x64" in capsys.readouterr().out, "a fifth of the images is the test split"
