"""transformers' video classifiers with VCReg at the input of their head, as in the paper's Table 2.

The native classes, so what is saved is theirs: plain transformers loads it. VideoMAEv2's encoders have
VideoMAE's layout and become that class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Model
from ..errors import ConfigError, unknown_name
from ..regularizer.attachment import attach
from ..regularizer.vcreg import VCReg, checked_vcreg
from . import huggingface
from .dropout import set_head_dropout, set_stochastic_depth
from .video_networks import (
    NETWORKS,
    NORMALISATION,
    OPTIONS,
    check_geometry,
    classifier_of,
    example_clip,
    fresh_classifier,
    native_config,
    video_processor,
)
from .video_weights import classes_in, kinetics_source, load_network, native_of
from .videomae_original import read_pth, settings_of


def create_video_model(
    name: str,
    num_classes: int | None = None,
    pretrained: bool | str = False,
    vcreg: VCReg | bool | None = None,
    where: str = "final",
    **options: Any,
) -> nn.Module:
    """A native transformers video classifier with VCReg attached at `where`; `model.vcreg` is the attachment.

    The model takes clips (n, frames, channels, height, width). vcreg: None means `VCReg()`, False the plain
    model. Everything else, and the errors, as in `build_video_model`.
    """
    regularizer = checked_vcreg(vcreg)
    model = build_video_model(name, num_classes, pretrained, **options)
    if regularizer is not None:
        attach(model, regularizer, where, example_input=example_clip(model))
    return model


def build_video_model(
    name: str,
    num_classes: int | None = None,
    pretrained: bool | str = False,
    *,
    drop_path: float = 0.0,
    head_dropout: float = 0.0,
    head_init_scale: float | None = None,
    **settings: Any,
) -> nn.Module:
    """The plain classifier, in training mode.

    name: one of `NETWORKS`. num_classes: None takes that of the weights, 400 without weights; another
    number than theirs gets a fresh head. pretrained: True for the checkpoint fine-tuned on Kinetics-400.
    Else where weights are: a release such as
        `videomae_base_vcreg.hmdb51`, a folder or Hub id that transformers reads, a run folder or
        safetensors file, or a `.pth` of the original VideoMAE or VideoMAEv2.
    drop_path, head_dropout: see `dropout.py`. head_init_scale: multiplies a fresh head, 0.001 in VideoMAE's
    code. settings: fields of the native configuration, such as image_size, num_frames or hidden_size.

    Errors: UnknownNameError for a name or field; WeightsNotFoundError; UsageError for weights of another
    architecture, naming what differs; IntegrityError when the installed transformers loads other values
    than the file holds.
    """
    if name not in NETWORKS:
        raise unknown_name("video model", name, NETWORKS)
    if num_classes is not None and num_classes < 0:
        raise ConfigError(f"num_classes is 0 for no classifier, or more, got {num_classes}")
    source = kinetics_source(name) if pretrained is True else str(pretrained or "")
    if source:
        model, fresh_head = load_network(name, source, num_classes, settings)
    else:
        model, fresh_head = fresh_classifier(name, 400 if num_classes is None else num_classes, settings), True
    return _finished(model, fresh_head, drop_path, head_dropout, head_init_scale)


def _finished(
    model: nn.Module,
    fresh_head: bool,
    drop_path: float = 0.0,
    head_dropout: float = 0.0,
    head_init_scale: float | None = None,
) -> nn.Module:
    if fresh_head and head_init_scale is not None:
        with torch.no_grad():
            for parameter in model.get_submodule("classifier").parameters():
                parameter.mul_(head_init_scale)
    if head_dropout:
        set_head_dropout(model, head_dropout)
    if drop_path:
        set_stochastic_depth(model, drop_path)
    return model.train()


def build(cfg: Model, num_classes: int, in_chans: int, image_size: int, frames: int | None = None) -> nn.Module:
    """The plain network of a recipe: `cfg.name` is one of `NETWORKS`, `cfg.kwargs` the options of
    `build_video_model`."""
    options = {"image_size": image_size, "num_channels": in_chans, **cfg.kwargs}
    if frames is not None:
        options["num_frames"] = _agreed_frames(cfg, frames)
    return build_video_model(cfg.name, num_classes, cfg.pretrained, **options)


def build_any(cfg: Model, num_classes: int, in_chans: int, image_size: int, frames: int) -> nn.Module:
    """Any native transformers video classifier: `cfg.name` is its Hub id, folder or config.json.

    cfg.pretrained: True for the weights there, or a folder or Hub id of other weights. cfg.kwargs: `drop_path`,
    `head_dropout` and `head_init_scale` as in `build_video_model`, else fields of the configuration. Errors: those of
    `huggingface`'s functions, UsageError for weights that do not fit.
    """
    from transformers import AutoModelForVideoClassification

    settings = dict(cfg.kwargs)
    drops = {name: settings.pop(name) for name in OPTIONS if name in settings}
    config = huggingface.load_config(cfg.name)
    sizes = {"num_channels": in_chans, "image_size": image_size, "num_frames": _agreed_frames(cfg, frames)}
    huggingface.change_config(config, {name: value for name, value in sizes.items() if hasattr(config, name)})
    huggingface.change_config(config, settings)
    check_geometry(config)
    fresh_head = not cfg.pretrained or num_classes != config.num_labels
    huggingface.set_classes(config, num_classes)
    if cfg.pretrained:
        source = cfg.name if cfg.pretrained is True else cfg.pretrained
        model = huggingface.load_classifier(AutoModelForVideoClassification, source, config)
    else:
        model = classifier_of(config, cfg.name)
    return _finished(model, fresh_head, **drops)


def _agreed_frames(cfg: Model, frames: int) -> int:
    if cfg.kwargs.get("num_frames", frames) != frames:
        raise ConfigError(
            f"model.kwargs.num_frames={cfg.kwargs['num_frames']} and video.frames={frames} differ; leave the first out"
        )
    return frames


def convert_original(pth: str | Path, folder: str | Path, *, frames: int = 16, image_size: int = 224) -> nn.Module:
    """Write a `.pth` of the original VideoMAE or VideoMAEv2 as a folder that plain transformers loads;
    returns the model. Errors as in `read_pth`."""
    tensors = read_pth(pth)
    settings = settings_of(tensors) | {"num_frames": frames, "image_size": image_size}
    model = native_of(tensors, native_config("videomae", settings, classes_in(tensors)), str(pth))[0]
    mean, std = NORMALISATION["imagenet"]
    model.save_pretrained(folder)  # type: ignore[operator]
    video_processor(model, mean, std).save_pretrained(folder)
    return model
