"""Builds and loads networks through the adapter of their library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints.find import Weights, library_of_config
from ..checkpoints.load import refuse_other_sources
from ..config import Model
from ..errors import ConfigError, RunFolderError, UsageError, unknown_name
from ..files import JSON, parse_json, read_tensors
from .head import classes_in_folder, remember_classes
from .libraries.library import Library, Loader, Sizes, SnippetSource, fill
from .libraries.timm import Timm
from .libraries.torchvision import Torchvision
from .libraries.transformers import Transformers
from .video_networks import NETWORKS

# The one table of them; a new library is a file and a row.
LIBRARIES: dict[str, Library] = {library.name: library for library in (Timm(), Transformers(), Torchvision())}
_NOT_KWARGS = {
    **dict.fromkeys(("num_classes", "in_chans", "num_labels", "num_channels"), "the data decide it"),
    "vcreg": "the recipe has a field of that name beside the model",
}


def library_of(model: str) -> Library:
    """The library of a recipe's model name. Errors: UnknownNameError for an unknown part before its colon."""
    library = _library_named_in(model)
    if library is None:
        known = [library.prefix for library in LIBRARIES.values() if library.name != "timm"]
        raise unknown_name("kind of model", model.partition(":")[0], known, "A name without ':' is timm's.")
    return library


def _library_named_in(model: str) -> Library | None:
    prefix, colon, _ = model.partition(":")
    if not colon:
        return LIBRARIES["transformers" if model in NETWORKS else "timm"]
    return next((library for library in LIBRARIES.values() if library.prefix == prefix), None)


def build_model(
    cfg: Model, *, num_classes: int, in_chans: int, image_size: int, frames: int | None = None
) -> nn.Module:
    """The plain network of a recipe for images (n, in_chans, image_size, image_size), in training mode.

    A name of `video_networks.NETWORKS` takes clips (n, frames, in_chans, image_size, image_size) instead, and so does
    an `hf:` name with `frames`, which is then one of transformers' video classifiers. frames: of a clip; None for a
    video network's own number.

    A `*_vcreg` name is the stock architecture, and `pretrained=True` its VCReg weights: whether this run regularizes is
    said by the recipe's `vcreg`, not by the name. `pretrained` may also be a folder (a run's, or an exported one), a
    safetensors file, `<name>_vcreg.<tag>`, or a Hub id, `hf-hub:` before it or not. A classifier for another number of
    classes is replaced by a fresh one; every other tensor must fit.

    Errors: UnknownNameError, ConfigError for arguments the constructor does not take, UsageError that names the tensors
    that do not fit, WeightsNotFoundError, and UsageError for pickled weights.
    """
    for name in _NOT_KWARGS.keys() & cfg.kwargs.keys():
        raise ConfigError(f"model.kwargs.{name}: {_NOT_KWARGS[name]}; leave it out")
    refuse_other_sources(cfg.kwargs, "model.kwargs")
    library = library_of(cfg.name)
    if frames is not None and not library.takes_clips:
        raise UsageError(
            f"{library.bare(cfg.name)} takes images: for clips model.name is one of {', '.join(NETWORKS)}, or "
            "hf:<id or folder>"
        )
    sizes = Sizes(num_classes, in_chans, image_size, frames)
    weights = library.weights(cfg, sizes)
    if weights is not None and not library.accepts(weights):
        raise _other_library(weights, library, cfg.name)
    model = library.build(cfg, sizes)
    if weights is not None:
        fill(model, read_tensors(weights.file), sizes, weights.origin)
        remember_classes(model, classes_in_folder(weights.folder))
    return model.train()


def _other_library(weights: Weights, wanted: Library, model: str) -> UsageError:
    other = LIBRARIES.get(weights.library)
    cure = "" if other is None else f"; use {other.recipe_name(weights.config or {})}"
    return UsageError(
        f"{weights.origin} holds weights for {weights.library}, but {wanted.bare(model)} is {wanted.name}'s{cure}"
    )


def build_on_meta(name: str, **kwargs: Any) -> nn.Module:
    """The network `name` without weights, its tensors on the meta device: a timm architecture, `hf:<id, folder or
    config.json>` or `torchvision:<name>`; `kwargs` go to the library's own constructor.

    Errors: UnknownNameError for a name the library does not have, UsageError for a config that is not there or has no
    vision classifier.
    """
    timms_own = name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    return (LIBRARIES["timm"] if timms_own else library_of(name)).build_on_meta(name, **kwargs)


def load_network(folder: Path) -> nn.Module:
    """The network of an export folder, loaded by the library of its config.json; in eval mode.

    Errors: RunFolderError when config.json is absent or is for no library known; IntegrityError when the installed
    transformers does not find a place for every tensor.
    """
    config = read_config(folder)
    library = LIBRARIES.get(library_of_config(config))
    if library is None:
        raise RunFolderError(f"{folder / 'config.json'} is for {library_of_config(config)}, which is not known here")
    return library.load(folder, config)


def loader_of(config: Mapping[str, Any] | None, model: str, *, video: bool = False) -> Loader:
    """The loader of a recipe's network files.

    config: of its export; before there is one, the recipe's name says what the export will be. video: whether the
    recipe trains on clips.
    """
    library = LIBRARIES.get(library_of_config(config)) if config else _library_named_in(model)
    return (library or LIBRARIES["timm"]).loader(config, model, video=video)


def load_snippets(source: SnippetSource) -> dict[str, str]:
    """Title -> Python that users run; the first, without a title, loads published weights and computes logits."""
    # Our own architectures are registered with timm.
    return LIBRARIES.get(source.loader.library, LIBRARIES["timm"]).snippets(source)


def input_shape(folder: Path) -> tuple[int, ...]:
    """Of one sample for the network of an export folder, from config.json and results.json."""
    config = read_config(folder)
    if "pretrained_cfg" in config:
        return (1, *config["pretrained_cfg"]["input_size"])
    if "num_frames" in config:
        size = config["image_size"]
        return (1, config["num_frames"], config.get("num_channels", 3), size, size)
    data = parse_json((folder / "results.json").read_text(encoding="utf-8")).get("data", {})
    size = int(data.get("image_size") or config.get("image_size") or 224)
    return (1, int(data.get("in_chans") or config.get("num_channels", 3)), size, size)


def read_config(folder: Path) -> JSON:
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise RunFolderError(f"{folder / 'config.json'} holds a {type(config).__name__}, expected an object")
    refuse_other_sources(config.get("model_args"), f"{folder / 'config.json'}: model_args")
    return config
