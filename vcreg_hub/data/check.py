"""Reads every sample of a data set once, to say before a long run which cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ..errors import UsageError
from .batches import worker_processes
from .image.decode import UnreadableImageError
from .image.module import ImageModule
from .image.stream import Stream
from .module import DataModule, Lost
from .video.index import measured
from .video.module import VideoModule

# Images that a worker reads before it reports.
_AT_A_TIME = 32


def broken(data: DataModule, workers: int = 0, tick: Callable[[int, int], None] = lambda done, total: None) -> Lost:
    """Why samples cannot be read, each reason with the file's name: split -> reasons, without empty splits. Clips that
    are in no split are under "unused".

    workers: processes that decode, one a processor at most; 0 decodes here. tick: told (done, of how many).
    Errors: UsageError for a stream, of which nothing can be asked for by number, and for points, which are in no file.
    """
    if isinstance(data, VideoModule):
        return _broken_clips(data, workers, tick)
    if not isinstance(data, ImageModule) or isinstance(data.sets.train, Stream):
        raise UsageError(f"{data.cfg.name} has no files that can be read one by one: there is nothing to check")
    found: Lost = {}
    sizes = {split: data.size(split) for split in ("train", "val", "test")}
    done, total = 0, sum(sizes.values())
    tick(0, total)
    for split in sizes:
        loader = DataLoader(
            _Reasons(getattr(data.sets, split)),
            batch_size=_AT_A_TIME,
            num_workers=worker_processes(workers),
            collate_fn=list,
        )
        for reasons in loader:
            found.setdefault(split, []).extend(filter(None, reasons))
            done += len(reasons)
            tick(done, total)
    return {split: reasons for split, reasons in found.items() if reasons}


class _Reasons(Dataset[str]):
    """Why an image cannot be read; "" for one that can."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> str:
        try:
            self.images[number]
        except UnreadableImageError as error:
            return str(error)
        return ""


def _broken_clips(data: VideoModule, workers: int, tick: Callable[[int, int], None]) -> Lost:
    index = data.sets.index
    read = measured(index.root, index.clips, workers, tick=tick)
    of_split = {
        int(number): split for split in ("train", "val", "test") for number in getattr(data.sets, split).numbers
    }
    # A clip that was known to be broken is in no list of training clips any more.
    known = {clip.path for clip in data.sets.left_out}
    found: Lost = {}
    for number, clip in enumerate(read):
        if clip.error:
            split = of_split.get(number, "train" if clip.path in known else "unused")
            found.setdefault(split, []).append(clip.error)
    return found
