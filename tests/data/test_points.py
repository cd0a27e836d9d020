"""The two moons are those of the original code, step by step, and what cannot be drawn is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import make_moons

from vcreg_hub.config import Data, Train
from vcreg_hub.data import is_drawn, load_data
from vcreg_hub.data.points import two_moons
from vcreg_hub.errors import ConfigError


def original(count: int, seed: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Statement by statement as the original does it, its label -1 being our class 0."""
    x, y = make_moons(count, noise=0.1, random_state=seed)
    y = 2 * y - 1
    x[:, 0] -= 0.5
    for i in range(count):
        x[i, 1] -= 0.3 * y[i]
    x[:, 1] -= np.mean(x[:, 1])
    for i in range(count):
        x[i, 1] = -y[i] * abs(x[i, 1])
        x[i, 1] -= y[i] * margin
    return x[:, [1, 0]], (y + 1) // 2


@pytest.mark.parametrize("margin", [0.1, -0.4])
def test_the_points_are_those_of_the_original(margin):
    points, labels = two_moons(300, seed=3, margin=margin)
    wanted, classes = original(300, 3, margin)
    assert np.array_equal(labels, classes) and np.allclose(points, wanted, atol=1e-6)


def test_a_line_parts_moons_with_a_gap_and_not_those_that_overlap():
    points, labels = two_moons(2000, seed=0, margin=0.1)
    assert (np.abs(points[:, 0]) >= 0.1 - 1e-6).all() and ((points[:, 0] < 0) == (labels == 1)).all()
    points, labels = two_moons(2000, seed=0, margin=-0.4)
    assert 0.75 < ((points[:, 0] < 0) == (labels == 1)).mean() < 0.9


def test_turning_keeps_distances():
    straight, _ = two_moons(50, seed=1)
    turned, _ = two_moons(50, seed=1, degrees=45)
    half = math.sqrt(0.5)
    assert np.allclose(turned, straight @ np.array([[half, half], [-half, half]]), atol=1e-6)


def test_each_split_and_seed_is_a_draw_of_its_own_and_batches_are_the_whole():
    data = load_data(Data("moons:0.1", split_seed=7))
    assert is_drawn(data.cfg) and not is_drawn(Data("digits"))
    assert [data.size(split) for split in ("train", "val", "test")] == [300, 2000, 10_000]
    assert np.array_equal(data.sets.train.points, two_moons(300, 7, 0.1)[0])
    other = load_data(Data("moons:0.1", split_seed=8))
    for split in ("train", "val", "test"):
        assert not np.array_equal(getattr(data.sets, split).points, getattr(other.sets, split).points)
    assert not np.array_equal(data.sets.val.points, data.sets.test.points[:2000])
    batches = data.train_batches(Train(batch_size=300), 0, 1)
    assert len(batches) == 1000
    for batch, _ in zip(batches, range(2), strict=False):
        assert np.array_equal(batch[0], data.sets.train.points) and np.array_equal(batch[1], data.labels("train"))
    rows = [row for batch in data.eval_batches("val", 512) for row in batch[2].tolist()]
    assert rows == list(range(2000))


def test_the_same_draw_under_another_margin():
    data = load_data(Data("moons:0.1@45", split_seed=7))
    moved = load_data(data.moved(-0.4))
    assert moved.cfg.name == "moons:-0.4@45"
    assert np.array_equal(moved.sets.test.points, two_moons(10_000, *_test_seed(7), -0.4, 45)[0])


def _test_seed(seed: int) -> tuple[int]:
    from vcreg_hub.data.randomness import derive_seed

    return (derive_seed(seed, 2) % 2**32,)


def test_what_points_do_not_have_is_refused():
    for name in ("moons:far", "moons:0.1@north", "moons:nan"):
        with pytest.raises(ConfigError, match="expected moons:<margin>@<degrees>"):
            load_data(Data(name))
    with pytest.raises(ConfigError, match="draws validation points of its own"):
        load_data(Data("moons:0.1", val_fraction=0.2))
    data = load_data(Data("moons:0.1"))
    with pytest.raises(ConfigError, match=r"set train\.batch_size=300"):
        data.train_batches(Train(batch_size=128), 0, 1)
    with pytest.raises(ConfigError, match="on one process"):
        data.train_batches(Train(batch_size=300), 0, 2)
