"""Picks frames and crops of a video by the index rules of VideoMAE's fine-tuning code, and the clips to hold out.

Pure functions over integers. In training one clip is drawn from the video; at test time `clips` x `crops`
views cover it, and views that coincide are kept once with their number, which leaves the average over all
of them unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import ConfigError
from .index import Clip


def training_indices(
    length: int, frames: int = 16, stride: int = 2, generator: torch.Generator | None = None
) -> list[int]:
    """Indices of one training clip of a video of `length` frames: `frames` indices in [0, length).

    The clip spans `frames * stride` frames. A video no longer than that gives `length // stride` indices
    evenly over its whole length and then repeats its last frame. A longer one gives a window of that span
    whose end is drawn uniformly from [span, length), with indices evenly over the window. Without a
    generator the end is the middle of that range, which is the validation rule of VideoMAEv2.
    """
    _check(length, frames, stride)
    span = frames * stride
    if length <= span:
        even = np.linspace(0, length, num=length // stride)
        indices = np.concatenate([even, np.full(frames - len(even), length)])
        return [int(i) for i in np.clip(indices, 0, length - 1)]
    if generator is None:
        end = span + (length - span) // 2
    else:
        end = int(torch.randint(span, length, (), generator=generator))
    start = end - span
    return [int(i) for i in np.clip(np.linspace(start, end, num=frames), start, end - 1)]


@dataclass(frozen=True)
class Views:
    """The distinct views of one video. `clips[c]` holds the frame indices of clip c and stands for
    `clip_counts[c]` clips of the protocol; `crops[s]` is the offset along the long side of crop s, standing
    for `crop_counts[s]`."""

    clips: tuple[tuple[int, ...], ...]
    clip_counts: tuple[int, ...]
    crops: tuple[int, ...]
    crop_counts: tuple[int, ...]

    def weights(self) -> torch.Tensor:
        """(len(clips) * len(crops),) float64 that sums to 1: the share of each distinct view, clips
        outermost."""
        pairs = np.outer(self.clip_counts, self.crop_counts).ravel().astype(np.float64)
        return torch.from_numpy(pairs / pairs.sum())


def _evaluation_clips(length: int, frames: int = 16, stride: int = 2, clips: int = 10) -> list[list[int]]:
    """Frame indices of every test clip, (clips, frames), identical ones included.

    Every stride-th frame of the video is kept, and the last kept one repeated until there are `frames`;
    clip c starts at int(c * step) of the kept frames with step = (kept - frames) / (clips - 1).
    """
    _check(length, frames, stride)
    kept = list(range(0, length, stride))
    kept += kept[-1:] * (frames - len(kept))
    return [kept[s : s + frames] for s in _starts(len(kept) - frames, clips)]


def _crop_offsets(height: int, width: int, size: int, crops: int = 3) -> list[int]:
    """Where each square crop of `size` begins on the long side: left, centre, right (top, centre, bottom when
    height >= width) for three of them."""
    return _starts(max(height, width) - size, crops)


def short_side_size(height: int, width: int, short: int) -> tuple[int, int]:
    """(height, width) after scaling the shorter side to `short`, the longer one truncated to an integer."""
    if height <= width:
        return short, short * width // height
    return short * height // width, short


def distinct_views(
    length: int, height: int, width: int, *, frames: int, stride: int, size: int, clips: int, crops: int
) -> Views:
    """The distinct test views of a video of `length` frames of `height` x `width` pixels."""
    clip_counts = Counter(tuple(indices) for indices in _evaluation_clips(length, frames, stride, clips))
    crop_counts = Counter(_crop_offsets(*short_side_size(height, width, size), size, crops))
    return Views(
        clips=tuple(clip_counts),
        clip_counts=tuple(clip_counts.values()),
        crops=tuple(crop_counts),
        crop_counts=tuple(crop_counts.values()),
    )


def _starts(room: int, count: int) -> list[int]:
    """`count` starts spread evenly over [0, room], both ends included; a single one sits in the middle."""
    if count < 1:
        raise ConfigError(f"expected at least one clip and one crop, got {count}")
    if count == 1:
        return [max(room, 0) // 2]
    step = max(room / (count - 1), 0)
    return [int(c * step) for c in range(count)]


def _check(length: int, frames: int, stride: int) -> None:
    if length < 1 or frames < 1 or stride < 1:
        raise ConfigError(f"expected length, frames and stride of at least 1, got {length}, {frames}, {stride}")


def carve_by_source(
    clips: Sequence[Clip], numbers: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out) numbers, both ascending: whole source videos are held out, also where clips of one
    are in several classes, as many as fit into `fraction` of every class's clips; a class that got none and
    has two sources or more gives its smallest one."""
    # RandomState, not Generator: NumPy promises that its stream stays as it is, and a published split must too.
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
