"""Turns another program's checkpoint into a run folder, which can be measured, exported and published.

timm's last.pth.tar             runs/mine
  state_dict_ema        ->        model.safetensors     names as the plain network has them
  args                  ->        recipe.json           the network, and how it is shown an image
  epoch                 ->        results.json          origin, hash of the file, no metrics: nobody measured it here
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..checkpoints.foreign import Foreign, matched, read_foreign
from ..checkpoints.load import load_tensors
from ..config import Data, Model, Recipe, override
from ..env import describe_env
from ..errors import UsageError, some
from ..files import JSON, replacing_folder, write_json, write_tensors
from ..models.build import build_model, build_on_meta
from ..models.checkpoint import view_of_architecture
from ..models.libraries.library import Preprocessing, recoloured
from ..placement.sites import find_blocks
from ..releases import MODULE
from ..rundir import RunDir

# What may be told of the network and of the view beside what the file says.
_TOLD = ("model.kwargs", "data.image_size", "data.resize", "data.interpolation", "data.mean", "data.std", "data.fit")


def import_checkpoint(
    path: str | Path,
    model: str,
    out: str | Path,
    *,
    entry: str | None = None,
    classes: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> RunDir:
    """Write the run folder `out` with the weights of the checkpoint `path`; see `checkpoints.foreign.read_foreign`.

    model: the network, as a recipe names it (`resnet50`, `hf:<id or folder>`, `torchvision:<name>`). entry: of the
    file. classes: names in the order of the logits; None for numbers. settings: as `--set` has them, of model.kwargs
    and of how an image is shown; in place of what timm's train.py noted in the file, or else of the library's own for
    the architecture. Number of classes and channels are read off the weights.
    Errors: UsageError for an `out` that is not empty, names or shapes that do not fit, another number of names than
    logits; IntegrityError for a file that cannot be read.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already: give another folder")
    if strange := [one for one in settings if not one.startswith(_TOLD)]:
        raise UsageError(f"--set {strange[0]}: of an imported network are told {', '.join(_TOLD)}")
    foreign = read_foreign(path, entry)
    recipe = override(Recipe(_name(foreign, model), Model(model), Data("")), settings)
    try:
        empty = build_on_meta(model, **recipe.model.kwargs)
    except TypeError as error:
        raise UsageError(f"model.kwargs do not fit {model}: {error}") from None
    tensors, prefix = matched(foreign, empty.state_dict())
    named = {one.partition("=")[0].removeprefix("data.") for one in settings if one.startswith("data.")}
    size = recipe.model.kwargs.get("img_size")
    noted = {**foreign.arguments, **({"img_size": size} if isinstance(size, int) else {})}
    view = _view(_usual_view(model, recipe.data, named), noted, recipe.data, named)
    channels = _channels(tensors, view.in_chans)
    view = replace(view, classes=_classes(_logits(empty, tensors), classes), in_chans=channels)
    # Mean and deviation for as many channels as the weights take.
    view = replace(view, mean=recoloured(view.mean, channels), std=recoloured(view.std, channels))
    network = build_model(recipe.model, **vars(view.sizes))
    _refuse_other_values(network.state_dict(), tensors, foreign)
    load_tensors(network, tensors, origin=str(foreign.file))
    others = [name for name in foreign.tensors if not name.replace("_orig_mod.", "").startswith(prefix)]
    about: JSON = {"file": foreign.file.name, "sha256": foreign.sha256, "entry": foreign.entry, "prefix": prefix}
    about |= {"left_out": len(others), **foreign.facts}
    with replacing_folder(out) as folder:
        run = RunDir(folder)
        run.write_recipe(recipe)
        write_tensors(folder / "model.safetensors", network.state_dict())
        write_json(folder / "env.json", describe_env(1))
        data = {name: value for name, value in asdict(view).items() if value is not None}
        training = {"imported": {name: value for name, value in about.items() if value not in ("", 0)}}
        write_json(
            folder / "results.json",
            {"format": 1, "origin": MODULE, "metrics": [], "training": training, "data": data},
        )
    log(f"{foreign.file.name}: {len(tensors)} tensors{f' under {foreign.entry}' if foreign.entry else ''}, of {model}")
    if others:
        log(f"left out, because they are not the network's: {some(others)}")
    log(f"shown {view.in_chans} x {view.image_size} x {view.image_size} pixels, mean {view.mean}, std {view.std}")
    return RunDir(out)


def _name(foreign: Foreign, model: str) -> str:
    return re.sub(r"[^\w.-]", "_", f"imported_{model}_{foreign.sha256[:8]}")


def _refuse_other_values(own: Mapping[str, Any], tensors: Mapping[str, Any], foreign: Foreign) -> None:
    """Errors: UsageError for tensors of another shape, which a library would resample in silence, or with NaN."""
    for name, tensor in tensors.items():
        if name in own and tensor.shape != own[name].shape:
            raise UsageError(
                f"{foreign.file}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}. Was it trained "
                "at another image size? Say so with --set data.image_size=N"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UsageError(f"{foreign.file}: {name} has values that are not finite: has the training diverged?")


def _logits(empty: Any, tensors: Mapping[str, Any]) -> int | None:
    """The number of classes that the file's classifier has; None where it has none."""
    for site in find_blocks(empty, "final"):
        weight = tensors.get(f"{site.name}.weight")
        if weight is not None:
            return int(weight.shape[0])
    return None


def _classes(logits: int | None, names: Sequence[str] | None) -> list[str]:
    if logits is None:
        raise UsageError("the file has no classifier for this network: expected weights of its last layer among them")
    if names is not None and len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"each class has a name of its own, but {some(twice)} stands there more than once")
    if names is not None and len(names) != logits:
        raise UsageError(f"{len(names)} class names were given, but the weights have {logits} logits")
    return list(names) if names is not None else [str(number) for number in range(logits)]


def _channels(tensors: Mapping[str, Any], usual: int) -> int:
    """The input channels of the first convolution in the file, `usual` for a network without one."""
    return next((int(tensor.shape[1]) for tensor in tensors.values() if tensor.ndim in (4, 5)), usual)


def _usual_view(model: str, told: Data, named: set[str]) -> Preprocessing:
    """That of the library; where it says none, all of it has to be told. Errors: UsageError."""
    try:
        return view_of_architecture(model)
    except UsageError as error:
        if not {"image_size", "mean", "std"} <= named or told.mean is None or told.std is None:
            raise UsageError(f"{error}; here: --set data.image_size=, data.mean= and data.std=") from None
    size = told.image_size
    return Preprocessing([], len(told.mean), size, size, told.interpolation, list(told.mean), list(told.std))


def _view(usual: Preprocessing, noted: Mapping[str, Any], told: Data, named: set[str]) -> Preprocessing:
    """The library's view of the architecture, then what timm's arguments in the file say, then what is told."""
    size, share = usual.image_size, usual.image_size / usual.resize
    if isinstance(shape := noted.get("input_size"), list | tuple) and len(shape) == 3:
        size = int(shape[-1])
    size = int(noted.get("img_size") or size)
    if isinstance(crop := noted.get("crop_pct"), float) and crop > 0:
        share = crop
    said: dict[str, Any] = {}
    for name in ("mean", "std"):
        if isinstance(values := noted.get(name), list | tuple) and values:
            said[name] = [float(value) for value in values]
    if isinstance(way := noted.get("interpolation"), str) and way in ("bilinear", "bicubic", "nearest"):
        said["interpolation"] = way
    size = told.image_size if "image_size" in named else size
    said |= {name: getattr(told, name) for name in named - {"image_size", "resize"}}
    resize = told.resize if "resize" in named and told.resize else int(size / share)
    said |= {name: list(said[name]) for name in ("mean", "std") if said.get(name) is not None}
    return replace(usual, image_size=size, resize=resize, **said)
