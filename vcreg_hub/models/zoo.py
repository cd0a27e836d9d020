"""timm's names with VCReg: `<architecture>_vcreg` builds the stock network and attaches the regularizer to its blocks.

Importing this module registers the names of `releases.py` through timm's public registry; `register_model` adds any
other. Every name delegates to the stock entry point, so that the network, its state dict and what is exported are
those of the stock architecture.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import timm
import torch
from timm.layers import is_scriptable
from timm.models import (
    PretrainedCfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    is_model,
    is_model_in_modules,
    list_modules,
    split_model_name_tag,
)
from timm.models import register_model as _register_with_timm
from torch import nn

from ..checkpoints.find import Weights, check_class_count, find_weights
from ..checkpoints.load import check_names, tensor_shapes
from ..checkpoints.locations import PACKAGED
from ..errors import UnknownNameError, UsageError, WeightsNotFoundError, unknown_name
from ..regularizer.attachment import attach
from ..regularizer.vcreg import Regularizer, checked_vcreg
from ..releases import CONFIG, RELEASES, WEIGHTS, releases_of
from . import cifar, mlp  # noqa: F401  (register resnet32_cifar and mlp, our own architectures)

SUFFIX = "_vcreg"
# What a stock configuration says of somebody's weights; none of it is true of ours.
_OF_OTHER_WEIGHTS = (
    "url file state_dict hf_hub_id hf_hub_filename source tag custom_load test_input_size test_crop_pct test_pool_size "
    "label_offset label_names label_descriptions license description origin_url paper_name paper_ids notes"
).split()
_SOURCES = ("url", "file", "state_dict", "hf_hub_id")


class _UnregisteredError(UnknownNameError, RuntimeError):
    """The name of one of timm's architectures with VCReg that nobody registered. RuntimeError is what timm raises."""


def register_model(architecture: str) -> str:
    """Register `<architecture>_vcreg` with timm, for any of timm's architectures; returns that name.

    Registering a name again changes nothing. Errors: UnknownNameError that names the nearest architectures.

    >>> register_model("swin_tiny_patch4_window7_224")
    'swin_tiny_patch4_window7_224_vcreg'
    """
    bare, tag = split_model_name_tag(architecture)
    if bare.endswith(SUFFIX) and is_model(bare):
        return bare
    if not is_model(bare):
        raise unknown_name("timm architecture", architecture, timm.list_models())
    if tag:
        raise UsageError(f"register_model takes an architecture without a tag: {bare!r}, not {architecture!r}")
    name = bare + SUFFIX
    if not is_model(name):
        family = _family(bare)
        vars(family)["default_cfgs"].update(generate_default_cfgs(dict(_configurations(bare, name))))
        entry_point = _entry_point(bare, name)
        entry_point.__module__ = family.__name__
        setattr(family, name, entry_point)
        _register_with_timm(entry_point)
    return name


def _family(architecture: str) -> ModuleType:
    """The module that holds the names of an architecture's family.

    timm lists a name under the last part of its module's name, and reads there, in `default_cfgs`, the configuration
    of `<name>.<tag>`. So `list_models(module="resnet")` has our names beside the stock ones.
    """
    name = f"{__name__}.{next(module for module in list_modules() if is_model_in_modules(architecture, module))}"
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name, "timm's names of one family with VCReg.")
        vars(sys.modules[name]).update(default_cfgs={}, __all__=[])
    return sys.modules[name]


def _known_to_timm(name: str) -> bool:
    """`timm.is_model`, as `create_model` asks it, with an answer to `<architecture>_vcreg` that nobody registered."""
    bare = name.partition(".")[0]
    architecture = bare.removesuffix(SUFFIX)
    if not is_model(bare) and architecture != bare and is_model(architecture):
        raise _UnregisteredError(
            f"{bare} is not registered with timm: call vcreg_hub.register_model({architecture!r}) first, "
            f"then timm.create_model({name!r})"
        )
    return is_model(bare)


def _configurations(architecture: str, name: str) -> dict[str, PretrainedCfg]:
    """A configuration for each release of `name`, or one without a tag: the stock facts about the architecture."""
    stock = get_pretrained_cfg(architecture, allow_unregistered=True) or PretrainedCfg()
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(PretrainedCfg)}
    own = dataclasses.replace(stock, **{key: defaults[key] for key in _OF_OTHER_WEIGHTS if key in defaults})
    rows = {row.full_name: _with_packaged_weights(own, row.full_name) for row in releases_of(name)}
    if not any(config.has_weights for config in rows.values()):
        return rows or {name: own}
    # Weights say their own channels and classes, and a bare name is the stock network: timm takes the first for it.
    return {name: dataclasses.replace(own, file=next(c.file for c in rows.values() if c.file)), **rows}


def _with_packaged_weights(config: PretrainedCfg, full_name: str) -> PretrainedCfg:
    """The configuration of weights that this package carries, so that timm lists the name as pretrained; of others
    `config` itself."""
    folder = PACKAGED / full_name
    if not (folder / WEIGHTS).is_file():
        return config
    stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["pretrained_cfg"]
    known = {field.name for field in dataclasses.fields(PretrainedCfg)}
    facts: Any = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stated.items() if key in known
    }
    return dataclasses.replace(config, **facts, file=str(folder / WEIGHTS))


def _entry_point(architecture: str, name: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        vcreg: Regularizer | Mapping[str, Any] | bool | None = None,
        where: str = "blocks",
        **kwargs: Any,
    ) -> nn.Module:
        config = checked_vcreg(vcreg)
        model = _build(architecture, name, pretrained, kwargs)
        model.register_state_dict_pre_hook(_forget_own_arguments)
        if config is not None and is_scriptable():
            warnings.warn(
                f"{name} with scriptable=True is the plain network, since TorchScript has no hooks: training it is "
                "training without the regularizer. vcreg=False says that this is meant.",
                stacklevel=2,
            )
        elif config is not None:
            attach(model, config, where, example_input=_example(model, kwargs))
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"timm's {architecture} with VCReg. vcreg: a VCReg or a mapping of its fields, None for VCReg(), False for "
        "none. where: 'blocks', 'final' or another place, as find_blocks knows them. "
        "Without pretrained a bare name is the stock network; a tag brings its class count, channels and preprocessing."
    )
    return create


def _build(architecture: str, name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    """The plain stock network, with weights when asked for."""
    kwargs = dict(kwargs)
    config = kwargs.pop("pretrained_cfg", None)
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    tag = config if isinstance(config, str) else ""
    if isinstance(config, PretrainedCfg):
        config = config.to_dict()
    given = config if isinstance(config, dict) else None
    if tag and not pretrained:
        return _of_tag(architecture, name, tag, kwargs)
    if not pretrained or given is not None or any(overlay.get(key) for key in _SOURCES):
        if pretrained:
            _refuse_silent_random_head(given or {}, overlay, kwargs)
        return timm.create_model(
            architecture,
            pretrained=pretrained,
            pretrained_cfg=_stock_named(architecture, name, given),
            **kwargs,
        )
    weights = find_weights(f"{name}.{tag}" if tag else name)
    _check_fits(weights, architecture, kwargs)
    return timm.create_model(f"local-dir:{weights.folder}", pretrained=True, **kwargs)


def _of_tag(architecture: str, name: str, tag: str, kwargs: dict[str, Any]) -> nn.Module:
    """The network of a tag without its weights. As for timm's own tags, class count, channels and preprocessing are
    the tag's: of a release on this machine, else (not published yet) the stock network's.

    Errors: UnknownNameError for a tag that is neither on this machine nor in the table.
    """
    try:
        weights = find_weights(f"{name}.{tag}", cache_only=True)
    except WeightsNotFoundError:
        known = [row.tag for row in releases_of(name)]
        if tag in known:
            return timm.create_model(architecture, pretrained_cfg=_stock_named(architecture, name, None), **kwargs)
        raise UnknownNameError(
            f"invalid pretrained tag {tag!r} for {name}; known: {', '.join(known) or 'none'}. A tag of your own is "
            "known where VCREG_HUB_DIR has its folder; one on a hub with pretrained=True, or after `vcreg download`"
        ) from None
    _check_fits(weights, architecture, kwargs)
    return timm.create_model(f"local-dir:{weights.folder}", pretrained=False, **kwargs)


def _stock_named(architecture: str, name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """A configuration that says the stock architecture and, unless the caller gave one, no weights."""
    config = given
    if config is None:
        own = get_pretrained_cfg(name)
        config = (own or PretrainedCfg()).to_dict(remove_source=True)
        config.pop("tag", None)
    return {**config, "architecture": architecture}


def _check_fits(weights: Weights, architecture: str, kwargs: dict[str, Any]) -> None:
    """The found release is of this architecture, and loads whole also where timm would not look."""
    config = weights.config
    if weights.library != "timm" or config is None:
        raise UsageError(
            f"{weights.origin} is not in timm's format; load it with "
            f"transformers.AutoModelForImageClassification.from_pretrained({str(weights.folder)!r})"
        )
    if config.get("architecture") != architecture:
        raise UsageError(f"{weights.origin} is a {config.get('architecture')!r}, expected {architecture!r}")
    classes = check_class_count(weights)
    if kwargs.get("global_pool") == "" and kwargs.get("num_classes", classes):
        raise UsageError(
            f"global_pool='' leaves no vector for the {classes} classes of {weights.origin}: add num_classes=0 for the "
            "feature map, or leave global_pool out"
        )
    # timm stops comparing names when the head or the input changes, and for feature extractors.
    if kwargs.get("num_classes", classes) != classes or kwargs.get("features_only") or "in_chans" in kwargs:
        plain = timm.create_model(f"local-dir:{weights.folder}", pretrained=False)
        shapes = {key: tuple(tensor.shape) for key, tensor in plain.state_dict().items()}
        check_names(shapes, tensor_shapes(weights.file), origin=weights.origin)


def _refuse_silent_random_head(given: dict[str, Any], overlay: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """UsageError where timm would take the caller's weights and leave a random classifier without saying so.

    timm drops the classifier when the asked-for class count is not the one its configuration names, and for weights
    given through an overlay without a class count that is 1000, whatever the file holds.
    """
    named = overlay.get("num_classes", given.get("num_classes"))
    if named is None and "num_classes" in kwargs:
        raise UsageError(
            "pretrained_cfg_overlay names weights but not their class count, so timm could drop their classifier "
            "unseen: add num_classes (of the weights) to pretrained_cfg_overlay"
        )


def _example(model: Any, kwargs: dict[str, Any]) -> torch.Tensor:
    """Zeros (1, channels, height, width) of the size the model was built for."""
    config = model.pretrained_cfg
    channels, height, width = config.get("input_size", (3, 224, 224))
    size = kwargs.get("img_size")
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros(1, kwargs.get("in_chans", channels), height, width)


def _forget_own_arguments(model: nn.Module, prefix: str, keep_vars: bool) -> None:
    """timm notes the arguments a model was created with, and its own export writes them for plain timm to read back.

    `vcreg` and `where` are no arguments that plain timm knows, so they are taken out when the weights are read for
    saving.
    """
    arguments = getattr(model, "_model_args", None)
    if isinstance(arguments, dict):
        arguments.pop("vcreg", None)
        arguments.pop("where", None)


# timm has no place for names that are not registered. Where a version of it asks elsewhere, its own error stays.
_factory = importlib.import_module("timm.models._factory")
if getattr(_factory, "is_model", None) is is_model:
    vars(_factory)["is_model"] = _known_to_timm

for _architecture in dict.fromkeys(row.architecture for row in RELEASES if row.library != "transformers"):
    register_model(_architecture)
