"""The data and the plain network of a recipe, or of a finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn, zeros

from ..config import Data, Recipe
from ..data import load_data
from ..data.module import DataModule
from ..errors import ConfigError, WeightsNotFoundError
from ..models.build import build_model, library_of
from ..models.head import renew_head
from ..models.video_networks import NETWORKS, NORMALISATION
from ..rundir import RunDir


def build(recipe: Recipe) -> tuple[DataModule, nn.Module]:
    """Data and plain network of a recipe. Recipes with a different `vcreg` alone start from the same weights.

    Errors: those of the data set and of the model; ConfigError where `eval.split` names an empty split.
    """
    from accelerate.utils import set_seed

    data = recipe_data(recipe)
    set_seed(recipe.train.seed)
    try:
        network = build_model(
            recipe.model,
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            image_size=recipe.data.image_size,
            frames=recipe.video.frames if recipe.video else None,
        )
    except OSError as error:  # what huggingface_hub raises offline, and torch on a failed download
        raise WeightsNotFoundError(
            f"the pretrained weights of {recipe.model.name} could not be had ({str(error).strip().splitlines()[0]}); "
            "give a folder or file with --set model.pretrained=PATH, or --set model.pretrained=false for a random start"
        ) from error
    if recipe.model.pretrained:
        renew_head(network, recipe.model, data.class_names, example_input(data))
    if recipe.train.channels_last:
        import torch

        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return data, network


def load_run(path: str | Path) -> tuple[Recipe, DataModule, nn.Module]:
    """The recipe, data and plain trained network of a finished run. Errors: RunFolderError."""
    folder = RunDir(path)
    recipe, tensors = folder.recipe(), folder.tensors()
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
    data = load_data(cfg, recipe.video)
    if not data.size(recipe.eval.split):
        raise ConfigError(f"eval.split={recipe.eval.split}: nothing is held out; set data.val_fraction, such as 0.2")
    return data


def example_input(data: DataModule) -> Tensor:
    """Zeros in the shape of one input."""
    return zeros(1, *data.input_shape)
