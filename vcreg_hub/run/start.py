"""What a run started from: its network before the first step, by hash. A path or an id would not say which weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from ..files import write_text
from ..rundir import START, RunDir


def note_start(folder: RunDir, model: nn.Module) -> None:
    """Keep the fingerprint of the plain network that a run starts with; a run that goes on keeps its first one."""
    if not folder.begun():
        write_text(folder.path / START, fingerprint(model) + "\n")


def noted_start(folder: RunDir) -> str | None:
    """What `note_start` kept; None where an older version began the run."""
    path = folder.path / START
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def fingerprint(model: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the state dict: for each tensor in order of name, the line "name dtype shape" and
    then its bytes, row by row."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
