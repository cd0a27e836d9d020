"""Verifying loads a folder with the library it is for, and notices what that library makes up or leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from vcreg_hub.checkpoints.find import find_weights
from vcreg_hub.errors import IntegrityError
from vcreg_hub.files import read_tensors, write_tensors
from vcreg_hub.models.build import load_network

BIAS = "videomae.encoder.layer.0.attention.attention.q_bias"


def test_every_tensor_has_its_place(tmp_path: Path) -> None:
    folder = shutil.copytree(find_weights("videomae_tiny_vcreg.action_shapes").folder, tmp_path / "copy")
    clips = torch.rand(1, 8, 3, 32, 32)
    with torch.no_grad():
        assert load_network(folder)(clips).logits.shape == (1, 6)
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name.replace("q_bias", "r_bias"): t for name, t in tensors.items()})
    with pytest.raises(IntegrityError, match=r"transformers .* as it was trained \(missing: .*unexpected: .*r_bias"):
        load_network(folder)
    write_tensors(folder / "model.safetensors", {**tensors, BIAS: torch.zeros(5)})
    with pytest.raises((IntegrityError, RuntimeError), match="mismatch"):
        load_network(folder)
