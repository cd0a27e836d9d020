"""Images as the material of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Recipe
from ..data.image.images import ImageData, load_images
from ..data.image.loader import test_loader, train_loader
from ..errors import ConfigError
from ..evals import classification
from ..models.build import build_model
from ..models.video_networks import NETWORKS


@dataclass(frozen=True)
class ImageMaterial:
    """See `Material`."""

    recipe: Recipe
    sets: ImageData
    views = "single view"

    @classmethod
    def load(cls, recipe: Recipe) -> ImageMaterial:
        if recipe.model.name in NETWORKS:
            raise ConfigError(
                f"{recipe.model.name} takes clips, but the recipe has no video section: --set video.frames=16"
            )
        return cls(recipe, load_images(recipe.data))

    def model(self) -> nn.Module:
        size = self.recipe.data.image_size
        return build_model(
            self.recipe.model, num_classes=self.sets.num_classes, in_chans=self.sets.in_chans, image_size=size
        )

    def example_input(self) -> Tensor:
        size = self.recipe.data.image_size
        return torch.zeros(1, self.sets.in_chans, size, size)

    def train_batches(self, rank: int, world: int) -> Any:
        return train_loader(self.sets, self.recipe.data, self.recipe.train, rank=rank, world=world)

    def batches(self, split: str, accelerator: Any) -> Any:
        return accelerator.prepare(test_loader(self.sets, self.recipe.data, split, self.recipe.eval.batch_size))

    def classify(self, model: nn.Module, split: str, accelerator: Any) -> Iterator[tuple[str, float]]:
        return classification.evaluate(model, self.batches(split, accelerator), accelerator, self.sets.num_classes)

    def relabelled(self, labels: str) -> ImageMaterial:
        # Splits depend on the seed alone, never on the label set.
        if labels == self.recipe.data.labels:
            return self
        return ImageMaterial.load(replace(self.recipe, data=replace(self.recipe.data, labels=labels)))

    def row_fields(self) -> dict[str, Any]:
        return {}

    def about(self) -> dict[str, Any]:
        data = self.recipe.data
        return {
            "name": data.name,
            "labels": data.labels,
            "train": len(self.sets.train),
            "val": len(self.sets.val),
            "test": len(self.sets.test),
            "classes": list(self.sets.class_names),
            "in_chans": self.sets.in_chans,
            "mean": list(data.mean or self.sets.mean),
            "std": list(data.std or self.sets.std),
            "image_size": data.image_size,
            "resize": data.resize,
            "interpolation": data.interpolation,
        }

    def undecodable(self, accelerator: Any) -> dict[str, list[str]]:
        return {}
