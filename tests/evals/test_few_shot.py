"""Few-shot probes on real digits: which samples are drawn, and what is averaged."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.errors import ConfigError, DataError
from vcreg_hub.evals.few_shot import FewShot, _drawn
from vcreg_hub.run import train


def parts():
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(y))
    return [(x[rows], y[rows]) for rows in np.split(order, [900])]


def test_a_draw_has_so_many_of_every_class_and_fewer_shots_are_among_more():
    _, y = parts()[0]
    for draw in range(5):
        order = _drawn(y, draw)
        assert order.shape == (10, 10) and len(np.unique(order)) == 100
        assert (y[order] == np.arange(10)[:, None]).all()
    assert not np.array_equal(_drawn(y, 0), _drawn(y, 1)) and np.array_equal(_drawn(y, 3), _drawn(y, 3))


def test_the_accuracy_of_a_draw_is_scikit_learns():
    (x, y), (shown, truth) = parts()
    found = FewShot(draws=2, penalty=0.5).score((x, y), (shown, truth))
    assert found.keys() == {1, 5, 10} and all(len(values) == 2 for values in found.values())
    for shots, values in found.items():
        for draw, value in enumerate(values):
            rows = _drawn(y, draw)[:, :shots].ravel()
            model = LogisticRegression(C=2, max_iter=5000, tol=1e-6).fit(x[rows].astype(float), y[rows])
            assert value == pytest.approx(100 * model.score(shown.astype(float), truth), abs=100.5 / len(truth))
    assert np.mean(found[1]) < np.mean(found[5]) < np.mean(found[10])


def test_a_sample_that_could_not_be_read_is_never_drawn():
    (x, y), test = parts()
    lost = y.copy()
    lost[::7] = -1 - y[::7]
    assert not set(_drawn(lost, 0).ravel()) & set(range(0, len(y), 7))
    with pytest.raises(DataError, match="class 0 has 3 readable samples, not 10"):
        FewShot().score((x, np.where((y == 0) & (np.cumsum(y == 0) > 3), -1, y)), test)


def test_in_a_run(tmp_path):
    recipe = Recipe(
        "r", Model("test_convnext"), Data("digits", image_size=32, workers=0), train=Train(batch_size=64, max_steps=1),
        evals=(FewShot(draws=2),),
    )  # fmt: skip
    rows = train(recipe, tmp_path / "run", log=lambda text: None).results()["metrics"]
    assert [row["metric"] for row in rows] == ["few_shot1_top1", "few_shot5_top1", "few_shot10_top1"]
    for row, shots in zip(rows, ("1", "5", "10"), strict=True):
        assert row["value"] == pytest.approx(np.mean(row["draws"][shots])) and row["settings"] == "draws 2"


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="draws is a whole number from 1"):
        FewShot(draws=0)
    recipe = Recipe(
        "r", Model("test_convnext"), Data("digits", image_size=32, workers=0, train_images=64),
        train=Train(batch_size=32), evals=(FewShot(),),
    )  # fmt: skip
    with pytest.raises(DataError, match="fewer than 10 training samples of 10 classes"):
        train(recipe, tmp_path / "run", log=lambda text: None)
