"""Files of one's own, images or videos, in the order they were given and under a network's test view.

Nothing is split and nothing is left out: a file that cannot be read takes its place, marked by a negative label.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..config import Data, Video
from ..errors import DataError, UsageError, counted
from ..files import files_fingerprint
from .batches import in_order
from .failures import Failures, marked_lost
from .image.decode import READING, UnreadableImageError, decode_file
from .image.transforms import test_transform
from .video.folder import SUFFIXES as VIDEO_SUFFIXES

_logger = logging.getLogger("vcreg_hub")
# How the names of PIL's modes without colour begin.
_GREY = ("1", "L", "I", "F")
# Files whose colours are looked at for a remark.
_LOOKED_AT = 100


@dataclass(frozen=True)
class Files:
    """Files and how they are shown. labels: (n,) int64 into `class_names`, the folders that the files lie in; ""
    names that of a file given by itself.

    cfg: size, crop, mean, std and channels of the view. video: the clips to take; None for images.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    cfg: Data
    video: Video | None

    def batches(self, batch_size: int) -> DataLoader[Any]:
        """(samples, labels, numbers) of every file in order; the label of one that cannot be read is -1 minus its
        own."""
        if self.video is None:
            return in_order(_ImageFiles(self), batch_size, self.cfg.workers)
        return _clips(self, self.video).eval_batches("test", batch_size)

    def fingerprint(self) -> str:
        """A hash of the files and the view."""
        cfg = self.cfg
        view = (cfg.image_size, cfg.resize, cfg.interpolation, cfg.fit, cfg.channels, cfg.mean, cfg.std, self.video)
        return f"{files_fingerprint(self.paths)} {view} {READING}"

    def reason(self, number: int) -> str:
        """Why a file cannot be read."""
        path = self.paths[number]
        if self.video is None:
            try:
                _read(path, self.cfg)
            except UnreadableImageError as error:
                return str(error)
        else:
            from .video.decode import UnreadableVideoError, measure

            try:
                measure(path)
            except UnreadableVideoError as error:
                return str(error)
        return f"{path} could not be read"


def find_files(paths: Sequence[str | Path], cfg: Data, video: Video | None = None) -> Files:
    """The files at `paths`, in order; of a folder those below it, in the order of their names, that look like images,
    or with `video` like videos.

    Errors: UsageError for a path that is not there, or none; DataError for a folder that holds no such file.
    """
    if not paths:
        raise UsageError("no file or folder is given")
    found = [pair for path in paths for pair in _below(Path(path).expanduser(), video is not None)]
    names = tuple(sorted({name for _, name in found}))
    labels = np.array([names.index(name) for _, name in found], dtype=np.int64)
    files = Files(tuple(path for path, _ in found), labels, names, cfg, video)
    if video is None:
        _say_colours(files)
    return files


def _below(path: Path, video: bool) -> Iterator[tuple[Path, str]]:
    """(file, name of its class folder) of a file or of every file in a folder."""
    if path.is_file():
        yield path, ""
        return
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {path.absolute()}")
    inside = sorted(p for p in path.rglob("*") if p.is_file() and not any(_hidden(p, path)))
    wanted, others = (VIDEO_SUFFIXES, IMG_EXTENSIONS) if video else (IMG_EXTENSIONS, VIDEO_SUFFIXES)
    kept = [p for p in inside if p.suffix.lower() in wanted]
    if not kept:
        noun, other = ("videos", "images") if video else ("images", "videos")
        there = sum(p.suffix.lower() in others for p in inside)
        hint = f"it holds {there} {other}, but the network takes {noun}" if there else f"known: {', '.join(wanted)}"
        raise DataError(f"{path}: no {noun} there or below ({hint})")
    yield from ((p, "" if p.parent == path else p.parent.name) for p in kept)


def _hidden(path: Path, top: Path) -> Iterator[bool]:
    return (part.startswith(".") for part in path.relative_to(top).parts)


def _say_colours(files: Files) -> None:
    """Names how many of the first files have other colours than the network takes."""
    channels = files.cfg.channels
    if channels is None or os.environ.get("RANK", "0") != "0":
        return
    looked = [mode for path in files.paths[:_LOOKED_AT] if (mode := _mode(path))]
    other = [mode for mode in looked if mode.startswith(_GREY) != (channels == 1)]
    if other:
        kind, shown = ("colour", "grey") if channels == 1 else ("grey", "three equal channels")
        where = "" if len(files.paths) <= _LOOKED_AT else f" of the first {_LOOKED_AT}"
        named = counted(len(other), "file is", "files are")
        _logger.warning(
            "%s%s %s: the network sees %s in %s", named, where, kind, "it" if len(other) == 1 else "them", shown
        )


def _mode(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.mode
    except Exception:  # what PIL's parsers raise; the file is named when it is read
        return None


def _read(path: Path, cfg: Data) -> Image.Image:
    """Errors: UnreadableImageError."""
    return decode_file(path, "L" if cfg.channels == 1 else "RGB")


class _ImageFiles(Dataset[tuple[Tensor, int, int]]):
    def __init__(self, files: Files) -> None:
        self.files = files
        cfg = files.cfg
        assert cfg.mean is not None and cfg.std is not None, "a network's own view states them"
        self.view = test_transform(cfg, cfg.mean, cfg.std)
        self.shape = len(cfg.mean), cfg.image_size, cfg.image_size

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        label = int(self.files.labels[number])
        try:
            image = _read(self.files.paths[number], self.files.cfg)
        except UnreadableImageError:
            return torch.zeros(self.shape), marked_lost(label), number
        return self.view(image), label, number


def _clips(files: Files, video: Video) -> Any:
    """The files as the test clips of a data module."""
    from .video.datasets import MEAN, STD, ClipList, VideoData
    from .video.index import TEST, Clip, VideoIndex, measured
    from .video.module import VideoModule

    cfg = files.cfg
    listed = [
        Clip(str(path.absolute()), int(label), str(path), (TEST,)) for path, label in zip(files.paths, files.labels)
    ]
    index = VideoIndex("files", Path("/"), files.class_names, measured(Path("/"), listed, cfg.workers), {})
    none, every = ClipList(index, np.arange(0)), ClipList(index, np.arange(len(listed)))
    sets = VideoData("files", 1, index, none, none, every, files.class_names, cfg.mean or MEAN, cfg.std or STD, "/")
    return VideoModule(cfg, sets, video, Failures(len(listed), len(listed)))
