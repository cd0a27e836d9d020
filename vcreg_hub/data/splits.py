"""Subsets for ever: the same indices for the same seed on every machine and version."""

from __future__ import annotations

import numpy as np


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
