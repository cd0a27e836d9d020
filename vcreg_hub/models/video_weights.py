"""Weights into video networks, from wherever they are: transformers' checkpoints, run folders, original
`.pth` files.

Every tensor but the head must fit, and what identifies an architecture must agree, or an error names what
does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.find import find_weights, resolve
from ..checkpoints.load import load_tensors, tensor_shapes
from ..errors import IntegrityError, UsageError, WeightsNotFoundError
from ..files import read_tensors, weight_files
from . import native
from .head import classes_in_config, classes_in_folder
from .video_networks import NETWORKS, classifier_of, expected_config, fresh_classifier, native_config
from .videomae_original import read_pth, settings_of, to_native

# What identifies an architecture: a checkpoint that differs in one of these is another one.
_IDENTITY = ("hidden_size", "num_hidden_layers", "intermediate_size")
_logger = logging.getLogger("vcreg_hub")


@dataclass(frozen=True)
class Loaded:
    """A classifier with weights. classes: those of the weights' training, if stated."""

    model: nn.Module
    fresh_head: bool
    classes: tuple[str, ...] | None = None


def load_weights(name: str, source: str, num_classes: int | None, settings: Mapping[str, Any]) -> Loaded:
    """The classifier `name` with the weights at `source`.

    `models/video.py` says what a source may be, and which errors to expect.
    """
    if Path(source).suffix in (".pth", ".pt"):
        return _from_original(name, source, num_classes, settings)
    if (readable := _native_source(source)) is not None:
        return _from_native(name, readable, num_classes, settings)
    return _from_tensors(name, source, num_classes, settings)


def _from_original(name: str, source: str, num_classes: int | None, settings: Mapping[str, Any]) -> Loaded:
    network = NETWORKS[name]
    if network.model_type != "videomae":
        raise UsageError(
            f"{source} is a checkpoint of the original VideoMAE code, but {name} is a {network.model_type}"
        )
    tensors = read_pth(source)
    found = {"num_frames": network.frames, **settings_of(tensors), **settings}
    config = native_config("videomae", found, _classes_in(tensors, num_classes))
    _refuse_other(name, expected_config(name, settings), config, source)
    return _native_of(tensors, config, source)


def _classes_in(tensors: Mapping[str, Tensor], asked: int | None) -> int:
    """How many classes to build for an original checkpoint. Errors: UsageError when neither says."""
    if asked is not None:
        return asked
    if "head.weight" not in tensors:
        raise UsageError("the checkpoint has no classifier: say num_classes")
    return tensors["head.weight"].shape[0]


def _native_of(tensors: dict[str, Tensor], config: Any, origin: str) -> Loaded:
    """The native classifier with an original checkpoint's tensors."""
    model = classifier_of(config, origin)
    heads = ["classifier"] + (["fc_norm"] if "fc_norm.weight" not in tensors else [])
    fresh = load_tensors(model, to_native(tensors), heads=heads, origin=origin)
    return Loaded(model, "classifier" in fresh)


def _native_source(source: str) -> str | None:
    """`source` where transformers reads it: a folder with config.json or a Hub id, also of a release; else
    None."""
    path = Path(source).expanduser()
    if path.exists():
        # transformers writes some tensors under other names than they have in memory: its files are read by itself.
        folder = path.parent if path.name == "model.safetensors" else path
        return str(folder) if (folder / "config.json").is_file() else None
    if path.suffix == ".safetensors":
        return None
    if source.count("/") > 1 or source.startswith((".", "/", "~")):  # what no Hub id looks like
        raise WeightsNotFoundError(f"there are no weights at {source}: no such folder or file")
    if "/" not in source and source.partition(".")[0].endswith("_vcreg"):
        return str(find_weights(source).folder)
    return source


def _from_native(name: str, source: str, num_classes: int | None, settings: Mapping[str, Any]) -> Loaded:
    from transformers import AutoModelForVideoClassification

    network = NETWORKS[name]
    config = native.load_config(source)
    folder = Path(source)
    classes = classes_in_folder(folder) if folder.is_dir() else classes_in_config(config.to_dict())
    if config.model_type != network.model_type:
        raise UsageError(
            f"{source} is a {config.model_type!r}, but {name} is a {network.model_type!r}{_as_it_is(source)}"
        )
    expected = expected_config(name, settings)
    _refuse_other(name, expected, config, source, _as_it_is(source))
    for key, value in settings.items():
        setattr(config, key, value)
    # A wrong number of heads fits every tensor and gives other numbers: what is known of the architecture
    # decides.
    if config.num_attention_heads != expected.num_attention_heads:
        _logger.warning(
            "%s says %d attention heads, %s has %d: that is used",
            source,
            config.num_attention_heads,
            name,
            expected.num_attention_heads,
        )
        config.num_attention_heads = expected.num_attention_heads
    fresh_head = num_classes is not None and num_classes != config.num_labels
    if fresh_head:
        native.set_classes(config, num_classes or 0)
    if getattr(config, "use_mean_pooling", True):
        model = native.load_classifier(AutoModelForVideoClassification, source, config)
    else:
        model, fresh_head = _pooling(config, source), True
    _check_biases(model, source)
    return Loaded(model, fresh_head, classes)


def _pooling(config: Any, source: str) -> nn.Module:
    """A classifier that pools over all tokens, from a checkpoint that does not: of self-supervised
    pretraining. VideoMAE has no class token, so without pooling its head would read an ordinary patch."""
    from transformers import AutoModelForVideoClassification

    loaded = native.load_classifier(AutoModelForVideoClassification, source, config)
    tensors = {name: value for name, value in loaded.state_dict().items() if not name.startswith("videomae.layernorm.")}
    config.use_mean_pooling = True
    model = classifier_of(config, source)
    kept = {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    load_tensors(model, kept, heads=["classifier", "fc_norm"], origin=source)
    return model


def _from_tensors(name: str, source: str, num_classes: int | None, settings: Mapping[str, Any]) -> Loaded:
    """A run folder or a safetensors file: the tensors as they are in memory."""
    weights = resolve(source)
    if num_classes is None:
        num_classes = tensor_shapes(weights.file).get("classifier.weight", (400,))[0]
    model = fresh_classifier(name, num_classes, settings)
    fresh = load_tensors(model, read_tensors(weights.file), heads=["classifier"], origin=weights.origin)
    classes = classes_in_folder(weights.folder)
    if not fresh:
        native.set_classes(model.config, num_classes, classes)
    return Loaded(model, bool(fresh), classes)


def _as_it_is(source: str) -> str:
    """How a recipe takes a network that transformers reads, whatever its architecture."""
    return f"; --set {quote(f'model.name=hf:{source}')} takes the network that is there"


def _refuse_other(name: str, expected: Any, config: Any, source: str, cure: str = "") -> None:
    """UsageError naming what differs between the architecture asked for and the checkpoint's."""
    different = [
        f"{key} {getattr(config, key)} instead of {getattr(expected, key)}"
        for key in _IDENTITY
        if getattr(config, key) != getattr(expected, key)
    ]
    if different:
        raise UsageError(f"{source} is not a {name}: it has {', '.join(different)}{cure}")


def _check_biases(model: nn.Module, source: str) -> None:
    """Some versions of transformers 5 loaded VideoMAE's query and value biases as zeros and said nothing:
    compare them with the file. Errors: IntegrityError."""
    config: Any = model.config
    if config.model_type != "videomae" or not config.qv_bias:
        return
    import transformers

    state = model.state_dict()
    for name, value in _biases(resolve(native.local_copy(source, "weights")).file):
        own = name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")
        own = own if own.startswith("videomae.") else f"videomae.{own}"
        if own in state and not torch.equal(state[own], value.to(state[own])):
            raise IntegrityError(
                f"transformers {transformers.__version__} loaded {own} of {source} with other values than the file "
                "has; install 5.18 or later"
            )


def _biases(weights: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and values of the biases of queries and values."""
    from safetensors import safe_open

    for part in weight_files(weights):
        with safe_open(part, framework="pt") as file:
            for name in file.keys():
                if name.endswith((".attention.q_bias", ".attention.v_bias", ".query.bias", ".value.bias")):
                    yield name, file.get_tensor(name)
