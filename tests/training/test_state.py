"""A state comes back as it was saved, and a foreign or damaged file is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from vcreg_hub.errors import RunFolderError
from vcreg_hub.training.state import load_state, save_state


def test_round_trip_with_an_optimizer(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    parts = {
        "optimizer": optimizer.state_dict()["state"],
        "progress": {"epoch": 3, "best": None, "rows": [{"a": 0.5, "name": "x"}], "flag": True},
        "bf16": torch.arange(3, dtype=torch.bfloat16),
    }
    save_state(tmp_path / "s.safetensors", parts)
    back = load_state(tmp_path / "s.safetensors")
    assert back["progress"] == parts["progress"]
    assert torch.equal(back["bf16"], parts["bf16"])
    assert back["optimizer"].keys() == parts["optimizer"].keys() == {0, 1}, "whole-number keys stay whole numbers"
    for key, slots in parts["optimizer"].items():
        for name, value in slots.items():
            assert torch.equal(back["optimizer"][key][name], value)


def test_what_a_state_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="/a is a set"):
        save_state(tmp_path / "s.safetensors", {"a": {1}})


def test_foreign_and_damaged_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(RunFolderError, match="not a training state"):
        load_state(tmp_path / "foreign.safetensors")
    save_state(tmp_path / "s.safetensors", {"a": torch.zeros(50)})
    (tmp_path / "s.safetensors").write_bytes((tmp_path / "s.safetensors").read_bytes()[:-10])
    with pytest.raises(RunFolderError, match="damaged"):
        load_state(tmp_path / "s.safetensors")
