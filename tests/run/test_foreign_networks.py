"""transformers' and torchvision's networks through a whole run, exported, and loaded where this package is absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.files import read_tensors, write_json, write_tensors
from vcreg_hub.hub.card import render_card
from vcreg_hub.hub.export import write_export
from vcreg_hub.hub.verify import verify
from vcreg_hub.models.outputs import logits
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import load_run, train

CONFIGS = {
    "resnet": dict(depths=[1, 1], hidden_sizes=[16, 32], embedding_size=8),
    "convnext": dict(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2),
    "vit": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, patch_size=8),
}
# Name of the network -> sites of "blocks", and who loads its export. mobilenet_v2 has no timm network that is the same.
NETWORKS = {
    "hf-resnet": (2, "transformers"),
    "hf-convnext": (2, "transformers"),
    "hf-vit": (2, "transformers"),
    "torchvision-resnet18": (8, "timm"),
    "torchvision-mobilenet_v2": (17, "torchvision"),
}

STRANGER = """
import json, re, sys
sys.modules["vcreg_hub"] = None
import os, pathlib, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
x, found = load_file(sys.argv[1])["x"], {}
for folder in sys.argv[3:]:
    os.chdir(folder)
    names = {}
    exec(re.findall(r"```python\\n(.*?)\\n```", pathlib.Path("README.md").read_text(), re.DOTALL)[0], names)
    with torch.no_grad():
        answer = names["model"](x)
    found[pathlib.Path(folder).name] = getattr(answer, "logits", answer).contiguous()
save_file(found, sys.argv[2])
"""


def recipe_of(name: str, model: str) -> Recipe:
    # Digits have one channel, which torchvision's constructors do not know.
    return Recipe(
        name=name,
        model=Model(model),
        data=Data("digits", val_fraction=0.2, train_images=80, image_size=32, crop="pad", workers=0),
        optim=Optim(lr=1e-3, warmup_epochs=0),
        train=Train(epochs=1, batch_size=32),
        vcreg=VCReg(alpha=0.32, beta=0.04),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run and export folders of every network, and their logits in a process without this package."""
    root = tmp_path_factory.mktemp("foreign")
    said = {}
    for name in NETWORKS:
        library, _, network = name.partition("-")
        if library == "hf":
            write_json(root / "configs" / network / "config.json", {"model_type": network} | CONFIGS[network])
        model = f"hf:{root / 'configs' / network}" if library == "hf" else f"torchvision:{network}"
        lines = said[name] = []
        run = train(recipe_of(name, model), root / "runs" / name, log=lines.append)
        out = write_export(run.path, root / "out" / name, licence="apache-2.0")
        (out / "README.md").write_text(render_card(out, licence="apache-2.0"))
    write_tensors(root / "x.safetensors", {"x": torch.rand(2, 1, 32, 32)})
    folders = [str(root / "out" / name) for name in NETWORKS]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(root / "x.safetensors"), str(root / "answers.safetensors"), *folders],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, said


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_of_it_is_regularized_and_complete(trained, name):
    root, said = trained
    sites = NETWORKS[name][0]
    assert any(f"VCReg at {sites} sites (blocks)" in line for line in said[name]), said[name]
    results = json.loads((root / "runs" / name / "results.json").read_text())
    assert results["training"]["steps"] == 2
    assert [site["backwards"] for site in results["regularizer"]] == [2] * sites
    assert {row["metric"] for row in results["metrics"]} >= {"top1", "top5"}


@pytest.mark.parametrize("name", NETWORKS)
def test_its_export_computes_the_same_without_this_package(trained, name):
    root, _ = trained
    assert f"Plain {NETWORKS[name][1]} loads it" in (root / "out" / name / "README.md").read_text()
    _, images, model = load_run(root / "runs" / name)
    assert images.num_classes == 10
    with torch.no_grad():
        expected = logits(model.eval()(read_tensors(root / "x.safetensors")["x"]))
    # torchvision's ResNet is computed by timm's code: the same sums in another order.
    tolerance = dict(rtol=1e-4, atol=1e-5) if name == "torchvision-resnet18" else dict(rtol=0, atol=0)
    torch.testing.assert_close(read_tensors(root / "answers.safetensors")[name], expected, **tolerance)
    assert all(check.ok is not False for check in verify(root / "out" / name))
