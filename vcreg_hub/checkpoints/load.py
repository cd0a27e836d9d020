"""Loads a safetensors file into a network: each tensor is accounted for, or an error names the others.

timm loads without checking names when the class counts differ (`strict=False`), and a file in which no name matches
then leaves a random network behind. Here only the classifier may be left out, and the first convolution adapted.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IntegrityError, UsageError, some
from ..files import read_tensors, weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar")
_CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "save_file({k: v.clone() for k, v in torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()}, "
    'sys.argv[2])" {} model.safetensors'
)

# Arguments of a library's constructor by which it would read weights, or code, from somewhere else.
_OTHER_SOURCES = frozenset(
    """
    checkpoint_path pretrained pretrained_cfg pretrained_cfg_overlay pretrained_custom_load pretrained_filter_fn
    pretrained_model_args pretrained_strict cache_dir weights weights_backbone weights_only
    auto_map attn_implementation experts_implementation name_or_path quantization_config trust_remote_code use_kernels
    """.split()
)

Shapes = Mapping[str, tuple[int, ...]]


def refuse_pickle(path: str | Path) -> None:
    """UsageError for a file with a pickle's name: reading one runs whatever code its author put there."""
    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise UsageError(
            f"{path.name} is a pickle, which can run code when it is read; only safetensors are loaded. To convert "
            f"one that you trust: {_CONVERT.replace('{}', path.name)}"
        )


def refuse_other_sources(arguments: object, where: str) -> None:
    """UsageError for an argument of a network that names weights or code: pickles would be read, or code run, that
    `pretrained` refuses. where: the place of the arguments, for the message."""
    for name in arguments if isinstance(arguments, Mapping) else ():
        if name in _OTHER_SOURCES or str(name).startswith("_"):
            raise UsageError(f"{where}.{name}: weights are named by `pretrained` alone, and code never; leave it out")


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file or index, read from the headers. Errors: IntegrityError."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for part in weight_files(path):
        try:
            with safe_open(part, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise IntegrityError(f"{part} is not a whole safetensors file: {error}") from None
    return shapes


def load_file(model: nn.Module, path: str | Path, *, heads: Collection[str] = (), origin: str = "") -> list[str]:
    """Load a safetensors file into `model` in place; `load_tensors` says how strictly."""
    refuse_pickle(path)
    return load_tensors(model, read_tensors(path), heads=heads, origin=origin or str(path))


def load_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], *, heads: Collection[str] = (), origin: str
) -> list[str]:
    """Load `tensors` into `model` in place, and return the heads left as they are.

    heads: dotted names of classifiers; one that is absent from `tensors` or has another shape there stays fresh.
    A first convolution for another number of input channels is adapted as timm does. Where timm's own file for the
    architecture knows how to convert a checkpoint (older names, another image size), that is used.
    Errors: UsageError that names the tensors that are missing, unexpected or of another shape.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = _input_adapted(dict(tensors), own)
    if _complaints(own, _shapes_of(tensors), _fresh(own, _shapes_of(tensors), heads)):
        tensors = _input_adapted(_converted_by_timm(tensors, model), own)
    given = _shapes_of(tensors)
    fresh = _fresh(own, given, heads)
    if complaints := _complaints(own, given, fresh):
        raise UsageError(f"the weights of {origin} do not fit {type(model).__name__}: {'; '.join(complaints)}")
    kept = {name: tensor for name, tensor in tensors.items() if not _inside(name, fresh)}
    model.load_state_dict(kept, strict=not fresh)
    return fresh


def check_names(own: Shapes, given: Shapes, *, heads: Collection[str] = (), origin: str) -> None:
    """UsageError unless the two agree in every name and shape outside `heads`."""
    if complaints := _complaints(own, given, list(heads)):
        raise UsageError(f"the weights of {origin} do not fit its own architecture: {'; '.join(complaints)}")


def _shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _inside(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _fresh(own: Shapes, given: Shapes, heads: Collection[str]) -> list[str]:
    """The heads of which at least one tensor is absent from `given` or has another shape there."""
    return [
        head
        for head in heads
        if any(given.get(name) != shape for name, shape in own.items() if name.startswith(f"{head}."))
        or any(name not in own for name in given if name.startswith(f"{head}."))
    ]


def _complaints(own: Shapes, given: Shapes, fresh: Collection[str]) -> list[str]:
    own = {name: shape for name, shape in own.items() if not _inside(name, fresh)}
    given = {name: shape for name, shape in given.items() if not _inside(name, fresh)}
    other = [f"{n} is {given[n]}, expected {own[n]}" for n in own if n in given and given[n] != own[n]]
    kinds = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "of another shape": other,
    }
    return [f"{len(names)} {kind} ({some(names, most=4)})" for kind, names in kinds.items() if names]


def _input_adapted(tensors: dict[str, Tensor], own: Shapes) -> dict[str, Tensor]:
    """The first convolution's weight (o, i, h, w) for as many input channels as the model has, repeated and rescaled.

    One channel takes the sum: what a grey image copied to all channels would give.
    """
    first = next((name for name, shape in own.items() if len(shape) == 4), None)
    if first is None or first not in tensors or tensors[first].ndim != 4:
        return tensors
    weight, wanted = tensors[first], own[first][1]
    has = weight.shape[1]
    if has == wanted or (weight.shape[0], *weight.shape[2:]) != (own[first][0], *own[first][2:]):
        return tensors
    repeated = weight.float().repeat(1, -(-wanted // has), 1, 1)[:, :wanted] * (has / wanted)
    adapted = weight.float().sum(1, keepdim=True) if wanted == 1 else repeated
    return {**tensors, first: adapted.to(weight.dtype)}


def _converted_by_timm(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """By convention a timm model file has `checkpoint_filter_fn`; where it has none the tensors stay as they are."""
    module = sys.modules.get(type(model).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None) if module and module.__name__.startswith("timm.") else None
    if convert is None:
        return tensors
    try:
        return dict(convert(dict(tensors), model))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, AssertionError):
        # It was written for checkpoints it knows; for another, what the tensors are called says more than its failure.
        return tensors
