"""Subsets for ever: the same indices for the same seed on every machine and version."""

from __future__ import annotations

import numpy as np

from ..errors import DataError


def stratified(classes: np.ndarray, count: int, seed: int, leave: int = 0) -> np.ndarray:
    """Indices, ascending, of `count` items, with a fair share of every class.

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


def long_tailed(classes: np.ndarray, ratio: float, seed: int, limit: int | None = None) -> np.ndarray:
    """Indices, ascending, of a long tail: int(n * (1 / ratio) ** (c / (C - 1))) items of class c of 0 .. C-1.

    classes: (m,) ids, in whose order the classes fall off. n is the largest number that every class has enough items
    for and, with `limit`, that keeps no more than `limit` items in all. With seed 0 they are the items of Cao et al.'s
    CIFAR10-LT and CIFAR100-LT. Errors: DataError for one class, or where a class would be left without an item.

    >>> tail = long_tailed(np.repeat(np.arange(10), 5000), ratio=100, seed=0)
    >>> np.bincount(np.repeat(np.arange(10), 5000)[tail]).tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    ids, sizes = np.unique(classes, return_counts=True)
    if len(ids) < 2:
        raise DataError(f"a long tail needs two classes or more, got {len(ids)}: leave data.imbalance at null")
    falls = (1 / ratio) ** (np.arange(len(ids)) / (len(ids) - 1))

    def counts(n: int) -> np.ndarray:
        return (n * falls).astype(int)

    def fits(n: int) -> bool:
        return bool((counts(n) <= sizes).all()) and (limit is None or counts(n).sum() <= limit)

    low, high = 0, int(((sizes + 1) / falls).min())
    while low < high:  # the largest n that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    if counts(low).min() < 1:
        raise DataError(
            f"a long tail of ratio {ratio:g} over these {len(classes)} items leaves class {ids[counts(low).argmin()]} "
            f"without any: lower data.imbalance" + (f" or raise the limit of {limit}" if limit is not None else "")
        )
    random = np.random.RandomState(seed)
    chosen = [random.permutation(np.flatnonzero(classes == c))[:k] for c, k in zip(ids, counts(low), strict=True)]
    return np.sort(np.concatenate(chosen))
