"""Subsets that never change: the same indices for the same seed on every machine and version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .video.index import Clip


def stratified(classes: np.ndarray, count: int, seed: int, leave: int = 0) -> np.ndarray:
    """Indices, ascending, of `count` items in which every class has its share.

    classes: (n,) ids. Shares are rounded down and the rest goes to the largest remainders. leave: how many of each
    class must stay behind, which can make the result shorter than `count`.
    """
    ids, sizes = np.unique(classes, return_counts=True)
    shares = min(count, len(classes)) * sizes / max(len(classes), 1)
    takes = np.floor(shares).astype(int)
    rest = min(count, len(classes)) - takes.sum()
    takes[np.argsort(takes - shares, kind="stable")[:rest]] += 1
    takes = np.clip(takes, 0, np.maximum(sizes - leave, 0))
    # RandomState, not Generator: NumPy promises that its stream stays as it is, and a published split must too.
    random = np.random.RandomState(seed)
    chosen = [random.permutation(np.flatnonzero(classes == c))[:k] for c, k in zip(ids, takes, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def carve(classes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out) indices, both ascending; each class keeps one image or more.

    >>> kept, held_out = carve(np.array([0] * 8 + [1] * 4), 0.25, seed=0)
    >>> len(kept), len(held_out)
    (9, 3)
    """
    held_out = stratified(classes, round(fraction * len(classes)), seed, leave=1)
    return np.setdiff1d(np.arange(len(classes)), held_out), held_out


def carve_by_source(
    clips: Sequence[Clip], numbers: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out) numbers, both ascending: whole source videos are held out, also where clips of one
    are in several classes, as many as fit into `fraction` of every class's clips; a class that got none and
    has two sources or more gives its smallest one."""
    # RandomState as above.
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
