"""Reads the weights in other programs' checkpoints: timm's train.py, Lightning, accelerate, torchvision, own scripts.

    file                          where the weights are
    last.pth.tar (timm)           under state_dict_ema, else state_dict; beside them the optimizer and the arguments
    last.ckpt (Lightning)         under state_dict, each name begun with the attribute that holds the network
    a folder (accelerate, HF)     model.safetensors or pytorch_model.bin, whole or in shards
    resnet18.pth (torchvision)    the file is the state dict

A pickle is read by torch's unpickler of weights, which builds tensors and plain containers alone. Whatever else a file
asks for is replaced by an object that does nothing, so nothing of the file's choosing is ever called.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from ..errors import IntegrityError, UsageError, first_line, some
from ..files import read_tensors, sha256
from .load import PICKLES

# The entries that programs keep weights under. The averaged ones come first: they are what is meant to be used.
_ENTRIES = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "module", "net", "weights")
# The files in which a folder's weights are, the first that is there.
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SUFFIXES = (*PICKLES, ".safetensors")


@dataclass(frozen=True)
class Foreign:
    """Weights as their file names them.

    tensors: contiguous, on the CPU, each with memory of its own. entry: of the file, where they were found; "" for the
    file itself. arguments: what timm's train.py was started with. facts: such as the epoch, where the file says it.
    """

    tensors: dict[str, Tensor]
    file: Path
    sha256: str
    entry: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, int | float | str] = field(default_factory=dict)


def read_foreign(path: str | Path, entry: str | None = None) -> Foreign:
    """The weights of a checkpoint file, or of a folder that holds one.

    entry: the one to take, such as "state_dict" where "state_dict_ema" is there too; None for the first of the usual
    ones. Errors: UsageError for a file without weights, or several to choose from; IntegrityError for a broken one.
    """
    file = _file(Path(path))
    if file.suffix == ".json":
        shards = _shards(file)
        tensors = {name: tensor for shard in shards for name, tensor in read_foreign(shard).tensors.items()}
        return Foreign(tensors, file, sha256(file))
    if file.suffix == ".safetensors":
        return Foreign(_tidy(read_tensors(file)), file, sha256(file))
    held: Any = _unpickled(file)
    if not isinstance(held, Mapping):
        raise UsageError(f"{file} holds a {type(held).__name__}, expected a state dict or a mapping that has one")
    found, tensors = _weights_in(held, entry, file)
    arguments = dict(vars(held["args"])) if isinstance(held.get("args"), argparse.Namespace) else {}
    facts = {name: held[name] for name in ("epoch", "global_step", "metric") if isinstance(held.get(name), int | float)}
    return Foreign(_tidy(tensors), file, sha256(file), found, arguments, facts)


def matched(foreign: Foreign, names: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors under the names that a network has, and the prefix that stood before each of them.

    A wrapper puts one there: `module.` (DDP), `_orig_mod.` (torch.compile), the attribute of a LightningModule. Tensors
    outside of it, such as those of a metric or a loss, are left out. names: of the network's state dict.
    Errors: UsageError where no name of the network ends a name of the file.
    """
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in foreign.tensors.items()}
    counts: dict[str, int] = {}
    for name in tensors:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in names:
                prefix = "".join(f"{part}." for part in parts[:i])
                counts[prefix] = counts.get(prefix, 0) + 1
                break
    if not counts:
        raise UsageError(
            f"{foreign.file} fits another network: it has {some(sorted(tensors), most=3)}, expected "
            f"{some(sorted(names), most=3)}"
        )
    prefix = max(counts, key=lambda one: (counts[one], -len(one)))
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}, prefix


def _file(path: Path) -> Path:
    if path.is_file():
        if not (path.name in _FILES or path.suffix.lower() in _SUFFIXES):
            raise UsageError(f"{path} is no checkpoint: expected a name that ends in {', '.join(_SUFFIXES)}")
        return path
    if not path.is_dir():
        raise UsageError(f"there is no {path}: expected a checkpoint file or a folder that holds one")
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    found = sorted(one for one in path.rglob("*") if one.is_file() and one.suffix.lower() in (*_SUFFIXES[:5], ".tar"))
    last = [one for one in found if one.name.startswith("last.")]
    if len(found) == 1 or len(last) == 1:
        return (last or found)[0]
    if found:
        raise UsageError(f"{path} holds several checkpoints; give one of {some([str(one) for one in found], most=5)}")
    raise UsageError(f"{path} holds no checkpoint: expected {', '.join(_FILES)} or one file {', '.join(_SUFFIXES)}")


def _shards(index: Path) -> list[Path]:
    """The files of an index. Errors: IntegrityError for one that is broken, names a file elsewhere or an absent one."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"{index} is not an index of shards: {error!r}") from None
    if strange := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise IntegrityError(f"{index} names {strange[0]!r}, expected a file beside it")
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise IntegrityError(f"{index} names {some(absent)}, which is not there")
    return [index.parent / name for name in names]


def _unpickled(file: Path) -> Any:
    """What a pickle holds, with a stand-in for each class and function that is not of a tensor or a plain container."""
    known: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(argparse.Namespace, "argparse.Namespace")]
    known.append((_plain_dict, "collections.defaultdict"))
    try:
        with torch.serialization.safe_globals(known):
            # What torch wrote before its files were zip archives is read without stand-ins.
            asked = torch.serialization.get_unsafe_globals_in_checkpoint(file) if is_zipfile(file) else []
        with torch.serialization.safe_globals([*known, *((_stand_in(name), name) for name in asked)]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged bytes raise whatever the unpickler happens to stumble over.
        words = re.search(r"(?:WeightsUnpickler error:|Trying to load)\s.*", str(error))
        said = words.group() if words else first_line(error)
        raise IntegrityError(
            f"{file} cannot be read as weights alone ({said[:200]}); nothing else in a pickle is read. Save "
            "the state dict by itself, as safetensors"
        ) from None


class _StandIn(type):
    """The type of the classes that take another's place. One that is called gives an object that ignores its state.
    One that is made anew gives a dict: a file fills its own kinds of dict, and torch lets it fill plain ones alone."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)  # type: ignore[arg-type]


def _stand_in(name: str) -> _StandIn:
    def ignore(self: Any, state: Any) -> None: ...

    def make(cls: type, *_: Any) -> OrderedDict[Any, Any]:
        return OrderedDict()

    return _StandIn(name, (), {"__new__": make, "__setstate__": ignore})


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _weights_in(held: Mapping[Any, Any], entry: str | None, file: Path) -> tuple[str, dict[str, Tensor]]:
    """The entry that holds weights and its tensors; "" for the whole. Errors: UsageError."""
    usual = [name for name in _ENTRIES if name in held and _tensors(held[name])]
    if entry is not None:
        if entry not in held or not (tensors := _tensors(held[entry])):
            raise UsageError(
                f"{file} has no weights under {entry!r}: it has {some(usual) or 'none under a usual name'}"
            )
        return entry, tensors
    if usual:
        return usual[0], _tensors(held[usual[0]])
    if tensors := _tensors(held):
        return "", tensors
    named = some([str(name) for name in held], most=8)
    raise UsageError(f"{file} has no weights under a usual name ({', '.join(_ENTRIES)}); it has {named}: give --entry")


def _tensors(held: Any) -> dict[str, Tensor]:
    """The tensors of a mapping by name, none where it is something else."""
    if not isinstance(held, Mapping):
        return {}
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _tidy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors can hold them: contiguous, on the CPU, no memory shared. Errors: UsageError for a tensor that has
    no plain form."""
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UsageError(
                f"{name} is a {'quantized' if tensor.is_quantized else tensor.layout} tensor, expected a plain one"
            )
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
