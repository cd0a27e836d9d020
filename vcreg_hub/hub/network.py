"""A plain network as files that a library loads: timm's, transformers', or torchvision's own tensors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ..config import Model
from ..errors import RunFolderError
from ..files import write_json, write_tensors
from ..models.build import kind_of, logits, timm_arguments
from ..models.huggingface import set_classes
from ..models.video_networks import video_processor
from ..models.zoo import SUFFIX
from .conversion import TWINS, as_timm

_PIL_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The test view of a run: short side to `resize`, centre crop to `image_size`, normalise by mean and std.

    frames: of a clip, None for images.
    """

    classes: list[str]
    in_chans: int
    image_size: int
    resize: int
    interpolation: str
    mean: list[float]
    std: list[float]
    frames: int | None = None


def write_network(folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> None:
    """config.json, weights and preprocessing of a plain network, loaded back and compared.

    Errors: RunFolderError when what was written does not compute what `model` does.
    """
    kind, name = kind_of(cfg.name)
    model = model.eval()
    if kind in ("hf", "video"):
        loaded = _write_transformers(folder, model, view, kind == "video" or view.frames is not None)
    else:
        twin = None
        if kind == "torchvision":
            twin = as_timm(name, model, len(view.classes), view.in_chans, view.image_size)
        if kind == "torchvision" and twin is None:
            _write_torchvision(folder, model, cfg, name, view, licence)
            return
        cfg = cfg if twin is None else Model(TWINS[name])
        model = model if twin is None else twin
        write_tensors(folder / "model.safetensors", model.state_dict())
        write_json(folder / "config.json", timm_config(model, cfg, view, licence))
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    _prove(model, loaded, view)


def timm_config(model: Any, cfg: Model, view: Preprocessing, licence: str) -> dict[str, Any]:
    """timm's config.json, also as `AutoModelForImageClassification` reads it.

    The class count stands at the top and in pretrained_cfg, never in model_args, where timm's own export puts it:
    transformers passes it once more and fails.
    """
    stock = model.pretrained_cfg
    size = view.image_size
    arguments = timm_arguments(cfg, len(view.classes), view.in_chans, size)
    kept = {k: v for k, v in arguments.items() if k != "num_classes" and not ("drop" in k and k.endswith("_rate"))}
    same_size = tuple(stock.get("input_size", ())[1:]) == (size, size)
    return {
        "architecture": cfg.name.partition(".")[0].removesuffix(SUFFIX),
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
            "crop_pct": crop_share(size, view.resize),
            "crop_mode": "center",
            "mean": view.mean,
            "std": view.std,
            "num_classes": len(view.classes),
            "pool_size": stock.get("pool_size") if same_size else None,
            "first_conv": stock.get("first_conv"),
            "classifier": stock.get("classifier"),
            "license": licence,
        },
    }


def crop_share(size: int, resize: int) -> float:
    """The crop_pct for which timm, which takes floor(size / crop_pct), resizes the short side to `resize`.

    >>> import math
    >>> all(math.floor(224 / crop_share(224, r)) == r for r in range(224, 1000))
    True
    """
    share = size / resize
    while math.floor(size / share) < resize:  # size / (size / resize) may fall just below resize
        share = math.nextafter(share, 0)
    return share


def _write_transformers(folder: Path, model: Any, view: Preprocessing, video: bool) -> nn.Module:
    """transformers' own files: configuration, weights under their file names, processor. Returns what it loads."""
    from transformers import AutoModelForImageClassification, AutoModelForVideoClassification

    set_classes(model.config, len(view.classes), view.classes)
    model.config._name_or_path = ""  # a folder of this machine, where the run started from one
    model.save_pretrained(folder, max_shard_size="500GB")
    if video:
        video_processor(model, tuple(view.mean), tuple(view.std)).save_pretrained(folder)
        return AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=False)
    _image_processor(view).save_pretrained(folder)
    return AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False)


def _image_processor(view: Preprocessing) -> Any:
    from transformers import BitImageProcessor

    # Bit's processor is the general one: any short side, centre crop, mean and std. A model type's own may not crop.
    return BitImageProcessor(
        size={"shortest_edge": view.resize},
        resample=_PIL_FILTERS[view.interpolation],
        crop_size={"height": view.image_size, "width": view.image_size},
        image_mean=view.mean,
        image_std=view.std,
        do_convert_rgb=view.in_chans == 3,
    )


def _write_torchvision(
    folder: Path, model: nn.Module, cfg: Model, name: str, view: Preprocessing, licence: str
) -> None:
    """torchvision's own tensors: neither timm nor transformers has this network, and config.json says so."""
    write_tensors(folder / "model.safetensors", model.state_dict())
    about = dataclasses.asdict(view)
    note = (
        "neither timm nor transformers loads this: model = torchvision.models.get_model(architecture, **model_args); "
        "model.load_state_dict(safetensors.torch.load_file('model.safetensors'))"
    )
    if view.in_chans != 3:
        note += f". Its first convolution takes {view.in_chans} channels, so replace that first"
    arguments = {"num_classes": len(view.classes), **cfg.kwargs}
    if name.startswith("vit_"):
        arguments["image_size"] = view.image_size
    write_json(
        folder / "config.json",
        {"library": "torchvision", "architecture": name, "model_args": arguments, "note": note, "license": licence}
        | {"num_classes": len(view.classes), "label_names": about.pop("classes"), "preprocessing": about},
    )


@torch.no_grad()
def _prove(model: nn.Module, loaded: nn.Module, view: Preprocessing) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = getattr(getattr(model, "config", None), "num_frames", None)
    clip = () if frames is None else (frames,)
    x = torch.randn(2, *clip, view.in_chans, view.image_size, view.image_size, generator=generator)
    expected, found = logits(model.eval()(x)), logits(loaded.eval()(x))
    if expected.shape != found.shape or not torch.equal(expected, found):
        raise RunFolderError(
            "the exported folder does not give the network's logits when it is loaded back "
            f"({tuple(found.shape)}, expected {tuple(expected.shape)}); nothing was exported"
        )
