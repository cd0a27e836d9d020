"""The data and the plain network of a recipe, or of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn, zeros

from ..config import Data, Recipe
from ..data import is_drawn, load_data
from ..data.module import DataModule
from ..errors import ConfigError, WeightsNotFoundError, first_line
from ..files import JSON
from ..models.build import build_model, library_of
from ..models.checkpoint import view_of_weights
from ..models.head import head_origin, renew_head
from ..models.libraries.library import recoloured
from ..models.video_networks import NETWORKS, NORMALISATION
from ..rundir import RunDir


def build(recipe: Recipe, log: Callable[[str], None] = lambda text: None) -> tuple[DataModule, nn.Module]:
    """Data and plain network of a recipe. Recipes with a different `vcreg` alone start from the same weights.

    log: told where the head of a pretrained network comes from.

    Errors: those of the data set and of the model; ConfigError where `eval.split` names an empty split.
    """
    from accelerate.utils import set_seed

    recipe = with_view_of_weights(recipe)
    data = recipe_data(recipe)
    if recipe.train.class_groups > 1 and not data.in_groups:
        raise ConfigError(f"train.class_groups={recipe.train.class_groups}: {data} shows all classes at once; set 1")
    set_seed(recipe.train.seed)
    try:
        network = build_model(
            recipe.model,
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            image_size=recipe.data.image_size,
            frames=recipe.video.frames if recipe.video else None,
        )
    except (OSError, WeightsNotFoundError) as error:  # offline, and on a failed download
        if recipe.model.pretrained is not True:
            raise
        raise WeightsNotFoundError(
            f"the pretrained weights of {recipe.model.name} could not be had ({first_line(error)}); "
            "give a folder or file with --set model.pretrained=PATH, or --set model.pretrained=false for a random start"
        ) from error
    if recipe.model.pretrained:
        renew_head(network, recipe.model, data.class_names, example_input(data))
        log(f"head: {head_origin(network, data.class_names)}")
    if recipe.train.channels_last:
        import torch

        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return data, network


def with_view_of_weights(recipe: Recipe, log: Callable[[str], None] = lambda text: None) -> Recipe:
    """A recipe of `data.preprocessing=model` with the values that the pretrained weights were trained with; any other
    one as it is. Without pretrained weights they are those of the library's weights for the architecture.

    log: told where they come from. Errors: those of finding the weights.
    """
    cfg = recipe.data
    if cfg.preprocessing == "data" or recipe.video is not None:
        return recipe
    origin, view = view_of_weights(recipe.model)
    resize = cfg.resize or max(cfg.image_size, round(cfg.image_size * view.resize / view.image_size))
    how = view.interpolation if cfg.interpolation == "model" else cfg.interpolation
    channels = cfg.channels or view.in_chans
    mean = cfg.mean or tuple(recoloured(view.mean, channels))
    std = cfg.std or tuple(recoloured(view.std, channels))
    told = [name for name in ("mean", "std", "resize", "channels") if getattr(cfg, name) is not None]
    told += ["interpolation"] * (cfg.interpolation != "model")
    log(
        f"preprocessing of {origin}: {how}, short side to {resize}, {cfg.image_size} pixels a side, mean "
        f"{_short(mean)}, std {_short(std)}" + (f"; told otherwise: {', '.join(told)}" if told else "")
    )
    seen: JSON = {"preprocessing": "data", "interpolation": how, "channels": channels, "fit": view.fit}
    return replace(recipe, data=replace(cfg, mean=mean, std=std, resize=resize, **seen))


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def recipe_as_run(folder: RunDir) -> Recipe:
    """The recipe of a finished run, with what it took from its pretrained weights, which may have gone since.

    Errors: RunFolderError.
    """
    recipe = folder.recipe()
    if recipe.data.preprocessing == "data":
        return recipe
    data: JSON = folder.results()["data"]
    seen: JSON = {name: data[name] for name in ("resize", "interpolation", "fit")}
    seen |= {name: tuple(data[name]) for name in ("mean", "std")} | {"channels": data["in_chans"]}
    return replace(recipe, data=replace(recipe.data, preprocessing="data", **seen))


def load_run(path: str | Path) -> tuple[Recipe, DataModule, nn.Module]:
    """The recipe, data and plain trained network of a finished run. Errors: RunFolderError."""
    folder = RunDir(path)
    recipe, tensors = recipe_as_run(folder), folder.tensors()
    data, network = build(replace(recipe, model=replace(recipe.model, pretrained=False)))
    network.load_state_dict(tensors)
    return recipe, data, network


def recipe_data(recipe: Recipe, cfg: Data | None = None) -> DataModule:
    """The training data of a recipe, or those of `cfg`, seen as its network sees them.

    Errors: those of reading them; ConfigError for a network of the other kind, images or clips.
    """
    clips, name = recipe.video is not None, recipe.model.name
    if clips and not library_of(name).takes_clips:
        raise ConfigError(
            f"{name} takes images, but the recipe has a video section: model.name is one of "
            f"{', '.join(NETWORKS)}, or hf:<id or folder> of a video classifier"
        )
    if not clips and name in NETWORKS:
        raise ConfigError(f"{name} takes clips, but the recipe has no video section: --set video.frames=16")
    cfg = cfg or recipe.data
    if name in NETWORKS and cfg.mean is None and cfg.std is None:
        mean, std = NORMALISATION[NETWORKS[name].normalisation]
        cfg = replace(cfg, mean=mean, std=std)
    if is_drawn(cfg):
        cfg = replace(cfg, split_seed=recipe.train.seed)
    return checked_split(load_data(cfg, recipe.video), recipe.eval.split)


def checked_split(data: DataModule, split: str) -> DataModule:
    """`data`, of which `split` is measured. Errors: ConfigError where that is empty."""
    if not data.size(split):
        raise ConfigError(f"eval.split={split}: nothing is held out; set data.val_fraction, such as 0.2")
    return data


def example_input(data: DataModule) -> Tensor:
    """Zeros in the shape of one input."""
    return zeros(1, *data.input_shape)
