"""timm's networks, and this package's own architectures, registered with timm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import get_spatial_dim
from torch import nn

from ...checkpoints.find import hub_folder
from ...checkpoints.limits import guarded
from ...checkpoints.load import load_file
from ...config import Model
from ...errors import RunFolderError, UsageError, WeightsNotFoundError, unknown_name
from ...files import JSON, write_json, write_tensors
from ...releases import INDEX, WEIGHTS
from .. import zoo
from ..head import classes_in_config, remember_classes
from ..video_networks import NETWORKS
from .library import (
    FEATURES,
    LOAD,
    PICTURE,
    PIPELINE,
    TOP_3,
    Library,
    Loader,
    Preprocessing,
    Sizes,
    SnippetSource,
    construct,
    construct_on_meta,
    input_of,
    numbered_classes,
    recoloured,
)


class Timm(Library):
    name = prefix = "timm"

    def build(self, cfg: Model, sizes: Sizes) -> nn.Module:
        name = self.bare(cfg.name)
        architecture = name.partition(".")[0]
        if not timm.is_model(architecture):
            raise unknown_name("model", name, [*timm.list_models(), *NETWORKS])
        arguments = _arguments(name, cfg.kwargs, sizes)
        ours, pretrained = architecture.endswith(zoo.SUFFIX), cfg.pretrained is True
        if ours:
            arguments["vcreg"] = False
        if pretrained and not ours:
            arguments |= stock_weights(name)
        with guarded():
            model = construct(name, cfg.kwargs, lambda: timm.create_model(name, pretrained=pretrained, **arguments))
        if ours and pretrained:
            remember_classes(model, classes_in_config(vars(model)["pretrained_cfg"]))
        return model

    def base_model(self, cfg: Model) -> str | None:
        name = self.bare(cfg.name)
        if cfg.pretrained is not True:
            return super().base_model(cfg)
        config = None if name.partition(".")[0].endswith(zoo.SUFFIX) else timm.get_pretrained_cfg(name)
        return None if config is None else config.hf_hub_id

    def build_on_meta(self, model: str, **kwargs: Any) -> nn.Module:
        name = self.bare(model)
        # With a prefix (hf-hub:, local-dir:) timm looks elsewhere.
        if ":" not in name and not timm.is_model(name.partition(".")[0]):
            raise unknown_name("timm architecture", name, timm.list_models())
        return construct_on_meta(lambda: timm.create_model(name, pretrained=False, **kwargs))

    def save(self, folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> nn.Module:
        write_tensors(folder / "model.safetensors", model.state_dict())
        write_json(folder / "config.json", _config(model, cfg, view, licence))
        return model

    def load(self, folder: Path, config: JSON) -> nn.Module:
        if "architecture" not in config:
            raise RunFolderError(f"{folder / 'config.json'} names no architecture")
        if (folder / WEIGHTS).is_file():
            return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        model = timm.create_model(f"local-dir:{folder}", pretrained=False)  # timm itself would take one file of several
        load_file(model, folder / INDEX)
        return model.eval()

    def preprocessing(self, model: nn.Module, source: Path | str | None = None) -> Preprocessing:
        stated: Any = getattr(model, "pretrained_cfg", None) or {}
        config = timm.data.resolve_model_data_config(model)
        channels, size, _ = input_of(model)
        if config["crop_mode"] not in ("center", "squash"):
            raise UsageError(f"crop_mode {config['crop_mode']!r} of {type(model).__name__}: expected center or squash")
        count = int(getattr(model, "num_classes", 0))
        return Preprocessing(
            classes=numbered_classes(classes_in_config(stated) or _imagenet_classes(stated, count), count),
            in_chans=channels,
            image_size=size,
            resize=math.floor(size / config["crop_pct"]),
            interpolation=config["interpolation"],
            mean=recoloured(config["mean"], channels),
            std=recoloured(config["std"], channels),
            fit="squash" if config["crop_mode"] == "squash" else "crop",
        )

    def loader(self, config: Mapping[str, Any] | None, model: str, *, video: bool) -> Loader:
        stated = str((config or {}).get("architecture") or self.bare(model))
        architecture = stated.partition(".")[0].removesuffix(zoo.SUFFIX)
        own = timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__.startswith("vcreg_hub.")
        return Loader("vcreg_hub" if own else self.name, architecture, video=video)

    def snippets(self, source: SnippetSource) -> dict[str, str]:
        own = source.loader.library != self.name
        place = f"hf-hub:{source.repo_id}" if source.repo_id else "local-dir:."
        lines = ["import timm", "import torch"]
        if source.packaged:
            place = source.name
            lines += ["import vcreg_hub  # registers its names with timm, and holds these weights"]
        elif own:
            lines += ["import vcreg_hub  # this architecture is not timm's: the import registers it"]
        lines += [
            "",
            f'model = timm.create_model("{place}", pretrained=True).eval()',
            "config = timm.data.resolve_model_data_config(model)",
            "transform = timm.data.create_transform(**config, is_training=False)",
            'images = torch.rand(1, *config["input_size"])  # or transform(a PIL image).unsqueeze(0)',
            "with torch.no_grad():",
            "    logits = model(images)  # (1, classes)",
        ]
        picture = [
            "from PIL import Image",
            "",
            f'picture = transform(Image.open("picture.png").convert("{source.mode}"))  # a file of yours',
            "with torch.no_grad():",
            "    shares = model(picture.unsqueeze(0)).softmax(-1)[0]",
            'names = model.pretrained_cfg["label_names"]',
            TOP_3,
        ]
        features = [
            "with torch.no_grad():",
            "    features = model.forward_features(images)  # at every position, before they are pooled",
            "    embeddings = model.forward_head(features, pre_logits=True)  # (1, d): what the classifier reads",
        ]
        # Of a packaged network the import that finds it registers our architectures.
        registers = ["import vcreg_hub  # registers this architecture"] if own and not source.packaged else []
        return {
            LOAD: "\n".join(lines),
            PICTURE: "\n".join(picture),
            FEATURES: "\n".join(features),
            PIPELINE: source.in_pipeline(*registers),
        }

    def recipe_name(self, config: Mapping[str, Any]) -> str:
        return "a timm architecture"


def stock_weights(name: str) -> dict[str, Any]:
    """Arguments with which `timm.create_model(name, pretrained=True)` reads its Hub weights from the file in the cache
    that was compared with the Hub's own hash; none where timm has them from elsewhere, or as a file of another name."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.hf_hub_filename or config.custom_load:
        return {}
    try:
        folder = hub_folder(config.hf_hub_id)
    except WeightsNotFoundError as error:
        if isinstance(error.__cause__, UsageError):  # pickles alone, which timm reads with weights_only=True
            return {}
        raise
    return {"pretrained_cfg_overlay": {"file": str(folder / WEIGHTS)}}


def _arguments(name: str, kwargs: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The keyword arguments a recipe's timm network is created with; `img_size` where the network is built for one."""
    arguments = {"num_classes": sizes.num_classes, "in_chans": sizes.in_chans, **kwargs}
    config = timm.get_pretrained_cfg(name.partition(".")[0])
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", sizes.image_size)
    return arguments


def _config(model: Any, cfg: Model, view: Preprocessing, licence: str) -> JSON:
    """timm's config.json, also as `AutoModelForImageClassification` reads it.

    The class count stands at the top and in pretrained_cfg, never in model_args, where timm's own export puts it:
    transformers passes it once more and fails.
    """
    stock = model.pretrained_cfg
    size, name = view.image_size, cfg.name.removeprefix(f"{Timm.prefix}:")
    arguments = _arguments(name, cfg.kwargs, view.sizes)
    kept = {k: v for k, v in arguments.items() if k != "num_classes" and not ("drop" in k and k.endswith("_rate"))}
    return {
        "architecture": name.partition(".")[0].removesuffix(zoo.SUFFIX),
        "num_classes": len(view.classes),
        "num_features": model.num_features,
        **({"global_pool": cfg.kwargs["global_pool"]} if "global_pool" in cfg.kwargs else {}),
        "label_names": view.classes,
        "model_args": kept,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [view.in_chans, size, size],
            "fixed_input_size": bool(stock.get("fixed_input_size", False)),
            "interpolation": view.interpolation,
            "crop_pct": _crop_share(size, view.resize),
            "crop_mode": "center" if view.fit == "crop" else "squash",
            "mean": view.mean,
            "std": view.std,
            "num_classes": len(view.classes),
            "pool_size": _pool_size(model, view),
            "first_conv": stock.get("first_conv"),
            "classifier": stock.get("classifier"),
            "license": licence,
        },
    }


def _pool_size(model: Any, view: Preprocessing) -> list[int] | None:
    """Height and width of the map that is pooled for the classifier; None where timm states none, as of tokens."""
    if not model.pretrained_cfg.get("pool_size"):
        return None
    weight = next(model.parameters())
    image = weight.new_zeros(1, view.in_chans, view.image_size, view.image_size)
    with torch.no_grad():
        shape = model.forward_features(image).shape
    axes = get_spatial_dim(getattr(model, "output_fmt", "NCHW"))
    return [shape[axis] for axis in axes] if len(shape) == 4 else None


def _imagenet_classes(config: Mapping[str, Any], count: int) -> list[str] | None:
    """What ImageNet's classes are called, where the weights' tag says that they were trained on `count` of those."""
    if not re.search(r"in(1|12|21|22)k", str(config.get("tag") or config.get("hf_hub_id") or "")):
        return None
    subset = timm.data.infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info = timm.data.ImageNetInfo(subset)
    return [info.index_to_description(number) for number in range(count)]


def _crop_share(size: int, resize: int) -> float:
    """The crop_pct for which timm, which takes floor(size / crop_pct), resizes the short side to `resize`.

    >>> all(math.floor(224 / _crop_share(224, r)) == r for r in range(224, 1000))
    True
    """
    share = size / resize
    while math.floor(size / share) < resize:  # size / (size / resize) may fall just below resize
        share = math.nextafter(share, 0)
    return share
