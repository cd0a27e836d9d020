"""Writes a trained network as one file that runs without its library: ONNX, or a program of torch.export.

    model.onnx    for ONNX Runtime and what else reads ONNX; the preprocessing is JSON in its metadata, `preprocessing`
    model.pt2     for `torch.export.load`; the preprocessing is its extra file `preprocessing.json`

Either takes normalised pixels (n, channels, size, size), or clips (n, frames, channels, size, size), for any n, and
gives logits (n, classes). The regularizer is a matter of training and no part of it.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RunFolderError, UsageError, first_line, unknown_name
from ..files import replacing
from ..models.checkpoint import load_checkpoint
from ..models.outputs import logits

_SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
_METADATA = "preprocessing"
# Another order of float32 operations moves logits by about 1e-6 of the largest; a wrong graph by far more.
_ROUNDING = 1e-4
_BATCHES = (1, 3)
_ONNX_BYTES = 2**31 - 2**27  # one file of protobuf holds 2 GiB


@dataclass(frozen=True)
class GraphFile:
    """A written file and its check.

    difference: the largest one between its logits and the network's, as a share of the largest logit. inputs: the
    shapes of the random inputs that were compared.
    """

    path: Path
    difference: float
    inputs: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        found = "equal bit for bit" if not self.difference else f"at most {self.difference:.1e} of the largest apart"
        shapes = " and ".join(str(shape).replace(" ", "") for shape in self.inputs)
        return f"logits of the file and of the network, random inputs {shapes}: {found}"


def write_graph(source: str | Path | nn.Module, to: str | Path, form: str, *, overwrite: bool = False) -> GraphFile:
    """Write the network of `source` as the file `to`, loaded back and compared.

    source: as of `models.checkpoint.load_checkpoint`: a run, an export, a name, a module. form: `onnx` (a file .onnx;
    needs the extra `onnx`) or `torch-export` (.pt2). overwrite: replace a file that is there.
    Errors: UnknownNameError for another form; UsageError for another suffix, a file that is there, missing packages or
    a network that torch.export cannot follow; RunFolderError where the file does not compute the network's logits, and
    then nothing is written; those of `load_checkpoint`.
    """
    to = Path(to)
    _check_target(to, form, overwrite)
    checkpoint = load_checkpoint(source)
    view = checkpoint.view
    network = _Logits(checkpoint.network).cpu().eval()
    clip = () if view.frames is None else (view.frames,)
    shape = (*clip, view.in_chans, view.image_size, view.image_size)
    told = json.dumps(dataclasses.asdict(view))
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if form == "onnx" and size > _ONNX_BYTES:
        raise UsageError(
            f"{checkpoint.name} has {size / 2**30:.1f} GiB of weights, an .onnx file holds 2: torch-export"
        )
    program = _program(network, shape, checkpoint.name)
    with replacing(to) as temporary:
        # Both writers go by the suffix.
        beside = temporary.with_name(temporary.name + to.suffix)
        try:
            if form == "onnx":
                _save_onnx(program, beside, told)
            else:
                torch.export.save(program, beside, extra_files={f"{_METADATA}.json": told})
            compute = _onnx_runtime(beside) if form == "onnx" else torch.export.load(beside).module()
            difference = _difference(network, compute, shape)
            beside.replace(temporary)
        finally:
            beside.unlink(missing_ok=True)
    return GraphFile(to, difference, tuple((n, *shape) for n in _BATCHES))


class _Logits(nn.Module):
    """A network of any library with the logits for its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return logits(self.network(pixels))


def _check_target(to: Path, form: str, overwrite: bool) -> None:
    if form not in _SUFFIXES:
        raise unknown_name("format", form, ["folder", *_SUFFIXES])
    if to.suffix != _SUFFIXES[form]:
        raise UsageError(f"a file of format {form} ends in {_SUFFIXES[form]}: got {to.name!r}")
    if to.is_dir() or (to.exists() and not overwrite):
        raise UsageError(f"{to} exists already: give another file, or overwrite it (--overwrite)")
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" and find_spec(name) is None]
    if absent:
        raise UsageError(f"format onnx needs {', '.join(absent)}: pip install 'vcreg_hub[onnx]'")


def _program(network: nn.Module, shape: tuple[int, ...], name: str) -> torch.export.ExportedProgram:
    example = torch.zeros(2, *shape)  # a batch of one would be taken for a fixed size
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:
        reason = first_line(error)
        raise UsageError(f"torch.export cannot follow {name} for batches of any size: {reason}") from error


def _save_onnx(program: torch.export.ExportedProgram, file: Path, told: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter's own insides
        made: Any = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["pixels"], output_names=["logits"]
        )
    made.model.metadata_props[_METADATA] = told
    made.save(file, external_data=False)


def _onnx_runtime(file: Path) -> Any:
    """A function from pixels to logits by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.numpy()})[0])


@torch.no_grad()
def _difference(network: nn.Module, compute: Any, shape: tuple[int, ...]) -> float:
    """The largest difference of logits, as a share of the largest. RunFolderError where it is beyond rounding."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in _BATCHES:
        pixels = torch.randn(batch, *shape, generator=generator)
        expected, found = network(pixels), compute(pixels)
        same = found.shape == expected.shape
        share = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)) if same else float("inf")
        if not share <= _ROUNDING:
            raise RunFolderError(
                f"the written file does not give the network's logits: shape {tuple(found.shape)}, expected "
                f"{tuple(expected.shape)}; {share:.1e} of the largest apart, allowed {_ROUNDING}. Nothing was exported"
            )
        worst = max(worst, share)
    return worst
