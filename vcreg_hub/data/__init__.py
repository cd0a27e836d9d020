"""Images and videos: their sources, their splits, and their form as a network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import Data, Video
from .datasets import POINT_SETS

if TYPE_CHECKING:
    from .module import DataModule


def load_data(cfg: Data, video: Video | None = None) -> DataModule:
    """The images or points named by the settings, or with `video` its clips.

    Errors: those of `load_images`, `PointModule.load` and `load_videos`.
    """
    if is_drawn(cfg):
        from .points import PointModule

        return PointModule.load(cfg)
    if video is None:
        from .image.module import ImageModule

        return ImageModule.load(cfg)
    from .video.module import VideoModule

    return VideoModule.load(cfg, video)


def is_drawn(cfg: Data) -> bool:
    """Whether the samples are drawn by `split_seed`, so that each seed of a study sees its own."""
    return cfg.name.partition(":")[0] in POINT_SETS
