"""Labelled videos by name: finds their index, picks the clips of training, validation and test.

Validation clips are carved from the training clips by source video, never from the test clips: two clips of
one film look alike, and a validation set that shares films with the training set chooses by memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
from torch.utils.data import Dataset

from ...config import Data, Video
from ...errors import ConfigError, DataError, counted, not_decoding, some, unknown_name
from ..datasets import VIDEO_SETS
from ..splits import stratified
from . import action_shapes
from . import folder as video_folder
from . import lists as video_list
from .hmdb51 import prepare
from .index import ABOUT, TEST, TRAIN, VALIDATION, Clip, VideoIndex, read_index
from .sampling import carve_by_source

_logger = logging.getLogger("vcreg_hub")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipList(Dataset):
    """Some of an index's clips. numbers: (n,) their places in the index, their names everywhere:
    noise, scores and failures are kept by them."""

    index: VideoIndex
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Clip:
        return self.index.clips[int(self.numbers[position])]

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64."""
        return np.array([self.index.clips[n].label for n in self.numbers], dtype=np.int64)


@dataclass(frozen=True)
class VideoData:
    """The three parts of a video data set. val: empty without a hold-out. Test clips that do not
    decode stay in `test` and count as wrong; training and validation clips that do not decode are left
    out."""

    name: str
    split: int
    index: VideoIndex
    train: ClipList
    val: ClipList
    test: ClipList
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    in_chans: int = 3

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def left_out(self) -> list[Clip]:
        """The undecodable clips of training and validation."""
        learned = self.index.flagged(self.split, TRAIN) + self.index.flagged(self.split, VALIDATION)
        return [clip for clip in learned if clip.error]

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.origin}), split {self.split}: {len(self.train)} training, {len(self.val)} validation "
            f"and {counted(len(self.test), 'test clip')}, {counted(self.num_classes, 'class', 'classes')}; "
            + not_decoding(len(self.index.undecodable()), "clip of the whole set", "clips of the whole set")
        )


def load_videos(cfg: Data, video: Video) -> VideoData:
    """The clips named by a recipe's `data` and `video`.

    data.name: `hmdb51` or `hmdb51_like`, whose `data.root` is a folder that `vcreg data` wrote;
    `action_shapes` or `action_shapes_compound`, made at `data.root` or in the cache, or
    `action_shapes:<sources>x<clips of each>` for another size; `video_folder` or `video_list` for files of one's
    own at `data.root`. Errors: UnknownNameError; ConfigError for values that do not go together; DataError
    for files that are not there, a class without training clips, or more undecodable training clips than
    `video.max_failed`. What is left out, and classes that the test part lacks, are named in a warning.
    """
    row = cfg.name.partition(":")[0]
    if row not in _READERS:
        raise unknown_name("video data set", cfg.name, _READERS)
    index = _READERS[row](cfg)
    mean, std = cfg.mean or MEAN, cfg.std or STD
    if not len(mean) == len(std) == 3 or min(std) <= 0:
        raise ConfigError(f"data.mean={mean} and data.std={std}: expected 3 values each, std positive")
    flags = np.array([clip.flags[_split(index, video) - 1] for clip in index.clips])
    decodes = np.array([not clip.error for clip in index.clips])
    train, test = np.flatnonzero((flags == TRAIN) & decodes), np.flatnonzero(flags == TEST)
    lost = np.flatnonzero((flags == TRAIN) & ~decodes)
    if len(lost) > video.max_failed:
        raise DataError(
            f"{not_decoding(len(lost), 'training clip')}, video.max_failed is {video.max_failed}: "
            f"{index.clips[lost[0]].error} ..."
        )
    val = np.flatnonzero((flags == VALIDATION) & decodes)
    if not len(val):
        train, val = carve_by_source(index.clips, train, cfg.val_fraction, cfg.split_seed)
    if cfg.train_images is not None:
        labels = np.array([index.clips[n].label for n in train])
        train = train[stratified(labels, cfg.train_images, cfg.split_seed)]
    _check_classes(index, train, test, lost)
    videos = VideoData(
        name=cfg.name,
        split=video.split,
        index=index,
        train=ClipList(index, train),
        val=ClipList(index, val),
        test=ClipList(index, test),
        class_names=index.class_names,
        mean=mean,
        std=std,
        origin=str(index.root),
    )
    _warn(videos)
    return videos


def _prepared(cfg: Data) -> VideoIndex:
    if cfg.root is None:
        raise ConfigError(
            f"data.root is not set: prepare {cfg.name} with `vcreg data {cfg.name} --source <archives or folder> "
            "--out <folder>` and pass --set data.root=<folder>"
        )
    index = read_index(cfg.root)
    if index.name != cfg.name:
        raise DataError(f"{cfg.root} holds {index.name}, not {cfg.name}")
    _check_counts(index)
    return index


def _check_counts(index: VideoIndex) -> None:
    """Errors: DataError when an index is not of the size that its set is known by: results would not compare."""
    row = VIDEO_SETS[index.name]
    found = {"classes": (row.classes, len(index.class_names)), "clips": (row.clips, len(index.clips))}
    for split in range(1, row.splits + 1):
        found[f"training clips in split {split}"] = row.train, len(index.flagged(split, TRAIN))
        found[f"test clips in split {split}"] = row.test, len(index.flagged(split, TEST))
    for what, (wanted, there) in found.items():
        if wanted is not None and wanted != there:
            raise DataError(f"{index.name} has {wanted:,} {what}, but the index at {index.root} lists {there:,}")


def _shapes(cfg: Data) -> VideoIndex:
    base, spec = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"), _spec(cfg.name)
    row = VIDEO_SETS[cfg.name.partition(":")[0]]
    root = Path(cfg.root) if cfg.root is not None else base / "vcreg_hub" / cfg.name.replace(":", "-")
    if not (root / ABOUT).exists():
        # In this order: another process may put a whole set there in between.
        if action_shapes.is_begun(root) and not (root / ABOUT).exists():
            raise DataError(
                f"{root} is half made: repeat `vcreg data {row.name} --out {quote(str(root))}` with the same options"
            )
        root.parent.mkdir(parents=True, exist_ok=True)
        # Made aside and put in place in one go: several processes may come here at the same time.
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
            made = action_shapes.make(Path(scratch) / "set", spec)
            prepare(made, made, video_set=row, log=lambda text: None)
            try:
                made.rename(root)
            except OSError:
                if not (root / ABOUT).exists():
                    raise DataError(f"{root} is in the way of the {row.name} set; choose another folder") from None
    index = read_index(root)
    if index.name != row.name:
        raise DataError(f"{root} holds {index.name}, not {row.name}")
    return index


def _spec(name: str) -> action_shapes.ActionShapes:
    """What `action_shapes` or `action_shapes:<sources>x<clips of each>` asks for, or the same of a compound set."""
    row, colon, size = name.partition(":")
    compound = row == action_shapes.COMPOUND
    if not colon:
        return action_shapes.ActionShapes(compound=compound)
    sources, _, clips = size.partition("x")
    if not (sources.isdecimal() and clips.isdecimal()):
        raise ConfigError(f"data.name={name}: expected {row}:<sources>x<clips of each>, such as 8x2")
    return action_shapes.ActionShapes(sources=int(sources), clips_per_source=int(clips), compound=compound)


_READERS: dict[str, Callable[[Data], VideoIndex]] = {
    "hmdb51": _prepared,
    "hmdb51_like": _prepared,
    "hmdb51_split1": _prepared,
    "action_shapes": _shapes,
    "action_shapes_compound": _shapes,
    "video_folder": video_folder.class_folders,
    "video_list": video_list.list_files,
}


def _split(index: VideoIndex, video: Video) -> int:
    if not 1 <= video.split <= index.splits:
        raise ConfigError(f"video.split={video.split}: {index.name} has splits 1 to {index.splits}")
    return video.split


def _check_classes(index: VideoIndex, train: np.ndarray, test: np.ndarray, lost: np.ndarray) -> None:
    learned = {index.clips[n].label for n in train}
    lacking = [name for label, name in enumerate(index.class_names) if label not in learned]
    if lacking:
        why = [clip.error for clip in (index.clips[n] for n in lost) if clip.label not in learned]
        reason = f"; {not_decoding(len(why))}: {why[0]}" if why else ""
        raise DataError(f"{index.name}: no training clip is left of {some(lacking)}{reason}")
    if not len(test):
        raise DataError(f"{index.name}: there is no test clip")


def _warn(videos: VideoData) -> None:
    """Say what a person may not expect of the clips, once for all processes."""
    if os.environ.get("RANK", "0") != "0":
        return
    if lost := [clip.path for clip in videos.left_out]:
        names = some(lost)
        _logger.warning("%s: %s, not used to train and validate: %s", videos.name, not_decoding(len(lost)), names)
    tested = set(videos.test.labels.tolist())
    if lacking := [name for label, name in enumerate(videos.class_names) if label not in tested]:
        _logger.warning(
            "%s: no test clip of %s: %s; mean_per_class is the mean over the others",
            videos.name, counted(len(lacking), "class", "classes"), some(lacking),
        )  # fmt: skip
