"""Clips of videos as the material of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Recipe, Video
from ..data.video.failures import Failures
from ..data.video.loader import video_test_loader, video_train_loader, video_val_loader
from ..data.video.videos import VideoData, load_videos
from ..errors import ConfigError
from ..evals import multi_view as multi_view
from ..models.build import build_model, library_of
from ..models.video_networks import NETWORKS, NORMALISATION


@dataclass(frozen=True)
class ClipMaterial:
    """See `Material`. failures: the clips that this process could not read, whatever for."""

    recipe: Recipe
    video: Video
    sets: VideoData
    failures: Failures

    @classmethod
    def load(cls, recipe: Recipe) -> ClipMaterial:
        assert recipe.video is not None
        if not library_of(recipe.model.name).takes_clips:
            raise ConfigError(
                f"{recipe.model.name} takes images, but the recipe has a video section: model.name is one of "
                f"{', '.join(NETWORKS)}, or hf:<id or folder> of a video classifier"
            )
        if recipe.data.labels != "class":
            raise ConfigError(f"data.labels={recipe.data.labels}: videos have one label set, class")
        data = recipe.data
        for name, value in (("train_size", data.train_size), ("resize", data.resize)):
            if value not in (None, data.image_size):
                raise ConfigError(f"data.{name}={value}: clips have data.image_size={data.image_size} throughout")
        if data.mean is None and data.std is None and recipe.model.name in NETWORKS:
            mean, std = NORMALISATION[NETWORKS[recipe.model.name].normalisation]
            data = replace(data, mean=mean, std=std)
        sets = load_videos(data, recipe.video)
        return cls(recipe, recipe.video, sets, Failures(sets.index, recipe.video.max_failed))

    @property
    def views(self) -> str:
        video = self.video
        shown = f"{video.clips} clips x {video.crops} crops, mean {video.merge}"
        if not video.noise:
            return shown
        place = "normalised values" if video.noise_place == "normalised" else "pixels in [0, 1]"
        return f"{shown}; Gaussian noise of sigma {video.noise:g} on {place}"

    def model(self) -> nn.Module:
        return build_model(
            self.recipe.model,
            num_classes=self.sets.num_classes,
            in_chans=self.sets.in_chans,
            image_size=self.recipe.data.image_size,
            frames=self.video.frames,
        )

    def example_input(self) -> Tensor:
        size = self.recipe.data.image_size
        return torch.zeros(1, self.video.frames, self.sets.in_chans, size, size)

    def train_batches(self, rank: int, world: int) -> Any:
        data, train = self.recipe.data, self.recipe.train
        return video_train_loader(self.sets, data, train, self.video, self.failures, rank=rank, world=world)

    def batches(self, split: str, accelerator: Any) -> Any:
        size = self.recipe.eval.batch_size
        loader = video_val_loader(self.sets, self.recipe.data, self.video, size, split, self.failures)
        return accelerator.prepare(loader)

    def classify(self, model: nn.Module, split: str, accelerator: Any) -> Iterator[tuple[str, float]]:
        data, rank, world = self.recipe.data, accelerator.process_index, accelerator.num_processes
        return multi_view.evaluate(
            model,
            # Not prepared: a file's views stay together, and their scores are merged by the file's number.
            video_test_loader(self.sets, data, self.video, split, self.failures, rank=rank, world=world),
            accelerator,
            getattr(self.sets, split),
            size=data.image_size,
            mean=self.sets.mean,
            std=self.sets.std,
            batch_size=self.recipe.eval.batch_size,
            merge=self.video.merge,
        )

    def relabelled(self, labels: str) -> ClipMaterial:
        if labels == self.recipe.data.labels:
            return self
        return ClipMaterial.load(replace(self.recipe, data=replace(self.recipe.data, labels=labels)))

    def row_fields(self) -> dict[str, Any]:
        fold = {"fold": self.video.split} if self.sets.index.splits > 1 else {}
        return fold | ({"sigma": self.video.noise} if self.video.noise else {})

    def about(self) -> dict[str, Any]:
        data, video = self.recipe.data, self.video
        left_out = [clip.path for clip in self.sets.left_out]
        return {
            "name": data.name,
            "labels": data.labels,
            "split": video.split,
            "train": len(self.sets.train),
            "val": len(self.sets.val),
            "test": len(self.sets.test),
            "classes": list(self.sets.class_names),
            "in_chans": self.sets.in_chans,
            "mean": list(self.sets.mean),
            "std": list(self.sets.std),
            "image_size": data.image_size,
            "resize": None,
            "interpolation": data.interpolation,
            "frames": video.frames,
            "stride": video.stride,
            "undecodable": len(self.sets.index.undecodable()),
            **({"left_out": left_out} if left_out else {}),
        }

    def undecodable(self, accelerator: Any) -> dict[str, list[str]]:
        # Each process met clips of its own.
        flags = accelerator.reduce(self.failures.flags.to(accelerator.device).long(), "sum").cpu()
        parts = {
            part: self.failures.paths(flags, getattr(self.sets, part).numbers) for part in ("train", "val", "test")
        }
        return {part: paths for part, paths in parts.items() if paths}
