"""The state to resume from in one safetensors file: tensors as tensors, everything else as JSON in its header.

One file, because two could disagree after an interruption between them. Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import RunFolderError
from ..files import write_tensors

# 2: the weights of all that is trained, a task's heads included; 1 had the network's alone.
_FORMAT = 2


def save_state(path: Path, parts: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings, booleans and None.

    Errors: TypeError for a value of another type (our own bug: nothing else belongs into a state).
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _split(parts, "", tensors)
    write_tensors(path, tensors, metadata={"vcreg_state": json.dumps({"format": _FORMAT, "parts": skeleton})})


def load_state(path: Path) -> dict[str, Any]:
    """The state by `save_state`, tensors on the CPU. Errors: RunFolderError for a damaged or foreign file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("vcreg_state")
            if header is None:
                raise RunFolderError(f"{path} is not a training state of this package")
            content = json.loads(header)
            if content["format"] != _FORMAT:
                raise RunFolderError(
                    f"{path} has state format {content['format']}, this version reads {_FORMAT}: "
                    "resume with the version that wrote it, or start over with --overwrite"
                )
            return _join(content["parts"], file.get_tensor)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); start over with --overwrite") from None


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        # Optimizer states are keyed by whole numbers, which JSON would turn into text: keep keys as values.
        items = [[key, _split(part, f"{path}/{key}", tensors)] for key, part in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        return {"list": [_split(part, f"{path}/{i}", tensors) for i, part in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"{path} is a {type(value).__name__}; a state holds tensors, numbers, text and their containers")


def _join(value: Any, tensor: Any) -> Any:
    if "tensor" in value:
        return tensor(value["tensor"])
    if "dict" in value:
        return {key: _join(part, tensor) for key, part in value["dict"]}
    if "list" in value:
        return [_join(part, tensor) for part in value["list"]]
    return value["value"]
