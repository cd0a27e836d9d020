"""The state to resume from in one safetensors file: tensors as tensors, everything else as JSON in its header.

One file, because two could disagree after an interruption between them. Nothing in it is pickled. Its header holds the
SHA-256 of the whole file, taken with 64 zeros in the place of that number, so that no byte of it changes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import RunFolderError
from ..files import write_tensors

# 3: a checksum, a place within an epoch, and what each process has of its own; 2: the end of an epoch, without those.
_FORMAT, _OLDER = 3, 2
_SUM = "vcreg_sha256"
_KEY = f'"{_SUM}":"'.encode()
_BLANK = b"0" * 64


def save_state(path: Path, parts: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings, booleans and None, onto the disk itself.

    Errors: TypeError for a value of another type (our own bug: nothing else belongs into a state); StorageError.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _split(parts, "", tensors)
    text = json.dumps({"format": _FORMAT, "parts": skeleton})
    write_tensors(path, tensors, {"vcreg_state": text, _SUM: _BLANK.decode()}, durable=True, finish=_seal)


def load_state(path: Path) -> dict[str, Any]:
    """The state by `save_state`, tensors on the CPU. Errors: RunFolderError for a damaged or foreign file."""
    from safetensors import SafetensorError, safe_open

    try:
        digest, noted, _ = _checksum(path)
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("vcreg_state")
            if header is None:
                raise RunFolderError(f"{path} is not a training state of this package")
            if noted is not None and digest != noted:
                raise RunFolderError(f"{path} is damaged: its content has the SHA-256 {digest}, not {noted}")
            content = json.loads(header)
            found = content["format"]
            if found == _FORMAT and noted is None:
                raise RunFolderError(f"{path} is damaged: its checksum is gone")
            if found not in (_FORMAT, _OLDER):
                raise RunFolderError(
                    f"{path} has state format {found}, this version reads {_FORMAT}: resume with the version that "
                    "wrote it"
                )
            return _join(content["parts"], file.get_tensor)
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing, or a link to nothing") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _seal(path: Path) -> None:
    """Write the checksum of a file into the blank that it has for it."""
    digest, _, place = _checksum(path)
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(digest.encode())


def _checksum(path: Path) -> tuple[str, str | None, int]:
    """SHA-256 of a safetensors file with its own checksum blanked out, the one noted in it, None where there is none,
    and the place of that."""
    with open(path, "rb") as file:
        start = file.read(8)
        size = int.from_bytes(start, "little")
        if size > path.stat().st_size:
            raise RunFolderError(f"{path} is damaged: it ends within its header")
        header = file.read(size)
        place = header.find(_KEY) + len(_KEY)
        noted = header[place : place + 64].decode("ascii", "replace") if place >= len(_KEY) else None
        if noted is not None:
            header = header[:place] + _BLANK + header[place + 64 :]
        digest = hashlib.file_digest(file, lambda: hashlib.sha256(start + header))
        return digest.hexdigest(), noted, 8 + place


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
