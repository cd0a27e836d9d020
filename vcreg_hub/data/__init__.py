"""Images and videos: their sources, their splits, and their form as a network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import Data, Video

if TYPE_CHECKING:
    from .module import DataModule


def load_data(cfg: Data, video: Video | None = None) -> DataModule:
    """The images named by the settings, or with `video` its clips.

    Errors: those of `load_images` and `load_videos`.
    """
    if video is None:
        from .image.module import ImageModule

        return ImageModule.load(cfg)
    from .video.module import VideoModule

    return VideoModule.load(cfg, video)
