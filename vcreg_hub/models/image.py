"""transformers' image classifiers with VCReg after their blocks: the native classes, so what is saved is theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..checkpoints.find import find_weights
from ..errors import UsageError, unknown_name
from ..regularizer.attachment import attach
from ..regularizer.vcreg import VCReg, checked_vcreg
from . import huggingface

# Name -> transformers model type, and how its configuration differs from that type's default. The three networks of
# the paper's Table 1: the defaults are ResNet-50, ConvNeXt-T and ViT-B with patches of 16.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext_tiny": ("convnext", {}),
    "resnet50": ("resnet", {}),
    "vit_base_patch32_224": ("vit", {"patch_size": 32}),
}


def create_image_model(
    name: str,
    num_classes: int | None = None,
    pretrained: bool | str = False,
    vcreg: VCReg | bool | None = None,
    where: str = "blocks",
) -> nn.Module:
    """A native transformers image classifier with VCReg attached at `where`; `model.vcreg` is the attachment.

    name: `resnet50`, `convnext_tiny` or `vit_base_patch32_224`. num_classes: None takes that of the weights, 1000
    without weights. pretrained: True for the release `<name>_vcreg` in transformers' format (`models/weights.py` says
    where those are looked for), or a folder or Hub id of any checkpoint of that model type. vcreg: None means
    `VCReg()`, False the plain model.

    Errors: UnknownNameError; WeightsNotFoundError; UsageError for weights of another kind of model or that do not fit.
    """
    if name not in NETWORKS:
        raise unknown_name("image model", name, NETWORKS)
    regularizer = checked_vcreg(vcreg)
    model_type, settings = NETWORKS[name]
    if pretrained:
        model = _with_weights(name, model_type, pretrained, num_classes)
    else:
        model = _fresh(model_type, settings, num_classes)
    if regularizer is not None:
        attach(model, regularizer, where, example_input=_example(model.config))
    return model


def _example(config: Any) -> torch.Tensor:
    """Zeros (1, channels, size, size) as the network takes them; any size will do for one without a size of its own."""
    size = getattr(config, "image_size", 224)
    return torch.zeros(1, config.num_channels, size, size)


def _fresh(model_type: str, settings: dict[str, Any], num_classes: int | None) -> nn.Module:
    from transformers import AutoConfig, AutoModelForImageClassification

    config = AutoConfig.for_model(model_type, **settings)
    huggingface.set_classes(config, 1000 if num_classes is None else num_classes)
    return huggingface.build_classifier(AutoModelForImageClassification, config, model_type)


def _with_weights(name: str, model_type: str, pretrained: bool | str, num_classes: int | None) -> nn.Module:
    from transformers import AutoModelForImageClassification

    if pretrained is True:
        weights = find_weights(f"{name}_vcreg")
        if weights.library != "transformers":
            raise UsageError(
                f"{weights.origin} is in timm's format: timm.create_model('{name}_vcreg', pretrained=True) loads it, "
                "and so does transformers' AutoModelForImageClassification, as a timm network"
            )
        source = str(weights.folder)
    else:
        source = str(pretrained)
    config = huggingface.load_config(source)
    if config.model_type != model_type:
        raise UsageError(f"{source} is a {config.model_type!r}, but {name} is a {model_type!r}")
    if num_classes is not None and num_classes != config.num_labels:
        huggingface.set_classes(config, num_classes)
    return huggingface.load_classifier(AutoModelForImageClassification, source, config)
