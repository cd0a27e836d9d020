"""Your own images: labels checked before a training, settings that fit a small set, preprocessing of the weights."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vcreg_hub.config import Model, Recipe, Train, override
from vcreg_hub.data.image.decode import UnreadableImageError
from vcreg_hub.errors import UnknownNameError
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.models.build import build_model
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import evaluate_run, load_run, train
from vcreg_hub.run.build import recipe_data
from vcreg_hub.training.schedule import fitted_batch

SMALL = ("model.name=test_convnext", "data.image_size=32", "data.resize=32", "data.workers=0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """45 images that a network can tell apart, in two folders of two classes each; and the same as a table."""
    root = tmp_path_factory.mktemp("photos")
    drawn = torch.Generator().manual_seed(0)
    rows = [("path", "kind", "shade")]
    for number in range(45):
        shade, kind = ("dark", "bright")[number % 2], ("warm", "cold")[number // 2 % 2]
        pixels = torch.randint(0, 60, (40, 36, 3), generator=drawn, dtype=torch.uint8)
        pixels += torch.tensor([120 * (kind == "warm"), 0, 120 * (kind == "cold")], dtype=torch.uint8)
        pixels += 75 * (shade == "bright")
        path = root / "photos" / shade / f"{shade} {kind}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
        rows.append((str(path), kind, shade))
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root


def asked(photos: Path, recipe: str, *settings: str) -> Recipe:
    return override(load_recipe(recipe), [f"data.root={photos / 'photos'}", *SMALL, *settings])


PROBED = ("evals=classification,linear_probe",)


def test_labels_that_a_probe_cannot_have_are_found_before_the_training(tmp_path, photos):
    recipe = asked(photos, "folder:classification", *PROBED, "evals.linear_probe.labels=superclas")
    with pytest.raises(UnknownNameError, match="did you mean 'superclass'"):
        train(recipe, tmp_path / "run", log=lambda text: None)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_small_set_is_learned_and_other_labels_are_probed(tmp_path, photos):
    """45 images: 33 to train on, which one batch of 64 would not even fill."""
    settings = (*PROBED, "data.labels=superclass", "evals.linear_probe.labels=class", "train.epochs=12")
    said: list[str] = []
    recipe = asked(photos, "folder:classification", *settings, "data.augment=none", "optim.warmup_epochs=1")
    folder = train(recipe, tmp_path / "run", log=said.append)
    assert any(line.startswith("batch: 8 images a step, not 64: 48 steps in all") for line in said)
    assert any("warning: 48 steps in all" in line and "train.epochs=25 gives 100" in line for line in said)
    results = folder.results()
    found = {(row["metric"], row["dataset_config"]): row["value"] for row in results["metrics"]}
    assert results["training"]["batch_size"] == 8 and results["training"]["steps"] == 48
    assert found["top1", "superclass"] > 75 and ("probe_top1", "class") in found
    assert train(recipe, tmp_path / "run", log=lambda text: None).complete(), "the folder holds the recipe asked for"


def test_one_epoch_of_every_recipe_for_own_images_works(tmp_path, photos):
    for name in ("folder:classification_vcreg", "finetune:image"):
        recipe = asked(photos, name, "train.epochs=1", "model.pretrained=false")
        assert train(recipe, tmp_path / name.partition(":")[0], log=lambda text: None).complete()


def test_a_table_is_trained_on_and_probed_by_its_columns(tmp_path, photos):
    columns = ("data.name=csv", f"data.root={photos / 'labels.csv'}", "data.labels=kind", "train.epochs=1")
    recipe = asked(photos, "folder:classification", *PROBED, *columns, "evals.linear_probe.labels=shade")
    folder = train(recipe, tmp_path / "run", log=lambda text: None)
    assert {row["dataset_config"] for row in folder.results()["metrics"]} == {"kind", "shade"}


def test_fine_tuning_takes_the_preprocessing_of_the_weights_unless_told(tmp_path, photos):
    network = build_model(Model("test_convnext"), num_classes=7, in_chans=3, image_size=160)
    view = {"input_size": [3, 160, 160], "interpolation": "nearest", "crop_pct": 0.8, "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6], "num_classes": 7, "label_names": list("abcdefg")}  # fmt: skip
    weights = tmp_path / "weights"
    weights.mkdir()
    write_tensors(weights / "model.safetensors", network.state_dict())
    write_json(weights / "config.json", {"architecture": "test_convnext", "num_classes": 7, "pretrained_cfg": view})
    settings = (f"model.pretrained={weights}", "train.epochs=1", "data.resize=null", "data.std=[0.5,0.5,0.5]")
    said: list[str] = []
    recipe = asked(photos, "finetune:image", *settings)
    folder = train(recipe, tmp_path / "run", log=said.append)
    data = folder.results()["data"]
    assert data["mean"] == [0.1, 0.2, 0.3] and data["std"] == [0.5, 0.5, 0.5] and data["interpolation"] == "nearest"
    assert data["resize"] == 40, "32 pixels of the crop share 0.8"
    (line,) = (line for line in said if line.startswith("preprocessing of"))
    assert str(weights) in line and "nearest" in line and line.endswith("told otherwise: std")
    assert any(line.startswith("head: fresh, for 4 classes; the weights tell apart a, b, c") for line in said)
    # The run is measured again as it was trained, also where the weights have gone.
    before = {row["metric"]: row["value"] for row in folder.results()["metrics"]}
    (weights / "model.safetensors").unlink()
    assert {row.metric: row.value for row in evaluate_run(folder.path)} == before
    assert load_run(folder.path)[0].data.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("samples", "batch", "shares", "fits"),
    [(10_000, 64, 1, 64), (300, 64, 1, 8), (640, 64, 1, 32), (36, 32, 1, 8), (300, 64, 16, 32), (300, 9, 1, 9)],
)
def test_the_batch_follows_the_number_of_steps(samples, batch, shares, fits):
    asked_for = Train(epochs=20, batch_size=batch, min_steps=400)
    assert fitted_batch(asked_for, samples, shares) == fits
    assert fitted_batch(replace(asked_for, min_steps=None), samples, shares) == batch


def moving(dx: int, dy: int, drawn: np.random.Generator) -> Iterator[av.VideoFrame]:
    """16 frames of 64 x 64: a bright square that moves 3 pixels a frame, from anywhere."""
    x, y = drawn.integers(16, 48, 2)
    for frame in range(16):
        pixels = np.full((64, 64, 3), drawn.integers(20, 40), np.uint8)
        rows, columns = ((np.arange(64) - start - 3 * frame * step) % 64 < 14 for start, step in ((y, dy), (x, dx)))
        pixels[np.ix_(rows, columns)] = 220
        yield av.VideoFrame.from_ndarray(pixels, format="rgb24")


@pytest.mark.slow
def test_45_videos_leave_chance(tmp_path):
    """Three classes of 15, of which 33 are trained on; the command of docs/video.md."""
    drawn = np.random.default_rng(0)
    for name, way in {"left": (-1, 0), "right": (1, 0), "up": (0, -1)}.items():
        for number in range(15):
            path = tmp_path / "videos" / name / f"{number:02d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as container:
                stream = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
                for frame in moving(*way, drawn):
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
    tiny = ("model.name=videomae_tiny", "model.pretrained=videomae_tiny_vcreg.action_shapes", "data.image_size=32")
    settings = (f"data.root={tmp_path / 'videos'}", *tiny, "video.frames=8", "optim.lr=1e-3")
    said: list[str] = []
    folder = train(override(load_recipe("finetune:video"), settings), tmp_path / "run", log=said.append)
    assert "batch: 8 clips a step, not 32: 80 steps in all" in said
    (top1,) = (row["value"] for row in folder.results()["metrics"] if row["metric"] == "top1")
    assert top1 > 60, "of three classes, with nine test clips"


def test_images_that_do_not_decode_are_skipped_counted_and_listed(tmp_path, photos, caplog):
    """The same as of clips: replaced in training, wrong in the test, in results.json, and more than allowed stop it."""
    mine = shutil.copytree(photos / "photos", tmp_path / "mine")
    plain = asked(photos, "folder:classification", *PROBED, f"data.root={mine}", "train.epochs=1")
    data = recipe_data(plain)
    lost = {split: data.where(split, 0) for split in ("train", "val", "test")}
    for path in lost.values():
        Path(path).write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="does not decode as an image"):
        train(plain, tmp_path / "strict", log=lambda text: None)
    said: list[str] = []
    run = train(override(plain, ["data.max_failed=2"]), tmp_path / "run", log=said.append)
    found = run.results()
    inside = {split: str(Path(path).relative_to(mine)) for split, path in lost.items()}
    assert found["training"]["undecodable"] == [inside["train"], inside["val"]]
    assert found["data"]["undecodable_test"] == [inside["test"]]
    assert any("1 training images did not decode; results.json lists them" in line for line in said)
    assert all(path in caplog.text for path in lost.values())
    rows = {row["metric"]: row["value"] for row in found["metrics"]}
    size = data.size("test")
    assert rows["top1"] <= 100 * (size - 1) / size
    again = {row.metric: row.value for row in evaluate_run(run.path)}
    assert again == rows
    with pytest.raises(UnreadableImageError, match=r"2 images failed to decode, data\.max_failed is 1"):
        train(override(plain, ["data.max_failed=1"]), tmp_path / "few", log=lambda text: None)
