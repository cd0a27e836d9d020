"""Stratified subsets against what stratification means, and pinned so that published splits cannot move."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.data.splits import carve, stratified

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
