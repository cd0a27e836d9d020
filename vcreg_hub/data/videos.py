"""Labelled videos by name: where their index is, and which clips train, validate and test.

Validation clips are carved from the training clips by source video, never from the test clips: two clips of
one film look alike, and a validation set that shares films with the training set chooses by memory.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ..config import Data, Video
from ..errors import ConfigError, DataError, unknown_name
from . import action_shapes, video_folder
from .hmdb51 import prepare
from .video_index import ABOUT, TEST, TRAIN, VALIDATION, Clip, VideoIndex, read_index
from .video_sets import VIDEO_SETS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipList(Dataset):
    """Some of an index's clips. numbers: (n,) their places in the index, which are their names everywhere:
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
    """The three parts of a video data set. val: empty where nothing is held out. Test clips that do not
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

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.origin}), split {self.split}: {len(self.train)} training, {len(self.val)} validation "
            f"and {len(self.test)} test clips, {self.num_classes} classes; "
            f"{len(self.index.undecodable())} clips of the whole set do not decode"
        )


def load_videos(cfg: Data, video: Video) -> VideoData:
    """The clips that a recipe's `data` and `video` name.

    data.name: `hmdb51` or `hmdb51_like`, whose `data.root` is a folder that `vcreg data` wrote;
    `action_shapes` or `action_shapes_compound`, made at `data.root` or in the cache, or
    `action_shapes:<sources>x<clips of each>` for another size; `video_folder` or `video_list` for files of one's
    own at `data.root`. Errors: UnknownNameError; ConfigError for values that do not go together; DataError
    for files that are not there, a class without training clips, or more undecodable training clips than
    `video.max_failed`.
    """
    row = cfg.name.partition(":")[0]
    if row not in ROWS:
        raise unknown_name("video data set", cfg.name, ROWS)
    index = ROWS[row](cfg)
    mean, std = cfg.mean or MEAN, cfg.std or STD
    if not len(mean) == len(std) == 3 or min(std) <= 0:
        raise ConfigError(f"data.mean={mean} and data.std={std}: expected 3 values each, std positive")
    flags = np.array([clip.flags[_split(index, video) - 1] for clip in index.clips])
    decodes = np.array([not clip.error for clip in index.clips])
    train, test = np.flatnonzero((flags == TRAIN) & decodes), np.flatnonzero(flags == TEST)
    lost = int((flags == TRAIN).sum()) - len(train)
    if lost > video.max_failed:
        example = next(clip.error for clip in index.clips if clip.error)
        raise DataError(f"{lost} training clips do not decode, video.max_failed is {video.max_failed}: {example} ...")
    val = np.flatnonzero((flags == VALIDATION) & decodes)
    if not len(val):
        train, val = carve_by_source(index.clips, train, cfg.val_fraction, cfg.split_seed)
    if cfg.train_images is not None:
        from .splits import stratified

        labels = np.array([index.clips[n].label for n in train])
        train = train[stratified(labels, cfg.train_images, cfg.split_seed)]
    _check_classes(index, train, test)
    return VideoData(
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


def carve_by_source(
    clips: Sequence[Clip], numbers: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out) numbers, both ascending: whole source videos are held out, also where clips of one
    are in several classes, as many as fit into `fraction` of every class's clips; a class that got none and
    has two sources or more gives its smallest one."""
    # RandomState, not Generator: NumPy promises that its stream stays as it is, and a published split must
    # too.
    random = np.random.RandomState(seed)
    of_source: dict[str, Counter[int]] = {}
    for n in numbers:
        of_source.setdefault(clips[n].source, Counter())[clips[n].label] += 1
    left = sum(of_source.values(), Counter())
    room = {label: fraction * count for label, count in left.items()}
    held: set[str] = set()

    def hold(source: str) -> None:
        held.add(source)
        left.subtract(of_source[source])
        for label, count in of_source[source].items():
            room[label] -= count

    def leaves_some(source: str) -> bool:
        return all(left[label] > count for label, count in of_source[source].items())

    sources = [sorted(of_source)[i] for i in random.permutation(len(of_source))]
    for source in sources:
        if all(count <= room[label] for label, count in of_source[source].items()) and leaves_some(source):
            hold(source)
    for label in sorted(left) if fraction else []:
        mine = [source for source in sources if label in of_source[source]]
        if not held & set(mine) and (fitting := [source for source in mine if leaves_some(source)]):
            hold(min(fitting, key=lambda source: of_source[source].total()))
    out = [int(n) for n in numbers if clips[n].source in held]
    return np.setdiff1d(numbers, out), np.sort(np.array(out, dtype=np.int64))


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
        root.parent.mkdir(parents=True, exist_ok=True)
        # Made aside and put in place in one go: several processes may come here at the same time.
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
            made = action_shapes.make(Path(scratch) / "set", spec)
            prepare(made, made, video_set=row, say=lambda text: None)
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
    compound = row == "action_shapes_compound"
    if not colon:
        return action_shapes.ActionShapes(compound=compound)
    sources, _, clips = size.partition("x")
    if not (sources.isdecimal() and clips.isdecimal()):
        raise ConfigError(f"data.name={name}: expected {row}:<sources>x<clips of each>, such as 8x2")
    return action_shapes.ActionShapes(sources=int(sources), clips_per_source=int(clips), compound=compound)


ROWS: dict[str, Callable[[Data], VideoIndex]] = {
    "hmdb51": _prepared,
    "hmdb51_like": _prepared,
    "action_shapes": _shapes,
    "action_shapes_compound": _shapes,
    "video_folder": video_folder.class_folders,
    "video_list": video_folder.list_files,
}


def _split(index: VideoIndex, video: Video) -> int:
    if not 1 <= video.split <= index.splits:
        raise ConfigError(f"video.split={video.split}: {index.name} has splits 1 to {index.splits}")
    return video.split


def _check_classes(index: VideoIndex, train: np.ndarray, test: np.ndarray) -> None:
    learned = {index.clips[n].label for n in train}
    lacking = [name for label, name in enumerate(index.class_names) if label not in learned]
    if lacking:
        raise DataError(f"{index.name}: no training clip is left of {', '.join(lacking[:5])} ({len(lacking)} classes)")
    if not len(test):
        raise DataError(f"{index.name}: there is no test clip")
