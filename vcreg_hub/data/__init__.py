"""Images and videos: where they come from, how they are split, and how they are shown to a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import Data, Video

if TYPE_CHECKING:
    from .module import DataModule


def load_data(cfg: Data, video: Video | None = None) -> DataModule:
    """The images that the settings name, or with `video` its clips.

    Errors: those of `load_images` and `load_videos`.
    """
    if video is None:
        from .image.module import ImageModule

        return ImageModule.load(cfg)
    from .video.module import VideoModule

    return VideoModule.load(cfg, video)
