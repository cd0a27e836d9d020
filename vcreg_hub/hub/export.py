"""A run folder as a folder that plain timm, or plain transformers, loads: the unit of publishing.

    config.json           timm's (stock architecture, preprocessing, class names, licence) or transformers' own
    model.safetensors     the plain network's state dict
    preprocessor_config.json   for a transformers network
    recipe.json results.json env.json and the plots, as the run has them, without this machine's paths

The card is written into that folder afterwards, by `card.write_card`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ..config import Model, Recipe, to_dict
from ..errors import RunFolderError, UsageError
from ..models.checkpoint import load_file
from ..models.factory import build_model, logits, timm_arguments
from ..models.huggingface import set_classes
from ..models.zoo import SUFFIX
from ..rundir import RunDir, write_json, write_tensors
from .conversion import TWINS, as_timm
from .licence import LICENCES
from .privacy import private_fields

_PIL_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The test view of a run: short side to `resize`, centre crop to `image_size`, normalise by mean and std."""

    classes: list[str]
    in_chans: int
    image_size: int
    resize: int
    interpolation: str
    mean: list[float]
    std: list[float]


def export(run: str | Path, to: str | Path, *, licence: str, weights: str = "model", overwrite: bool = False) -> Path:
    """Write the folder `to` for the finished run in the folder `run`; returns `to`.

    The folder is complete under another name before it takes its place, and it has been loaded back by the library
    that its users will load it with: the logits of a fixed input are those of the run's network, bit for bit (those of
    a converted torchvision network up to float32 rounding).

    licence: of the weights, an identifier of the Hub's list; there is no default. weights: which file of the run:
    `model`, or `last` / `best` where it kept those (its results speak of `model`, so they come without metrics then).
    A torchvision network becomes the timm network that computes the same, where there is one; else its own tensors are
    exported with a config.json that says how to load them. overwrite: replace a folder that is there.

    Errors: RunFolderError for a file that is missing, broken or does not fit the recipe; UsageError for a licence the
    Hub does not know, a `to` that is not empty, or a name of this machine or login, or a path, in what would be copied.
    """
    _check_licence(licence)
    source, to = RunDir(run), Path(to)
    if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} exists already: give another folder, or overwrite it (--overwrite)")
    recipe, results, env = _without_paths(source.recipe()), source.results(), source.env()
    view = preprocessing(recipe, results)
    file = source.path / f"{weights}.safetensors"
    if not file.is_file():
        there = sorted(path.stem for path in source.path.glob("*.safetensors"))
        raise RunFolderError(f"{source.path} has no {file.name}; it has {', '.join(there) or 'no weights'}")
    if weights != "model":
        results = {**results, "metrics": [], "training": {**results.get("training", {}), "selected": weights}}
    model = _network(source.recipe().model, view, file)
    with _replacing_folder(to) as folder:
        write_network(folder, model, recipe.model, view, licence)
        for name, value in (("recipe", to_dict(recipe)), ("results", results), ("env", env)):
            write_json(folder / f"{name}.json", value)
        for plot in source.path.glob("*.png"):
            shutil.copyfile(plot, folder / plot.name)
        refuse_private(folder)
    return to


def preprocessing(recipe: Recipe, results: dict[str, Any]) -> Preprocessing:
    """The test view and class names, from results.json["data"]. Errors: RunFolderError naming what is absent."""
    data = results.get("data")
    needed = ("classes", "in_chans", "image_size", "mean", "std")
    absent = [name for name in needed if not isinstance(data, dict) or data.get(name) in (None, [])]
    if absent:
        raise RunFolderError(f"results.json lacks data.{', data.'.join(absent)}: what the weights were trained on")
    assert isinstance(data, dict)
    view = Preprocessing(
        classes=[str(name) for name in data["classes"]],
        in_chans=int(data["in_chans"]),
        image_size=int(data["image_size"]),
        resize=int(data.get("resize") or recipe.data.resize or data["image_size"]),
        interpolation=str(data.get("interpolation") or recipe.data.interpolation),
        mean=[float(value) for value in data["mean"]],
        std=[float(value) for value in data["std"]],
    )
    if not len(view.mean) == len(view.std) == view.in_chans:
        raise RunFolderError(
            f"results.json has {len(view.mean)} means and {len(view.std)} stds for {view.in_chans} channels"
        )
    return view


def write_network(folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> None:
    """config.json, weights and preprocessing of a plain network, loaded back and compared.

    Errors: RunFolderError when what was written does not compute what `model` does.
    """
    kind, _, name = cfg.name.rpartition(":")
    model = model.eval()
    if kind == "hf":
        _write_transformers(folder, model, view)
        loaded = _load_transformers(folder)
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


def refuse_private(folder: Path) -> None:
    """UsageError that names the file and field, when a JSON file of the folder gives this machine or login away."""
    for path in sorted(folder.glob("*.json")):
        found = [f"{field}: {what}" for field, what in private_fields(json.loads(path.read_text(encoding="utf-8")))]
        if found:
            raise UsageError(f"{path.name} would publish {'; '.join(found[:5])}. Change it in the run folder first")


def _check_licence(licence: str) -> None:
    from ..errors import unknown_name

    if not licence:
        raise UsageError("export needs the licence of the weights, such as apache-2.0; none is assumed")
    if licence not in LICENCES:
        raise unknown_name("licence", licence, LICENCES, "Use 'other' for one that is not listed.")


def _network(cfg: Model, view: Preprocessing, file: Path) -> nn.Module:
    """The run's plain network with its weights."""
    model = build_model(
        dataclasses.replace(cfg, pretrained=False),
        num_classes=len(view.classes),
        in_chans=view.in_chans,
        image_size=view.image_size,
    )
    load_file(model, file)
    return model.eval()


def _without_paths(recipe: Recipe) -> Recipe:
    """The recipe with folders of this machine cut to their last name."""
    model, data = recipe.model, recipe.data
    if model.name.startswith("hf:") and os.path.isabs(os.path.expanduser(model.name[3:])):
        model = dataclasses.replace(model, name=f"hf:{Path(model.name[3:]).name}")
    if isinstance(model.pretrained, str) and os.path.isabs(os.path.expanduser(model.pretrained)):
        model = dataclasses.replace(model, pretrained=Path(model.pretrained).name)
    return dataclasses.replace(recipe, model=model, data=dataclasses.replace(data, root=None))


def _write_transformers(folder: Path, model: Any, view: Preprocessing) -> None:
    from transformers import BitImageProcessor

    set_classes(model.config, len(view.classes), view.classes)
    model.config._name_or_path = ""  # a folder of this machine, where the run started from one
    model.save_pretrained(folder, max_shard_size="500GB")
    # Bit's processor is the general one: any short side, centre crop, mean and std. A model type's own may not crop.
    BitImageProcessor(
        size={"shortest_edge": view.resize},
        resample=_PIL_FILTERS[view.interpolation],
        crop_size={"height": view.image_size, "width": view.image_size},
        image_mean=view.mean,
        image_std=view.std,
        do_convert_rgb=view.in_chans == 3,
    ).save_pretrained(folder)


def _load_transformers(folder: Path) -> nn.Module:
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False)


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
    x = torch.randn(2, view.in_chans, view.image_size, view.image_size, generator=generator)
    expected, found = logits(model.eval()(x)), logits(loaded.eval()(x))
    if expected.shape != found.shape or not torch.equal(expected, found):
        raise RunFolderError(
            "the exported folder does not give the network's logits when it is loaded back "
            f"({tuple(found.shape)}, expected {tuple(expected.shape)}); nothing was exported"
        )


@contextlib.contextmanager
def _replacing_folder(to: Path) -> Iterator[Path]:
    """A temporary folder beside `to` that takes its place when the block ends well, and vanishes when it does not."""
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}.", suffix=".part"))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if to.exists():
            to.rename(old)
        temporary.rename(to)
    finally:
        if old.exists() and not to.exists():
            old.rename(to)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
