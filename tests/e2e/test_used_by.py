"""From a recipe of ImageNet to somebody's own task: train, publish, create by name, fine-tune, export, plain libraries.

The paper's networks at their own width, on a few made-up pictures of 64 pixels; minutes. By hand: pytest -m e2e.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import vcreg_hub
from vcreg_hub.checkpoints import locations
from vcreg_hub.cli import app
from vcreg_hub.config import override
from vcreg_hub.recipes import load_recipe

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning"),
]
SMALL = ("data.workers=0", "data.image_size=64", "data.train_size=null", "data.resize=64", "data.repeats=1",
         "train.max_steps=2", "train.batch_size=4", "eval.batch_size=8", "evals=classification")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes, told apart by their colour: 16 images each to train on, four to test."""
    root, drawn = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for name, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
            for number in range(count):
                pixels = np.clip(colour + drawn.normal(0, 30, (72, 80, 3)), 0, 255).astype(np.uint8)
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def plainly(code: str, *arguments: str) -> str:
    """What a process prints that cannot import this package."""
    hidden = "import sys; sys.modules['vcreg_hub'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


IN_TIMM = """
import timm, torch
torch.manual_seed(0)
x = torch.randn(2, 3, 64, 64)
print(timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()(x).tolist())
"""
IN_TRANSFORMERS = """
import torch
from transformers import AutoModelForImageClassification
torch.manual_seed(0)
x = torch.randn(2, 3, 64, 64)
print(AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()(x).logits.tolist())
"""


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("imagenet:convnext_tiny_vcreg", "convnext_tiny_vcreg"),
        ("imagenet:resnet50_vcreg", "resnet50_vcreg"),
        ("imagenet:vit_base_patch32_vcreg", "vit_base_patch32_224_vcreg"),
    ],
)
def test_from_an_imagenet_recipe_to_a_task_of_ones_own(recipe, name, hub, default_hub, photos, tmp_path, monkeypatch):
    settings = [word for one in (*SMALL, "data.name=folder", f"data.root={photos}") for word in ("--set", one)]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vcreg_hub",
    ]
    done = subprocess.run(
        [*command, "train", recipe, "--out", str(tmp_path / "run"), *settings], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    default_hub(hub.url, hub.token)
    monkeypatch.delenv(locations.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv(locations.NAMESPACE_VARIABLE, "me")
    repo = f"me/{name}.in1k"
    sent = CliRunner().invoke(
        app, ["publish", str(tmp_path / "run"), "--repo", repo, "--licence", "apache-2.0", "--yes"]
    )
    if sent.exception:
        raise sent.exception
    assert repo in hub.repos

    created = timm.create_model(name, pretrained=True).eval()
    assert created.num_classes == 2 and len(created.vcreg.sites) > 1
    start = {key: value.clone() for key, value in created.state_dict().items()}

    # Another task: the same pictures, named otherwise, with a head of its own.
    tuned = override(
        load_recipe("finetune:image"),
        [f"model.name={name}", "model.pretrained=true", f"data.root={photos}", "data.workers=0", "train.epochs=1",
         "data.image_size=64", "data.resize=64", "train.batch_size=8", "train.min_steps=null"],
    )  # fmt: skip
    folder = vcreg_hub.train(tuned, tmp_path / "tuned", log=lambda text: None)
    export = vcreg_hub.export(folder.path, tmp_path / "export", licence="apache-2.0")
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True).eval()
    assert any(not torch.equal(value, start[key]) for key, value in loaded.state_dict().items() if key in start)
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = torch.tensor(loaded(torch.randn(2, 3, 64, 64)).tolist())
    for code in (IN_TIMM, IN_TRANSFORMERS):
        found = torch.tensor(eval(plainly(code, str(export))))
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
