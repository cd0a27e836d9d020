"""A recipe's network, by name: timm's, `hf:` transformers', `torchvision:`'s, or a video network. Plain, without VCReg.

And two questions that are asked of any of them: its logits, and the features that enter its classifier.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..checkpoints.find import Weights, resolve
from ..checkpoints.load import load_file, load_tensors
from ..config import Model
from ..errors import ConfigError, UsageError, WeightsNotFoundError, unknown_name
from ..placement.sites import Site, find_blocks
from . import huggingface, zoo
from .video_networks import NETWORKS

_NOT_KWARGS = {
    **dict.fromkeys(("num_classes", "in_chans", "num_labels", "num_channels"), "the data decide it"),
    "vcreg": "the recipe has a field of that name beside the model",
}


def build_model(
    cfg: Model, *, num_classes: int, in_chans: int, image_size: int, frames: int | None = None
) -> nn.Module:
    """The plain network of a recipe for images (n, in_chans, image_size, image_size), in training mode.

    A name of `video_networks.NETWORKS` takes clips (n, frames, in_chans, image_size, image_size) instead, and so does
    an `hf:` name with `frames`, which is then one of transformers' video classifiers. frames: of a clip; None for a
    video network's own number.

    A `*_vcreg` name is the stock architecture, and `pretrained=True` its VCReg weights: whether this run regularizes is
    said by the recipe's `vcreg`, not by the name. `pretrained` may also be a folder (a run's, or an exported one), a
    safetensors file, `<name>_vcreg.<tag>`, or a Hub id, `hf-hub:` before it or not. A classifier for another number of
    classes is replaced by a fresh one; every other tensor must fit.

    Errors: UnknownNameError, ConfigError for arguments the constructor does not take, UsageError that names the tensors
    that do not fit, WeightsNotFoundError, and UsageError for pickled weights.
    """
    for name in _NOT_KWARGS.keys() & cfg.kwargs.keys():
        raise ConfigError(f"model.kwargs.{name}: {_NOT_KWARGS[name]}; leave it out")
    kind, name = kind_of(cfg.name)
    build = _KINDS.get(kind)
    if build is None:
        raise unknown_name("kind of model", kind, ("hf", "torchvision"), "A name without ':' is timm's.")
    cfg = dataclasses.replace(cfg, name=name)
    if frames is not None:
        return _clip_classifier(kind, cfg, num_classes, in_chans, image_size, frames)
    return build(cfg, num_classes, in_chans, image_size).train()


def kind_of(name: str) -> tuple[str, str]:
    """Whose network a recipe's model is, "timm", "hf", "torchvision" or "video", and its name there."""
    kind, colon, rest = name.partition(":")
    if colon:
        return kind, rest
    return "video" if name in NETWORKS else "timm", name


def logits(output: Any) -> Tensor:
    """The logits (n, classes) in what a network returned: a tensor, a transformers ModelOutput, or a tuple of them."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise UsageError(f"a {type(output).__name__} holds no logits: expected a tensor, or an output with .logits")


_CLASSIFIERS: weakref.WeakKeyDictionary[nn.Module, list[Site]] = weakref.WeakKeyDictionary()


def features(model: nn.Module, x: Tensor) -> Tensor:
    """What enters the classifier, (n, d), for images x (n, c, h, w): the place that `where="final"` regularizes.

    Positions are averaged where the classifier sees a map; two classifiers' inputs are put side by side. Call it in
    evaluation mode, or dropout before the classifier is part of it. Errors: BlocksNotFoundError without a classifier.
    """
    found = _captured(model, x, _CLASSIFIERS.get(model, []))
    if not found:  # a first call, or the classifier has been replaced since
        _CLASSIFIERS[model] = find_blocks(model, "final", x[:1])
        found = _captured(model, x, _CLASSIFIERS[model])
    return torch.cat(found, dim=1)


def _captured(model: nn.Module, x: Tensor, sites: list[Site]) -> list[Tensor]:
    """The inputs of `sites` in one forward pass, each (n, d); empty when none of them is called."""
    found: dict[str, Tensor] = {}

    def keep(site: Site) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].movedim(site.channel_axis, -1)
            found[site.name] = rows.flatten(1, -2).mean(1) if rows.ndim > 2 else rows

        return hook

    handles = [site.module.register_forward_pre_hook(keep(site)) for site in sites]
    try:
        if handles:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return [found[site.name] for site in sites if site.name in found]


def _timm(cfg: Model, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    architecture = cfg.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name("model", cfg.name, [*timm.list_models(), *NETWORKS])
    arguments = timm_arguments(cfg, num_classes, in_chans, image_size)
    if architecture.endswith(zoo.SUFFIX):
        arguments["vcreg"] = False
    weights = resolve(cfg.pretrained) if isinstance(cfg.pretrained, str) else None
    if weights is not None and weights.library != "timm":
        raise _other_library(weights, "timm", cfg.name)
    model = _constructed(cfg, lambda: timm.create_model(cfg.name, pretrained=cfg.pretrained is True, **arguments))
    return model if weights is None else _filled(model, weights, in_chans, image_size)


def timm_arguments(cfg: Model, num_classes: int, in_chans: int, image_size: int) -> dict[str, Any]:
    """The keyword arguments a recipe's timm network is created with; `img_size` where the network is built for one."""
    arguments = {"num_classes": num_classes, "in_chans": in_chans, **cfg.kwargs}
    config = timm.get_pretrained_cfg(cfg.name.partition(".")[0])
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    return arguments


def _transformers(cfg: Model, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    from transformers import AutoModelForImageClassification as Auto

    config = huggingface.load_config(cfg.name)
    sizes = {"num_channels": in_chans, "image_size": image_size}
    huggingface.change_config(config, {name: value for name, value in sizes.items() if hasattr(config, name)})
    huggingface.change_config(config, cfg.kwargs)
    huggingface.set_classes(config, num_classes)
    if not cfg.pretrained:
        return _constructed(cfg, lambda: huggingface.build_classifier(Auto, config, cfg.name))
    if cfg.pretrained is True:
        if cfg.name.endswith(".json"):
            raise WeightsNotFoundError(
                f"{cfg.name} is a configuration without weights: give pretrained a folder or Hub id"
            )
        return huggingface.load_classifier(Auto, cfg.name, config)
    if _is_native(cfg.pretrained):
        return huggingface.load_classifier(Auto, cfg.pretrained, config)
    weights = resolve(cfg.pretrained)
    if weights.config is not None and weights.library != "transformers":
        raise _other_library(weights, "transformers", cfg.name)
    model = _constructed(cfg, lambda: huggingface.build_classifier(Auto, config, cfg.name))
    return _filled(model, weights, in_chans, image_size)


def _torchvision(cfg: Model, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if cfg.name not in known:
        raise unknown_name("torchvision model", cfg.name, known)
    sized = {"image_size": image_size} if cfg.name.startswith("vit_") else {}
    arguments = {"num_classes": num_classes, **sized, **cfg.kwargs}
    model = _constructed(cfg, lambda: models.get_model(cfg.name, weights=None, **arguments))
    if in_chans != 3:
        _replace_first_convolution(model, in_chans)
    if isinstance(cfg.pretrained, str):
        return _filled(model, resolve(cfg.pretrained), in_chans, image_size)
    if cfg.pretrained:
        tensors = models.get_model_weights(cfg.name).DEFAULT.get_state_dict(progress=False, check_hash=True)
        load_tensors(model, tensors, heads=_heads(model, in_chans, image_size), origin=f"torchvision's {cfg.name}")
    return model


def _video(cfg: Model, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    from .video import build

    return build(cfg, num_classes, in_chans, image_size)


def _clip_classifier(kind: str, cfg: Model, num_classes: int, in_chans: int, image_size: int, frames: int) -> nn.Module:
    from . import video

    if kind not in ("video", "hf"):
        raise UsageError(
            f"{cfg.name} takes images: for clips model.name is one of {', '.join(NETWORKS)}, or hf:<id or folder>"
        )
    return (video.build if kind == "video" else video.build_any)(cfg, num_classes, in_chans, image_size, frames)


_KINDS: dict[str, Callable[[Model, int, int, int], nn.Module]] = {
    "timm": _timm,
    "hf": _transformers,
    "torchvision": _torchvision,
    "video": _video,
}


def _constructed(cfg: Model, construct: Callable[[], nn.Module]) -> nn.Module:
    """The network, with what its library says about bad arguments as a ConfigError."""
    try:
        return construct()
    except (TypeError, AssertionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise ConfigError(f"{cfg.name} cannot be built with {cfg.kwargs} for these images: {error}") from error


def _filled(model: nn.Module, weights: Weights, in_chans: int, image_size: int) -> nn.Module:
    load_file(model, weights.file, heads=_heads(model, in_chans, image_size), origin=weights.origin)
    return model


def _heads(model: nn.Module, in_chans: int, image_size: int) -> list[str]:
    """Names of the classifiers."""
    return [site.name for site in find_blocks(model, "final", torch.zeros(1, in_chans, image_size, image_size))]


def _other_library(weights: Weights, wanted: str, name: str) -> UsageError:
    cure = {
        "timm": "a timm architecture",
        "transformers": "hf:<the same folder or id>",
        "torchvision": f"torchvision:{(weights.config or {}).get('architecture')}",
    }[weights.library]
    return UsageError(f"{weights.origin} holds weights for {weights.library}, but {name} is {wanted}'s; use {cure}")


def _is_native(source: str) -> bool:
    """Whether transformers itself should read `source`: a folder it wrote, or a Hub id, not a run folder or file."""
    path = Path(source).expanduser()
    if path.exists():
        return path.is_dir() and (path / "config.json").is_file()
    return not source.partition(".")[0].endswith(zoo.SUFFIX) and path.suffix != ".safetensors"


def _replace_first_convolution(model: nn.Module, in_chans: int) -> None:
    """torchvision's networks take three channels; the same first layer for `in_chans`, drawn as torch draws it."""
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, leaf = name.rpartition(".")
    shape: dict[str, Any] = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    new = nn.Conv2d(in_chans, old.out_channels, bias=old.bias is not None, **shape)
    setattr(model.get_submodule(parent), leaf, new)
