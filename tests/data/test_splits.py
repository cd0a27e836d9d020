"""Stratified subsets against what stratification means, and pinned so that published splits cannot move."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.data.splits import carve, long_tailed, stratified
from vcreg_hub.errors import DataError

PINNED = 3320241606


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_every_class_gets_its_share_within_one(labels: list[int], share: float, seed: int) -> None:
    classes = np.array(labels)
    count = round(share * len(classes))
    chosen = stratified(classes, count, seed)
    assert len(chosen) == count and (np.diff(chosen) > 0).all()
    for c in np.unique(classes):
        exact = count * (classes == c).sum() / len(classes)
        assert abs((classes[chosen] == c).sum() - exact) < 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 0.99))
def test_carving_parts_everything_and_leaves_every_class_an_image(labels: list[int], fraction: float) -> None:
    classes = np.array(labels)
    kept, held_out = carve(classes, fraction, seed=3)
    assert sorted([*kept, *held_out]) == list(range(len(classes)))
    assert set(classes[kept]) == set(classes)


def test_another_seed_chooses_others() -> None:
    classes = np.arange(300) % 3
    assert not np.array_equal(stratified(classes, 60, 0), stratified(classes, 60, 1))
    assert np.array_equal(stratified(classes, 60, 0), stratified(classes, 60, 0))


def test_the_choice_is_pinned() -> None:
    chosen = stratified(np.arange(1000) % 7, 100, seed=5)
    assert zlib.crc32(chosen.astype("<i8").tobytes()) == PINNED


def test_more_than_there_is_gives_all() -> None:
    assert len(stratified(np.zeros(5, int), 50, 0)) == 5


@pytest.mark.parametrize("count", [0])
def test_none(count: int) -> None:
    assert len(stratified(np.arange(9), count, 0)) == 0


def cao(targets: np.ndarray, ratio: float) -> np.ndarray:
    """The published procedure, as a flat walk over the classes with NumPy's global generator."""
    np.random.seed(0)
    classes = int(targets.max()) + 1
    largest, chosen = len(targets) / classes, []
    for c in range(classes):
        indices = np.where(targets == c)[0]
        np.random.shuffle(indices)
        chosen.append(indices[: int(largest * (1 / ratio) ** (c / (classes - 1.0)))])
    return np.sort(np.concatenate(chosen))


@pytest.mark.parametrize(
    "classes, each, total", [(10, 5000, 12_406), (100, 500, 10_847)], ids=["cifar10_lt", "cifar100_lt"]
)
def test_a_long_tail_of_cifar_is_the_published_one(classes: int, each: int, total: int) -> None:
    targets = np.random.RandomState(5).permutation(np.repeat(np.arange(classes), each))
    for ratio in (10, 50, 100, 200):
        assert np.array_equal(long_tailed(targets, ratio, seed=0), cao(targets, ratio))
    assert len(long_tailed(targets, 100, seed=0)) == total


def test_a_long_tail_keeps_to_the_limit_and_has_no_larger_one_within_it() -> None:
    targets = np.repeat(np.arange(10), 5400)
    counts = np.bincount(targets[long_tailed(targets, 100, seed=1, limit=2200)])
    assert counts.tolist() == [889, 532, 319, 191, 114, 68, 41, 24, 14, 8]
    assert sum(int(890 * 0.01 ** (c / 9)) for c in range(10)) > 2200


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(20, 60), min_size=2, max_size=6), st.floats(1, 8))
def test_a_long_tail_of_uneven_classes_asks_no_class_for_more_than_it_has(sizes: list[int], ratio: float) -> None:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(targets[long_tailed(targets, ratio, seed=0)], minlength=len(sizes))
    falls = [(1 / ratio) ** (c / (len(sizes) - 1)) for c in range(len(sizes))]
    n = counts[0]
    assert counts.tolist() == [int(n * fall) for fall in falls] and (counts <= sizes).all()
    assert any(int((n + 1) * fall) > size for fall, size in zip(falls, sizes)), "one more would not fit"


@pytest.mark.parametrize("targets, limit", [([0, 0, 0], None), ([0] * 50 + [1] * 50, 40)])
def test_a_long_tail_that_loses_a_class_is_refused(targets: list[int], limit: int | None) -> None:
    with pytest.raises(DataError, match=r"two classes or more|leaves class 1 without any.*raise the limit of 40"):
        long_tailed(np.array(targets), 100, seed=0, limit=limit)
