"""The video networks: one row each, their native configuration, and how pixels are prepared for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, unknown_name
from . import native

_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
_TINY = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 384}
_MAE = {"layer_norm_eps": 1e-6}

# What `build_video_model` takes besides the fields of a configuration.
OPTIONS = ("drop_path", "head_dropout", "head_init_scale")

# How pixels in [0, 1] are normalised. `centred` is [-1, 1], as ViViT was trained. Its published processor
# does that and then subtracts 0.5 and divides by 0.5 once more, which is `processor`: [-3, 1].
NORMALISATION: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "centred": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "processor": ((0.75, 0.75, 0.75), (0.25, 0.25, 0.25)),
}


@dataclass(frozen=True)
class Network:
    """model_type: transformers'. settings: how its configuration differs from that type's default.
    kinetics: Hub id of the checkpoint fine-tuned on Kinetics-400, None where transformers has none. frames:
    a clip's. normalisation: a key of `NORMALISATION`, how the published weights were trained."""

    model_type: str
    frames: int
    normalisation: str
    kinetics: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


NETWORKS: dict[str, Network] = {
    "videomae_small": Network(
        "videomae", 16, "imagenet", "MCG-NJU/videomae-small-finetuned-kinetics", {**_MAE, **_SMALL}
    ),
    "videomae_base": Network("videomae", 16, "imagenet", "MCG-NJU/videomae-base-finetuned-kinetics", _MAE),
    "videomaev2_small": Network("videomae", 16, "imagenet", None, {**_MAE, **_SMALL}),
    "videomaev2_base": Network("videomae", 16, "imagenet", None, _MAE),
    "vivit_base": Network("vivit", 32, "centred", "google/vivit-b-16x2-kinetics400"),
    # Small enough to learn from scratch on a CPU; nobody has published weights.
    "videomae_tiny": Network(
        "videomae", 8, "imagenet", None, {**_MAE, **_TINY, "patch_size": 8, "image_size": 32, "num_frames": 8}
    ),
    "vivit_tiny": Network(
        "vivit", 8, "centred", None, {**_TINY, "tubelet_size": (2, 8, 8), "image_size": 32, "num_frames": 8}
    ),
}


def native_config(model_type: str, settings: Mapping[str, Any], num_classes: int) -> Any:
    """A native configuration. Errors: UnknownNameError for a field it lacks, ConfigError for a value it
    refuses."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    known = AutoConfig.for_model(model_type).to_dict()
    for key in settings:
        if key not in known:
            raise unknown_name(f"field of {model_type}", key, [*known, *OPTIONS])
    try:
        config = AutoConfig.for_model(model_type, **settings)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{model_type} cannot be configured with {dict(settings)}: {error}") from error
    native.set_classes(config, num_classes)
    return config


def fresh_classifier(name: str, num_classes: int, settings: Mapping[str, Any]) -> nn.Module:
    """A network of `NETWORKS` with random weights."""
    return classifier_of(expected_config(name, settings, num_classes), name)


def expected_config(name: str, settings: Mapping[str, Any], num_classes: int = 1) -> Any:
    """The configuration of a network of `NETWORKS`, with `settings` changed."""
    network = NETWORKS[name]
    config = native_config(
        network.model_type, {"num_frames": network.frames, **network.settings, **settings}, num_classes
    )
    check_geometry(config)
    return config


def check_geometry(config: Any) -> None:
    """Errors: ConfigError for clips with a rest beyond the configuration's cubes: it would never be looked at."""
    cube = getattr(config, "tubelet_size", None)
    if cube is None or not hasattr(config, "num_frames"):
        return
    side = getattr(config, "patch_size", None)
    depth, height, width = cube if isinstance(cube, (list, tuple)) else (cube, side, side)
    sizes = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
    for name, size, part in (
        ("num_frames", config.num_frames, depth),
        *zip(["image_size"] * 2, sizes, (height, width)),
    ):
        if size < 1 or size % part:
            raise ConfigError(f"{name}={size} is no multiple of {part}, which a {config.model_type} looks at together")


def classifier_of(config: Any, origin: str) -> nn.Module:
    """The native class with random weights. Errors: ConfigError, naming `origin`, when it cannot be built."""
    from transformers import AutoModelForVideoClassification

    try:
        model = AutoModelForVideoClassification.from_config(config, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{origin} cannot be built like this: {error}") from error
    if config.model_type == "vivit":
        _spread_positions(model)
    return model


def _spread_positions(model: nn.Module) -> None:
    """transformers starts ViViT's learned positions and class token at zero, where they say nothing and
    attention cannot tell one place from another: a fresh network then does not begin to learn motion. Start
    from VideoMAE's sines."""
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    embeddings: Any = model.get_submodule("vivit.embeddings")
    count, width = embeddings.position_embeddings.shape[1:]
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = get_sinusoid_encoding_table(count - 1, width)
        embeddings.cls_token.normal_(std=0.02)


def example_clip(model: nn.Module) -> Tensor:
    """Zeros in the shape of one clip (1, frames, channels, size, size)."""
    config: Any = model.config
    size = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
    return torch.zeros(1, config.num_frames, config.num_channels, *size)


def video_processor(model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """transformers' video processor for frames as in the model's training: shorter side to the
    image size, centre crop, (pixel / 255 - mean) / std. What `save_pretrained` of both writes is all that
    plain transformers needs."""
    from transformers import VideoMAEVideoProcessor, VivitVideoProcessor

    size = example_clip(model).shape[-1]
    common: dict[str, Any] = {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "do_sample_frames": False,
    }
    config: Any = model.config
    if config.model_type != "vivit":  # VideoMAE's is the general one
        return VideoMAEVideoProcessor(image_mean=list(mean), image_std=list(std), **common)
    # ViViT's processor rescales to [-1, 1] before it normalises.
    shifted, scaled = [2 * m - 1 for m in mean], [2 * s for s in std]
    plain = all(m == 0 for m in shifted) and all(s == 1 for s in scaled)
    return VivitVideoProcessor(image_mean=shifted, image_std=scaled, do_normalize=not plain, **common)
