"""Clips of videos as a data module."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ...config import Data, Train, Video
from ...errors import ConfigError
from ...files import JSON, files_fingerprint
from ..batches import TrainLoader
from ..failures import Failures, too_many_lost
from ..module import DataModule, Lost
from .batches import video_test_loader, video_train_loader, video_val_loader
from .datasets import ClipList, VideoData, load_videos
from .decode import UnreadableVideoError


@dataclass(frozen=True)
class VideoModule(DataModule):
    """Clips under the face of every data set. failures: the clips this process could not read, whatever for."""

    sets: VideoData
    video: Video
    failures: Failures
    noun = "clips"

    @classmethod
    def load(cls, cfg: Data, video: Video) -> VideoModule:
        """Errors: those of `load_videos`; ConfigError for settings foreign to clips."""
        if cfg.labels != "class":
            raise ConfigError(f"data.labels={cfg.labels}: videos have one label set, class")
        for name, value in (("train_size", cfg.train_size), ("resize", cfg.resize)):
            if value not in (None, cfg.image_size):
                raise ConfigError(f"data.{name}={value}: clips have data.image_size={cfg.image_size} throughout")
        sets = load_videos(cfg, video)
        return cls(cfg, sets, video, Failures(len(sets.index.clips), video.max_failed))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.video.frames, self.in_chans, self.cfg.image_size, self.cfg.image_size

    @property
    def single_view(self) -> str:
        return f"single view{self.noise_note}"

    @property
    def noise_note(self) -> str:
        """A protocol's words on noise on the clips; nothing without."""
        if not self.video.noise:
            return ""
        place = "normalised values" if self.video.noise_place == "normalised" else "pixels in [0, 1]"
        return f"; Gaussian noise of sigma {self.video.noise:g} on {place}"

    def part(self, split: str) -> ClipList:
        """The clips of a split."""
        return getattr(self.sets, split)

    def labels(self, split: str) -> np.ndarray | None:
        return self.part(split).labels

    def where(self, split: str, number: int) -> str:
        return str(self.sets.index.root / self.part(split)[number].path)

    def fingerprint(self, split: str) -> str | None:
        part, cfg, video = self.part(split), self.cfg, self.video
        paths = [Path(self.where(split, place)) for place in range(len(part))]
        if not all(path.is_file() for path in paths):
            return None
        shown = (
            cfg.image_size, cfg.interpolation, self.mean, self.std, video.frames, video.stride, video.noise,
            video.noise_place, video.noise_seed, part.numbers.tolist(), video.antialias, "upright",
            [(part[place].start, part[place].end) for place in range(len(part))],
        )  # fmt: skip
        return hashlib.sha256(f"{files_fingerprint(paths)} {shown}".encode()).hexdigest()

    def train_batches(self, train: Train, rank: int, world: int, views: int = 1) -> TrainLoader:
        return video_train_loader(
            self.sets, self.cfg, train, self.video, self.failures, rank=rank, world=world, views=views
        )

    def eval_batches(self, split: str, batch_size: int) -> DataLoader:
        return video_val_loader(self.sets, self.cfg, self.video, batch_size, split, self.failures)

    def test_items(self, split: str, rank: int = 0, world: int = 1) -> DataLoader:
        """One process's share of a split's files under all their test views, a `TestItem` each."""
        return video_test_loader(self.sets, self.cfg, self.video, split, self.failures, rank=rank, world=world)

    @property
    def fold(self) -> int | None:
        return self.video.split if self.sets.index.splits > 1 else None

    @property
    def sigma(self) -> float | None:
        return self.video.noise or None

    def describe(self) -> JSON:
        left_out = [clip.path for clip in self.sets.left_out]
        cut_short = [clip.path for clip in self.sets.index.cut_short()]
        return {
            **super().describe(),
            "split": self.video.split,
            "resize": None,
            "interpolation": self.cfg.interpolation,
            "frames": self.video.frames,
            "stride": self.video.stride,
            "undecodable": len(self.sets.index.undecodable()),
            **({"left_out": left_out} if left_out else {}),
            **({"cut_short": cut_short} if cut_short else {}),
        }

    def __str__(self) -> str:
        return f"{super().__str__()} split {self.video.split}"

    def lost(self) -> Tensor | None:
        return self.failures.flags

    def lost_paths(self, flags: Tensor) -> Lost:
        parts = {}
        for split in ("train", "val", "test"):
            numbers = self.part(split).numbers
            parts[split] = [self.sets.index.clips[n].path for n in numbers[flags.numpy()[numbers] > 0]]
        return {split: paths for split, paths in parts.items() if paths}

    def refuse_lost(self, paths: Lost) -> None:
        if said := too_many_lost(paths, self.noun, "video.max_failed", self.video.max_failed):
            raise UnreadableVideoError(said)
