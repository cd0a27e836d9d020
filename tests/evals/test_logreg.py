"""The searched probe on real digits: which samples choose the penalty, which are fitted, and what is told."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from vcreg_hub.errors import ConfigError, DataError
from vcreg_hub.evals.logreg import LogReg, _carved

SEARCH = LogReg(lowest=0.1, highest=1e3, count=5)


def parts():
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(y))
    return [(x[rows], y[rows]) for rows in np.split(order, [900, 1300])]


def by_hand(kept, held_out, whole, test):
    """The protocol with scikit-learn, one penalty at a time: (top-1, penalty)."""
    scores = {}
    for penalty in 10.0 ** np.arange(-1, 4):
        model = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-6).fit(kept[0].astype(float), kept[1])
        scores[penalty] = (model.score(held_out[0].astype(float), held_out[1]), penalty)
    best = max(scores, key=scores.get)
    final = LogisticRegression(C=1 / best, max_iter=5000, tol=1e-6).fit(whole[0].astype(float), whole[1])
    return 100 * final.score(test[0].astype(float), test[1]), best


def joined(*rows):
    return tuple(np.concatenate(part) for part in zip(*rows, strict=True))


def test_validation_samples_choose_the_penalty_and_join_the_last_fit():
    train, held_out, test = parts()
    found = dict(SEARCH.score(train, held_out, test))
    top1, penalty = by_hand(train, held_out, joined(train, held_out), test)
    assert found["logreg_penalty"] == penalty
    assert found["logreg_top1"] == pytest.approx(top1, abs=100.5 / len(test[1]))  # one image
    assert found["logreg_mean_per_class"] == pytest.approx(top1, abs=2)


def test_without_them_a_fifth_of_the_training_samples_does():
    train, _, test = parts()
    found = dict(SEARCH.score(train, None, test))
    top1, penalty = by_hand(*_carved(train), train, test)
    assert found["logreg_penalty"] == penalty
    assert found["logreg_top1"] == pytest.approx(top1, abs=100.5 / len(test[1]))


def test_a_fifth_of_every_class_is_carved_the_same_each_time():
    train, *_ = parts()
    kept, held_out = _carved(train)
    assert len(kept[1]) + len(held_out[1]) == len(train[1])
    shares = np.bincount(held_out[1]) / np.bincount(train[1])
    assert shares == pytest.approx([0.2] * 10, abs=0.01)
    assert np.array_equal(_carved(train)[1][0], held_out[0])


def test_the_scored_samples_change_no_penalty():
    train, held_out, test = parts()
    found = dict(SEARCH.score(train, held_out, test))
    other = dict(SEARCH.score(train, held_out, (test[0][::-1].copy(), test[1])))
    assert found["logreg_penalty"] == other["logreg_penalty"]


def test_a_sample_that_could_not_be_read_is_left_out_of_fits_and_wrong_in_the_test():
    train, held_out, test = parts()
    lost = (np.concatenate([train[0], np.full((1, 64), np.nan, np.float32)]), np.append(train[1], -1 - 3))
    assert dict(SEARCH.score(lost, held_out, test)) == dict(SEARCH.score(train, held_out, test))
    wrong = (test[0], np.where(np.arange(len(test[1])) < 10, -1 - test[1], test[1]))
    less = (
        dict(SEARCH.score(train, held_out, test))["logreg_top1"]
        - dict(SEARCH.score(train, held_out, wrong))["logreg_top1"]
    )
    assert 0 < less <= 1000 / len(test[1]) + 1e-9


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="above 0 upwards"):
        LogReg(lowest=0)
    with pytest.raises(ConfigError, match="'top1' or 'mean_per_class'"):
        LogReg(judged_by="top5")
    with pytest.raises(DataError, match="too few training samples"):
        _carved((np.zeros((2, 3), np.float32), np.array([0, 1])))
