"""Small videos of one's own, and how they are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vcreg_hub.config import Data, Video
from vcreg_hub.data.video.datasets import VideoData, load_videos
from vcreg_hub.data.video.decode import write_video


def clip(path: Path, length: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.full((length, 16, 16, 3), 100, dtype=np.uint8))
    return path


def load(name: str, root: Path | None, max_failed: int = 10, **changes: object) -> VideoData:
    data = Data(name, root=None if root is None else str(root), workers=0, **changes)
    return load_videos(data, Video(frames=2, stride=1, max_failed=max_failed))


def paths(videos: VideoData, part: str) -> list[str]:
    return sorted(videos.index.clips[n].path for n in getattr(videos, part).numbers)
