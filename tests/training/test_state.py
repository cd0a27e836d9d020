"""A state comes back as it was saved, and a foreign or damaged file is refused."""

from __future__ import annotations

import os
import stat

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


def test_no_byte_changes_unnoticed(tmp_path):
    """Every bit of the file is flipped in turn, and the file cut at every length."""
    path, parts = tmp_path / "s.safetensors", {"a": torch.arange(5.0), "step": 7, "name": "x", "none": None}
    save_state(path, parts)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8) if place < 400 else (place % 8,):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(RunFolderError):
                load_state(path)
        path.write_bytes(content[:place])
        with pytest.raises(RunFolderError):
            load_state(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(RunFolderError):
        load_state(path)
    path.write_bytes(content)
    assert load_state(path)["step"] == 7


def test_a_state_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Written, flushed, renamed, and the folder flushed, in that order."""
    calls, sync, replace = [], os.fsync, os.replace

    def noted(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("renamed"), replace(*names)))
    save_state(tmp_path / "s.safetensors", {"a": torch.zeros(2)})
    assert calls == ["file", "renamed", "folder"]
