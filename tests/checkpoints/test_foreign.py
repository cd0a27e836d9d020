"""Other programs' checkpoints are read for their tensors alone, whatever else they hold."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import json
import pathlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vcreg_hub.checkpoints.foreign import matched, read_foreign
from vcreg_hub.errors import IntegrityError, UsageError

TENSORS = {"fc.weight": torch.arange(6.0).view(3, 2).t(), "fc.bias": torch.ones(2)}


class Setting:
    def __init__(self) -> None:
        self.rate = 0.1


class Settings(dict):
    pass


class Kind(enum.Enum):
    one = 1


class Trap:
    """Code that a plain unpickler would run."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (self.code,)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in found)


def test_a_checkpoint_of_timms_train_py(tmp_path):
    """The averaged weights, with the arguments beside them and all the rest that such a file holds."""
    arguments = argparse.Namespace(model="resnet18", mean=[0.5, 0.5, 0.5], out=pathlib.Path("x"), lr=np.float64(0.1))
    held = {
        "epoch": 7, "arch": "resnet", "state_dict": {"fc.weight": torch.zeros(2, 3)}, "state_dict_ema": dict(TENSORS),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "args": arguments, "metric": 71.5, "version": 2,
    }  # fmt: skip
    torch.save(held, tmp_path / "last.pth.tar")
    found = read_foreign(tmp_path / "last.pth.tar")
    assert same(found.tensors) and found.entry == "state_dict_ema" and found.facts == {"epoch": 7, "metric": 71.5}
    assert found.arguments["model"] == "resnet18" and found.arguments["mean"] == [0.5, 0.5, 0.5]
    assert all(tensor.is_contiguous() for tensor in found.tensors.values())
    assert read_foreign(tmp_path / "last.pth.tar", "state_dict").tensors["fc.weight"].shape == (2, 3)
    with pytest.raises(UsageError, match="no weights under 'model'"):
        read_foreign(tmp_path / "last.pth.tar", "model")


def test_what_else_a_file_holds_is_neither_needed_nor_run(tmp_path):
    trace = tmp_path / "ran"
    held = {
        "state_dict": {f"model.{name}": tensor for name, tensor in TENSORS.items()}, "hyper_parameters": Settings(a=1),
        "callbacks": {"kind": Kind.one, "set": Setting(), "many": collections.defaultdict(list, {1: [2]})},
        "numbers": np.zeros(3), "partial": functools.partial(print, 1), "trap": Trap(f"open({str(trace)!r}, 'w')"),
    }  # fmt: skip
    torch.save(held, tmp_path / "last.ckpt")
    found = read_foreign(tmp_path / "last.ckpt")
    tensors, prefix = matched(found, TENSORS)
    assert same(tensors) and prefix == "model." and not trace.exists()


@pytest.mark.parametrize("new", [True, False])
def test_a_bare_state_dict(tmp_path, new):
    torch.save(TENSORS, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    assert same(read_foreign(tmp_path / "net.pth").tensors)


def test_a_module_that_runs_commands_is_refused_by_name(tmp_path):
    class System:
        def __reduce__(self):
            import os

            return os.system, ("true",)

    torch.save({"state_dict": TENSORS, "x": System()}, tmp_path / "net.pth")
    with pytest.raises(IntegrityError, match=r"system.*blocked.*as safetensors"):
        read_foreign(tmp_path / "net.pth")


def test_folders_whole_or_in_shards(tmp_path):
    names = list(TENSORS)
    shards = {name: f"model-{i}.safetensors" for i, name in enumerate(names)}
    for name, file in shards.items():
        save_file({name: TENSORS[name].contiguous()}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    assert same(read_foreign(tmp_path).tensors)
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}), encoding="utf-8")
    with pytest.raises(IntegrityError, match="expected a file beside it"):
        read_foreign(tmp_path)
    save_file({name: t.contiguous() for name, t in TENSORS.items()}, tmp_path / "model.safetensors")
    assert same(read_foreign(tmp_path).tensors), "a whole file comes before an index"


def test_a_lightning_folder_has_its_last_checkpoint(tmp_path):
    folder = tmp_path / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("epoch=1.ckpt", "epoch=2.ckpt"):
        torch.save({"state_dict": {"fc.bias": torch.zeros(2)}}, folder / name)
    with pytest.raises(UsageError, match="several checkpoints"):
        read_foreign(tmp_path)
    torch.save({"state_dict": TENSORS}, folder / "last.ckpt")
    assert same(read_foreign(tmp_path).tensors)


def test_prefixes_of_wrappers_are_taken_off_and_other_tensors_left(tmp_path):
    wrapped = {f"module._orig_mod.net.{name}": t.contiguous() for name, t in TENSORS.items()}
    save_file({**wrapped, "module._orig_mod.loss.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    tensors, prefix = matched(read_foreign(tmp_path), TENSORS)
    assert same(tensors) and prefix == "module.net."
    with pytest.raises(UsageError, match="another network"):
        matched(read_foreign(tmp_path), {"head.kernel": torch.ones(1)})


@pytest.mark.parametrize(
    ("write", "error", "said"),
    [
        (lambda file: file.write_bytes(b"\x80\x02nothing"), IntegrityError, "cannot be read as weights"),
        (lambda file: torch.save([1, 2], file), UsageError, "holds a list"),
        (lambda file: torch.save({"epoch": 3}, file), UsageError, "it has epoch"),
    ],
)
def test_a_file_without_weights_says_what_it_is(tmp_path, write, error, said):
    write(tmp_path / "net.pth")
    with pytest.raises(error, match=said):
        read_foreign(tmp_path / "net.pth")


def test_a_path_of_nothing_and_another_kind_of_file(tmp_path):
    Path(tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    for path, said in (
        (tmp_path / "no", "there is no"),
        (tmp_path / "notes.txt", "is no checkpoint"),
        (tmp_path, "no checkpoint"),
    ):
        with pytest.raises(UsageError, match=said):
            read_foreign(path)
