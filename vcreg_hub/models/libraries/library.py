"""The interface to a library of networks. An adapter is a file beside this one and a row of `build.LIBRARIES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ...checkpoints.find import Weights, resolve
from ...checkpoints.load import load_tensors
from ...config import Model
from ...errors import ConfigError, UsageError, VCRegError
from ...files import JSON
from ...placement.dry_run import examples
from ...placement.sites import find_blocks


@dataclass(frozen=True)
class Sizes:
    """The data's demands on a network. frames: of a clip; None for images, or for a network's own number."""

    num_classes: int
    in_chans: int
    image_size: int
    frames: int | None = None


@dataclass(frozen=True)
class Preprocessing:
    """The test view of a run: short side to `resize`, centre crop to `image_size`, normalise by mean and std.

    frames: of a clip, None for images. fit: `crop` as above, `squash` for both sides to `resize`, as `data.fit`.
    """

    classes: list[str]
    in_chans: int
    image_size: int
    resize: int
    interpolation: str
    mean: list[float]
    std: list[float]
    frames: int | None = None
    fit: Literal["crop", "squash"] = "crop"

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.classes), self.in_chans, self.image_size, self.frames)


@dataclass(frozen=True)
class Loader:
    """The loader of a network's files. library: as a card names it. auto_class: of transformers, "" elsewhere."""

    library: str
    architecture: str
    auto_class: str = ""
    video: bool = False


@dataclass(frozen=True)
class SnippetSource:
    """A card's facts on the weights of its snippet.

    repo_id: None for the folder that holds the card. packaged: whether they ship inside this package, under `name`.
    stride: of a clip's frames in the video.
    """

    name: str
    repo_id: str | None
    loader: Loader
    processor: bool
    packaged: bool
    in_chans: int
    image_size: int
    stride: int = 1

    @property
    def mode(self) -> str:
        """What PIL calls an image with as many channels."""
        return "L" if self.in_chans == 1 else "RGB"

    def in_pipeline(self, *imports: str) -> str:
        """Python to classify a picture by transformers' own pipeline; a test runs it as it is printed."""
        place = f'"{self.repo_id or "."}"'
        lines = [*imports, "from transformers import pipeline"]
        if self.packaged:
            place = "str(folder)"
            lines += ["from vcreg_hub.checkpoints.find import find_weights", ""]
            lines += [f'folder = find_weights("{self.name}").folder']
        else:
            lines += [""]
        lines += [f'classify = pipeline("image-classification", model={place})']
        if self.mode == "L":
            lines += [
                "prepare = classify.image_processor",
                "# The pipeline opens every picture in colour; this network takes grey ones.",
                'classify.image_processor = lambda images, **how: prepare(images.convert("L"), **how)',
            ]
        return "\n".join([*lines, 'answers = classify("picture.png", top_k=3)  # [{"label": ..., "score": ...}, ...]'])


# Titles of snippets. The first loads the weights; the last stands alone, the others go on from the first.
LOAD, PICTURE, FEATURES, PIPELINE = "", "One picture", "Features and embeddings", "In transformers' pipeline"
# Prints the best three classes; `shares` and `names` stand before it.
TOP_3 = "answers = {names[int(n)]: float(shares[n]) for n in shares.argsort(descending=True)[:3]}"


def embeddings_of(layer: str, call: str) -> list[str]:
    """Lines of Python that keep what enters a layer, of the expression `layer`, while `call` runs."""
    return [
        "kept = []",
        f"hook = {layer}.register_forward_hook(lambda layer, given, logits: kept.append(given[0].flatten(1)))",
        "with torch.no_grad():",
        f"    {call}",
        "hook.remove()",
        "(embeddings,) = kept  # (1, d): what the classifier reads",
    ]


class Library(ABC):
    """One library of networks.

    name: as config.json, cards and the table name it. prefix: what a recipe's model name has before its colon.
    takes_clips: whether it has video classifiers, for clips (n, frames, in_chans, image_size, image_size).
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    takes_clips: ClassVar[bool] = False

    def bare(self, model: str) -> str:
        """A recipe's model name as the library itself says it."""
        return model.removeprefix(f"{self.prefix}:")

    def weights(self, cfg: Model, sizes: Sizes) -> Weights | None:
        """The weights for a recipe's network; None for none, or for those `build` loads itself.

        Errors: those of `checkpoints.find.resolve`.
        """
        return resolve(cfg.pretrained) if isinstance(cfg.pretrained, str) else None

    def base_model(self, cfg: Model) -> str | None:
        """The Hub id of the weights a recipe's network starts from; None for none, and for weights of this machine."""
        start = cfg.pretrained
        if not isinstance(start, str) or Path(start).expanduser().exists():
            return None
        repo = start.removeprefix("hf-hub:").partition("@")[0]
        return repo if repo.count("/") == 1 else None

    def accepts(self, weights: Weights) -> bool:
        """Whether such weights may be tried: of this library, or without a telling config.json."""
        return weights.config is None or weights.library == self.name

    @abstractmethod
    def build(self, cfg: Model, sizes: Sizes) -> nn.Module:
        """The plain network of a recipe; with `pretrained=True` the library's own weights are in it, and
        `head.remember_classes` is told of their classes. `build.build_model` has the errors."""

    @abstractmethod
    def build_on_meta(self, model: str, **kwargs: Any) -> nn.Module:
        """The network without weights, its tensors on the meta device. kwargs: of the library's own constructor.

        Errors: UnknownNameError; UsageError for a configuration that cannot be read.
        """

    @abstractmethod
    def save(self, folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> nn.Module:
        """Write config.json, the weights and the preprocessing; returns the written network.

        model: that of `cfg`, in evaluation mode. Another one is returned where an equivalent was written in its place.
        """

    @abstractmethod
    def load(self, folder: Path, config: JSON) -> nn.Module:
        """The network of a folder by `save`, read as its users read it. config: of its config.json.

        Errors: RunFolderError, IntegrityError.
        """

    @abstractmethod
    def preprocessing(self, model: nn.Module, source: Path | str | None = None) -> Preprocessing:
        """How `model` is shown an image or a clip, and the names of its classes, numbers where they have none.

        source: the folder that `load` read it from, or the library's name for it; None for what the network says.
        Errors: UsageError for a preprocessing that is not known, or that `Preprocessing` cannot express.
        """

    @abstractmethod
    def loader(self, config: Mapping[str, Any] | None, model: str, *, video: bool) -> Loader:
        """The loader of a recipe's network files. config: of its export; None before there is one."""

    @abstractmethod
    def snippets(self, source: SnippetSource) -> dict[str, str]:
        """Title -> Python that users run, `LOAD` first: it loads published weights and computes logits."""

    def recipe_name(self, config: Mapping[str, Any]) -> str:
        """How a recipe names the network of an exported config.json, in words of an error message."""
        return f"{self.prefix}:{config.get('architecture')}"


def input_of(model: nn.Module) -> tuple[int, ...]:
    """The shape of one sample, as the network itself says: (channels, size, size), or (frames, channels, size, size).

    Errors: UsageError for a network that takes no square images.
    """
    arguments, named = next(examples(model))
    shape = tuple(next(iter((*arguments, *named.values()))).shape[1:])
    if len(shape) not in (3, 4) or shape[-1] != shape[-2]:
        raise UsageError(f"{type(model).__name__} takes inputs of shape {shape}, expected square images or clips")
    return shape


def recoloured(values: Sequence[float], channels: int) -> list[float]:
    """Means or deviations of pixels for a network that takes grey images where they are of colour, or the reverse."""
    return [float(value) for value in values] if len(values) == channels else [sum(values) / len(values)] * channels


def numbered_classes(classes: Sequence[str] | None, count: int) -> list[str]:
    """Names of `count` classes: `classes` where they are as many, else their numbers."""
    return list(classes) if classes and len(classes) == count else [str(number) for number in range(count)]


def construct(name: str, kwargs: Mapping[str, Any], build: Callable[[], nn.Module]) -> nn.Module:
    """The network of `build` for a recipe's `kwargs`. Errors: ConfigError with its library's words on them."""
    try:
        return build()
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        if isinstance(error, VCRegError):
            raise
        raise ConfigError(f"{name} cannot be built with {kwargs} for these images: {error}") from error


def construct_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The network of `build`, its tensors on the meta device."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        # torchvision's RegNet computes its widths with tensors and reads them, and so did timm up to 1.0.20 with its
        # stochastic depth: those are built whole and emptied.
        return build().to("meta")


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], sizes: Sizes, origin: str) -> None:
    """Load tensors into an image network in place; a classifier for other classes than theirs stays fresh.

    Errors: UsageError that names the tensors of `origin` that do not fit.
    """
    heads: list[str] = []
    if _shapes(tensors) != _shapes(model.state_dict()):  # else a classifier is like any other tensor, and needs no name
        image = torch.zeros(1, sizes.in_chans, sizes.image_size, sizes.image_size)
        heads = [site.name for site in find_blocks(model, "final", image)]
    load_tensors(model, tensors, heads=heads, origin=origin)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
