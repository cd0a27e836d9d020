"""transformers' video classifiers with VCReg at the input of their head, as in the paper's Table 2.

The native classes, so what is saved is theirs: plain transformers loads it. VideoMAEv2's encoders have
VideoMAE's layout and become that class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, WeightsNotFoundError, unknown_name
from ..regularizer.attachment import attach
from ..regularizer.vcreg import VCReg, checked_vcreg
from .dropout import set_head_dropout, set_stochastic_depth
from .head import remember_classes
from .video_networks import NETWORKS, example_clip, fresh_classifier
from .video_weights import load_weights


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
    source = _kinetics_source(name) if pretrained is True else str(pretrained or "")
    if source:
        loaded = load_weights(name, source, num_classes, settings)
        model, fresh_head = loaded.model, loaded.fresh_head
        if pretrained is not True:  # Kinetics' own spelling of its classes is one of several
            remember_classes(model, loaded.classes)
    else:
        model, fresh_head = fresh_classifier(name, 400 if num_classes is None else num_classes, settings), True
    return finish_classifier(model, fresh_head, drop_path, head_dropout, head_init_scale)


def finish_classifier(
    model: nn.Module,
    fresh_head: bool,
    drop_path: float = 0.0,
    head_dropout: float = 0.0,
    head_init_scale: float | None = None,
) -> nn.Module:
    """The classifier with the options of `build_video_model`, in training mode."""
    if fresh_head and head_init_scale is not None:
        with torch.no_grad():
            for parameter in model.get_submodule("classifier").parameters():
                parameter.mul_(head_init_scale)
    if head_dropout:
        set_head_dropout(model, head_dropout)
    if drop_path:
        set_stochastic_depth(model, drop_path)
    return model.train()


def _kinetics_source(name: str) -> str:
    """The Hub id of the network fine-tuned on Kinetics-400. Errors: WeightsNotFoundError where there is
    none."""
    source = NETWORKS[name].kinetics
    if source is None:
        raise WeightsNotFoundError(
            f"transformers has no pretrained {name}; pass pretrained=<file.pth> (VideoMAEv2's distilled encoders are "
            "vit_s_k710_dl_from_giant.pth and vit_b_k710_dl_from_giant.pth) or a folder or Hub id of one's own"
        )
    return source
