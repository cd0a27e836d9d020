"""Every tracker that the documents name gets what metrics.csv has, with its package in an environment of its own.

The packages are installed into a folder that is looked at last, so that none of them replaces one of ours.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

from vcreg_hub.config import Data, Model, Recipe, Train, to_json
from vcreg_hub.evals.classification import Classification
from vcreg_hub.regularizer.vcreg import VCReg

pytestmark = [pytest.mark.e2e, pytest.mark.network]

RECIPE = Recipe(
    name="tiny",
    model=Model("test_convnext"),
    data=Data("digits", labels="superclass", val_fraction=0.2, train_images=64, image_size=32, crop="none", workers=0),
    train=Train(epochs=1, batch_size=32),
    evals=(Classification(),),
    vcreg=VCReg(),
)
COLUMNS = ("train_loss", "vcreg_gradient_share/stages.0.blocks.0", "val_cdnv/stages.3.blocks.0")
FILES = {"tensorboard": "events.out.*", "wandb": "*.wandb", "trackio": "*.db*"}
START = "import sys; sys.path.append(sys.argv.pop(1)); from vcreg_hub.__main__ import main; main()"


@pytest.mark.parametrize("name", FILES)
def test_a_tracker_gets_the_numbers_of_every_block(name, tmp_path):
    packages, kept = tmp_path / "packages", tmp_path / "kept"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), name]
    subprocess.run(install, check=True, timeout=600)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(to_json(RECIPE))
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(kept), "TRACKIO_DIR": str(kept), "HF_HOME": str(kept)}
    kept.mkdir()
    command = [sys.executable, "-c", START, str(packages), "train", str(recipe), "--out", str(tmp_path / "run"),
               "--tracker", name]  # fmt: skip
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    files = [path for folder in (tmp_path / "run", kept) for path in folder.rglob(FILES[name])]
    written = b"".join(path.read_bytes() for path in files)
    for column in COLUMNS:
        assert row[column] and column.encode() in written, f"{name} was not told of {column}"
