"""What a run is made of: images or clips, behind one face, so that the walk does not ask which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from ..config import Recipe
from ..errors import ConfigError


class Material(Protocol):
    """The data of a recipe, and how a network is trained and measured on them.

    sets: an `ImageData` or `VideoData`, with train, val, test, num_classes, class_names, in_chans, mean and std.
    views: how a test sample is looked at, in words.
    """

    @property
    def recipe(self) -> Recipe: ...

    @property
    def sets(self) -> Any: ...

    @property
    def views(self) -> str: ...

    def model(self) -> nn.Module:
        """The recipe's plain network for these data. Errors: those of `models.factory.build_model`."""

    def example_input(self) -> Tensor:
        """Zeros in the shape of one input."""

    def train_batches(self, rank: int, world: int) -> Any:
        """This process's training batches of an epoch, as `train.loop.fit` wants them."""

    def batches(self, split: str, accelerator: Any) -> Any:
        """A split under one test view a sample, each process's share of it."""

    def classify(self, model: nn.Module, split: str, accelerator: Any) -> Iterator[tuple[str, float]]:
        """Metrics of the classifier on a split under the whole test protocol."""

    def relabelled(self, labels: str) -> Material:
        """The same samples under another label set."""

    def row_fields(self) -> dict[str, Any]:
        """What a metric's row says besides, so that numbers of other data never merge with it."""

    def about(self) -> dict[str, Any]:
        """What a publisher must know of the data: sizes, classes and the preprocessing of the test view."""

    def undecodable(self, accelerator: Any) -> dict[str, list[str]]:
        """The files that any process could not read so far: "train", "val" or "test" -> paths, parts without one left
        out. Every process must call it."""


def load_material(recipe: Recipe) -> Material:
    """The recipe's images, or clips where it has a `video` section.

    Errors: those of `load_images` and `load_videos`; ConfigError where `eval.split` names an empty split.
    """
    material: Material
    if recipe.video is None:
        from .image_material import ImageMaterial

        material = ImageMaterial.load(recipe)
    else:
        from .clip_material import ClipMaterial

        material = ClipMaterial.load(recipe)
    if not len(getattr(material.sets, recipe.eval.split)):
        raise ConfigError(f"eval.split={recipe.eval.split}: nothing is held out; set data.val_fraction, such as 0.2")
    return material
