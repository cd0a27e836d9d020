"""Any trained network by name, folder or Hub id, with its own preprocessing and class names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ..checkpoints.find import find_weights, library_of_config, refuse_only_pickles, resolve
from ..checkpoints.limits import guarded
from ..checkpoints.load import load_file
from ..config import Data, Model, Recipe, Video
from ..errors import RunFolderError, UsageError, WeightsNotFoundError, first_line, unknown_name
from ..releases import CONFIG, MODULE, RESULTS
from ..rundir import RunDir
from . import zoo
from .build import LIBRARIES, build_model, build_on_meta, library_of, load_network, read_config
from .libraries.library import Preprocessing, Sizes, input_of
from .libraries.timm import stock_weights
from .video_networks import NETWORKS

_logger = logging.getLogger("vcreg_hub")
# Mean and deviation.
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Checkpoint:
    """A trained network in evaluation mode. name: what it was asked for by. view: how it is shown a sample; assumed,
    where nobody said it."""

    network: nn.Module
    view: Preprocessing
    name: str
    assumed: bool = False

    def shown(self, cfg: Data) -> Data:
        """`cfg` with the test view of this network: its size, crop, normalisation and channels."""
        view = self.view
        about: dict[str, Any] = {"image_size": view.image_size, "train_size": None, "interpolation": view.interpolation}
        about |= {"mean": tuple(view.mean), "std": tuple(view.std)}
        if view.frames is None:
            about |= {"resize": view.resize, "fit": view.fit, "channels": view.in_chans}
        return replace(cfg, **about)

    @property
    def video(self) -> Video | None:
        """The clips that it takes; None for a network of images."""
        return None if self.view.frames is None else Video(frames=self.view.frames)


def load_checkpoint(source: str | Path | nn.Module, preprocessing: Preprocessing | None = None) -> Checkpoint:
    """The trained network that `source` names.

    source: a run folder, an export folder (`local-dir:` before it or not), a release (`<name>_vcreg`, with a tag or
        without), a timm name with its default weights, `hf-hub:<id>` for a repo in timm's format, `hf:<id or folder>`
        for transformers' image or video classifiers, `torchvision:<name>`, a name of `video_networks.NETWORKS`, or a
        module. preprocessing: in place of its own. A module that says nothing about it is taken for one of ImageNet's,
        with a warning.
    Errors: UnknownNameError; WeightsNotFoundError; RunFolderError for a folder that is neither; UsageError for weights
    that do not fit or are pickles; IntegrityError for a file that is not what its publisher recorded.
    """
    if isinstance(source, nn.Module):
        view, assumed = (preprocessing, False) if preprocessing else _preprocessing_of(source)
        return Checkpoint(source.eval(), view, type(source).__name__, assumed)
    name = str(source)
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    if folder.is_dir():
        network, view = _in_folder(folder)
    elif name.startswith("local-dir:") or isinstance(source, Path) or ("/" in name and ":" not in name):
        raise RunFolderError(f"there is no folder {folder.absolute()}: expected a run folder or an export")
    else:
        network, view = _named(name)
    return Checkpoint(network.eval(), preprocessing or view, name)


def view_of_weights(cfg: Model) -> tuple[str, Preprocessing]:
    """Where the preprocessing of a recipe's pretrained network is said, in words, and that preprocessing.

    A bare file of weights, and a random start, have that of the library's own weights for the architecture.
    Errors: those of `load_checkpoint`.
    """
    source, library = cfg.pretrained, library_of(cfg.name)
    bare = library.bare(cfg.name)
    if source is True and library.name == "timm" and bare.partition(".")[0].endswith(zoo.SUFFIX):
        source = bare
    if isinstance(source, str):
        folder = resolve(source).folder
        if (folder / CONFIG).is_file() or RunDir(folder).complete():
            return source, _view_in(folder)
    return f"{library.name}'s {bare}", view_of_architecture(cfg.name)


def view_of_architecture(name: str) -> Preprocessing:
    """How a library shows an image to its own weights for the architecture `name`, a recipe's model name."""
    library = library_of(name)
    return library.preprocessing(build_on_meta(name), name if library.name == "torchvision" else library.bare(name))


def _view_in(folder: Path) -> Preprocessing:
    """The preprocessing of a run or an export, read without the weights of a run."""
    if not (folder / CONFIG).is_file():
        run = RunDir(folder)
        return run_view(run.recipe(), run.results())
    return LIBRARIES[library_of_config(read_config(folder))].preprocessing(load_network(folder), folder)


def is_run(source: str | Path) -> bool:
    """Tells whether a name means a run folder: a folder without config.json, or a path of nothing."""
    name = str(source)
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    if folder.is_dir():
        return not (folder / CONFIG).is_file()
    return isinstance(source, Path) or ("/" in name and ":" not in name)


def is_imported(run: str | Path) -> bool:
    """Tells whether a run or export folder holds another program's weights, by `vcreg import` or `export_module`."""
    folder = RunDir(str(run).removeprefix("local-dir:"))
    return (folder.path / RESULTS).is_file() and folder.results().get("origin") == MODULE


def run_view(recipe: Recipe, results: dict[str, Any]) -> Preprocessing:
    """The test view and class names of a run, from results.json["data"]. Errors: RunFolderError naming what lacks."""
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
        frames=recipe.video.frames if recipe.video is not None else None,
        fit=data.get("fit") or recipe.data.fit,
    )
    if not len(view.mean) == len(view.std) == view.in_chans:
        raise RunFolderError(
            f"results.json has {len(view.mean)} means and {len(view.std)} stds for {view.in_chans} channels"
        )
    return view


def run_network(cfg: Model, view: Preprocessing, file: Path) -> nn.Module:
    """A run's plain network with the weights of `file`, in evaluation mode."""
    model = build_model(
        replace(cfg, pretrained=False),
        num_classes=len(view.classes),
        in_chans=view.in_chans,
        image_size=view.image_size,
        frames=view.frames,
    )
    load_file(model, file)
    return model.eval()


def _in_folder(folder: Path) -> tuple[nn.Module, Preprocessing]:
    refuse_only_pickles(folder)
    if (folder / CONFIG).is_file():
        resolve(str(folder))  # the recorded hashes are compared
        network = load_network(folder)
        return network, LIBRARIES[library_of_config(read_config(folder))].preprocessing(network, folder)
    run = RunDir(folder)
    recipe = run.recipe()
    view = run_view(recipe, run.results())
    return run_network(recipe.model, view, folder / "model.safetensors"), view


def _named(name: str) -> tuple[nn.Module, Preprocessing]:
    if name.startswith(("hf-hub:", "hf_hub:")):
        return _in_folder(resolve(f"hf-hub:{name.partition(':')[2]}").folder)
    library = library_of(name)
    bare = library.bare(name)
    if library.name == "timm" and bare not in NETWORKS:
        architecture = bare.partition(".")[0]
        if architecture.endswith(zoo.SUFFIX):
            return _in_folder(find_weights(bare).folder)
        if not timm.is_model(architecture):
            raise unknown_name("model", name, timm.list_models(), "A folder of weights is given by its path.")
    with _weights_missing(name):
        network = _with_own_weights(name)
    return network, library.preprocessing(network, name if library.name == "torchvision" else bare)


def _with_own_weights(name: str) -> nn.Module:
    """The network of a library with the weights and classes that the library itself has for it."""
    library = library_of(name)
    bare = library.bare(name)
    if library.name == "timm":
        with guarded():
            return timm.create_model(bare, pretrained=True, **stock_weights(bare))
    if library.name == "torchvision":
        return library.build(Model(name, pretrained=True), Sizes(1000, 3, 224))
    if name in NETWORKS:
        from .video import build_video_model

        return build_video_model(name, pretrained=True)
    import transformers

    from . import native

    config = native.load_config(bare)
    video = hasattr(config, "num_frames")
    auto = transformers.AutoModelForVideoClassification if video else transformers.AutoModelForImageClassification
    return native.load_classifier(auto, bare, config)


@contextmanager
def _weights_missing(name: str) -> Iterator[None]:
    """What a library raises where there are no weights, or none can be had now, as WeightsNotFoundError."""
    try:
        yield
    except (OSError, RuntimeError, WeightsNotFoundError) as error:
        if isinstance(error, UsageError):
            raise
        reason = first_line(error)
        raise WeightsNotFoundError(
            f"the weights of {name} could not be had ({reason}). Give the folder of a run or an export instead, or in "
            "Python a module"
        ) from error


def _preprocessing_of(network: nn.Module) -> tuple[Preprocessing, bool]:
    """What a module says of itself, else ImageNet's preprocessing; and whether that is assumed."""
    if isinstance(getattr(network, "pretrained_cfg", None), dict):
        return LIBRARIES["timm"].preprocessing(network), False
    if hasattr(network, "config") and hasattr(network, "main_input_name"):
        try:
            return LIBRARIES["transformers"].preprocessing(network), False
        except UsageError as error:
            _logger.warning("%s", error)
    *clip, channels, size, _ = input_of(network)
    _logger.warning(
        "%s does not say how its pixels are prepared: taking %d pixels a side and ImageNet's mean and deviation; give "
        "preprocessing= for others", type(network).__name__, size,
    )  # fmt: skip
    mean, std = (values[:channels] if channels <= 3 else [0.5] * channels for values in _IMAGENET)
    return Preprocessing([], channels, size, size, "bilinear", mean, std, clip[0] if clip else None), True
