"""A release on disk, as `vcreg export` writes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from vcreg_hub.config import Model
from vcreg_hub.models.libraries.library import Preprocessing
from vcreg_hub.models.libraries.timm import Timm


@pytest.fixture(autouse=True)
def no_places(monkeypatch):
    """No folder or namespace of the machine that runs the tests."""
    monkeypatch.delenv("VCREG_HUB_DIR", raising=False)
    monkeypatch.delenv("VCREG_HUB_NAMESPACE", raising=False)


@pytest.fixture
def write_release():
    def write(folder: Path, architecture: str, classes: int = 4, in_chans: int = 3, size: int = 32, seed: int = 0):
        """An untrained network at `folder`, and that network."""
        torch.manual_seed(seed)
        model = timm.create_model(architecture, num_classes=classes, in_chans=in_chans).eval()
        names = [f"class {i}" for i in range(classes)]
        view = Preprocessing(names, in_chans, size, size + 4, "bilinear", [0.3] * in_chans, [0.2] * in_chans)
        folder.mkdir(parents=True, exist_ok=True)
        return Timm().save(folder, model, Model(architecture), view, "apache-2.0")

    return write
