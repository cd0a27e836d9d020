"""timm's own train.py, untouched: `TIMM_SCRIPTS=<folder that holds it> scripts/test -m e2e ...`.

Each training runs twice from one seed: once with VCReg injected, and once with a plain network whose task adds the
explicit loss. The weights after it must agree.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SCRIPTS = Path(os.environ.get("TIMM_SCRIPTS", ""))
COEFFICIENTS = "alpha=5.0, beta=3.0, delta=0.5"
# A module that train.py imports as it does ours.
INJECTED = f"""
import timm, vcreg_hub
from functools import partial
import vcreg_hub.loops.timm_train
vcreg_hub.register_model("test_resnet")
from timm.models import _registry
entry = _registry._model_entrypoints["test_resnet_vcreg"]
_registry._model_entrypoints["test_resnet_vcreg"] = partial(entry, vcreg=vcreg_hub.VCReg({COEFFICIENTS}))
"""
EXPLICIT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from small_models import explicit_penalty
import vcreg_hub
from vcreg_hub.placement.sites import find_blocks
from timm.task import ClassificationTask
forward = ClassificationTask.forward
def with_penalty(self, input, target):
    model = self.trainable_module
    with explicit_penalty(find_blocks(model), vcreg_hub.VCReg({COEFFICIENTS})) as terms:
        result = forward(self, input, target)
    return {{**result, "loss": result["loss"] + sum(terms)}}
ClassificationTask.forward = with_penalty
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for split, count in (("train", 9), ("validation", 3)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def run(script, *arguments, module=None, cwd=None):
    if not (SCRIPTS / script).is_file():
        pytest.skip(f"TIMM_SCRIPTS names no folder with timm's {script}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd or "")}
    command = [sys.executable, *(["-m", module] if module else []), str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def train(photos, tmp_path, name, device_module, *flags, epochs=1):
    """The checkpoint that train.py wrote."""
    (tmp_path / f"{name}_module.py").write_text(device_module)
    model = "test_resnet" if device_module in (EXPLICIT, "") else "test_resnet_vcreg"
    common = [
        "--data-dir", photos, "--model", model, "--num-classes", 2, "--input-size", 3, 32, 32, "--device", "cpu",
        "--workers", 0, "--no-prefetcher", "--batch-size", 4, "--epochs", epochs, "--opt", "sgd", "--lr", 0.05,
        "--sched", "step", "--decay-epochs", 100, "--warmup-epochs", 0, "--no-aug", "--seed", 3,
        "--output", tmp_path / name, "--experiment", "run", "--device-modules", f"{name}_module",
    ]  # fmt: skip
    printed = run("train.py", *common, *flags, cwd=tmp_path)
    assert "UserWarning" not in printed
    return torch.load(tmp_path / name / "run" / "last.pth.tar", map_location="cpu", weights_only=False)


def distance(one, other):
    """Relative, of the weights; a checkpoint's recomputation moves the running statistics of a BatchNorm twice."""
    weights = [key for key in other if other[key].is_floating_point() and "running_" not in key]
    pairs = [(one[key].double(), other[key].double()) for key in weights]
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()


@pytest.mark.parametrize(
    "flags",
    [
        ("--grad-accum-steps", 2, "--model-ema", "--model-ema-decay", 0.5),
        ("--grad-accum-steps", 4, "--grad-checkpointing", "--clip-grad", 1.0),
        ("--amp", "--amp-dtype", "bfloat16", "--grad-accum-steps", 2),
        ("--torchcompile", "aot_eager", "--grad-accum-steps", 2),
    ],
    ids=["accumulation and averaged weights", "checkpointing and clipping", "bfloat16", "compiled"],
)
def test_the_weights_are_those_of_the_explicit_loss(photos, tmp_path, flags):
    got = train(photos, tmp_path, "injected", INJECTED, *flags)
    eager = [flag for flag in flags if flag not in ("--torchcompile", "aot_eager", "--grad-checkpointing")]
    want = train(photos, tmp_path, "explicit", EXPLICIT, *eager)
    bound = 5e-3 if "--amp" in flags else 1e-5
    for key in {"state_dict", "state_dict_ema"} & want.keys():
        assert got[key].keys() == want[key].keys()
        assert distance(got[key], want[key]) < bound


def test_a_resumed_training_and_not_a_plain_one(photos, tmp_path):
    train(photos, tmp_path, "first", INJECTED)
    resume = ("--resume", tmp_path / "first" / "run" / "last.pth.tar")
    got, want, plain = (
        train(photos, tmp_path, name, module, *resume, epochs=2)["state_dict"]
        for name, module in (("injected", INJECTED), ("explicit", EXPLICIT), ("plain", ""))
    )
    assert distance(got, want) < 1e-5 and distance(plain, want) > 1e-3
