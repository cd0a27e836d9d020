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
    found = SEARCH.search(train, held_out, test)
    top1, penalty = by_hand(train, held_out, joined(train, held_out), test)
    assert found.penalty == penalty
    assert found.accuracies["top1"] == pytest.approx(top1, abs=100.5 / len(test[1]))  # one image
    assert found.accuracies["mean_per_class"] == pytest.approx(top1, abs=2)


def test_without_them_a_fifth_of_the_training_samples_does():
    train, _, test = parts()
    found = SEARCH.search(train, None, test)
    top1, penalty = by_hand(*_carved(train), train, test)
    assert found.penalty == penalty
    assert found.accuracies["top1"] == pytest.approx(top1, abs=100.5 / len(test[1]))


def test_a_fifth_of_every_class_is_carved_the_same_each_time():
    train, *_ = parts()
    kept, held_out = _carved(train)
    assert len(kept[1]) + len(held_out[1]) == len(train[1])
    shares = np.bincount(held_out[1]) / np.bincount(train[1])
    assert shares == pytest.approx([0.2] * 10, abs=0.01)
    assert np.array_equal(_carved(train)[1][0], held_out[0])


def test_the_scored_samples_change_no_penalty():
    train, held_out, test = parts()
    found = SEARCH.search(train, held_out, test)
    other = SEARCH.search(train, held_out, (test[0][::-1].copy(), test[1]))
    assert found.penalty == other.penalty


def test_a_sample_that_could_not_be_read_is_left_out_of_fits_and_wrong_in_the_test():
    train, held_out, test = parts()
    lost = (np.concatenate([train[0], np.full((1, 64), np.nan, np.float32)]), np.append(train[1], -1 - 3))
    assert (SEARCH.search(lost, held_out, test)) == SEARCH.search(train, held_out, test)
    wrong = (test[0], np.where(np.arange(len(test[1])) < 10, -1 - test[1], test[1]))
    less = (
        SEARCH.search(train, held_out, test).accuracies["top1"]
        - SEARCH.search(train, held_out, wrong).accuracies["top1"]
    )
    assert 0 < less <= 1000 / len(test[1]) + 1e-9


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="lowest is a number above 0"):
        LogReg(lowest=0)
    with pytest.raises(ConfigError, match="'top1', 'mean_per_class' or null"):
        LogReg(judged_by="top5")
    with pytest.raises(DataError, match="too few training samples"):
        _carved((np.zeros((2, 3), np.float32), np.array([0, 1])))


def test_the_whole_search_is_told():
    train, held_out, test = parts()
    found = SEARCH.search(train, held_out, test)
    assert [strength.penalty for strength in found.path] == [0.1, 1, 10, 100, 1000]
    assert (found.fitted, found.held_out) == (900, 400) and all(strength.converged for strength in found.path)
    best = max(found.path, key=lambda strength: (strength.score, strength.penalty))
    assert best.penalty == found.penalty
    # The objective of scikit-learn's own fit, written down.
    for strength in found.path:
        x, y = train[0].astype(float), train[1]
        model = LogisticRegression(C=1 / strength.penalty, max_iter=5000, tol=1e-8).fit(x, y)
        loss = -model.predict_log_proba(x)[range(len(y)), y].sum() + strength.penalty / 2 * (model.coef_**2).sum()
        assert strength.objective == pytest.approx(loss, rel=1e-4)


def test_a_data_set_is_judged_by_its_own_metric():
    class Pets:
        metric = "mean_per_class"

    assert LogReg().settings(Pets()) == {}
    assert LogReg(judged_by="mean_per_class").settings(Pets()) == {}
    assert LogReg(judged_by="top1", lowest=1e-6).settings(Pets()) == {"judged_by": "top1", "lowest": 1e-6}
    # Nine of ten are of one class: giving the other one up costs a tenth by top-1, half by the mean of the classes.
    random = np.random.default_rng(0)
    y = (np.arange(400) % 10 == 0).astype(np.int64)
    x = (random.normal(size=(400, 2)) + 0.8 * y[:, None]).astype(np.float32)
    for judge, given_up in (("top1", 90), ("mean_per_class", 50)):
        found = LogReg(count=9).search((x[:200], y[:200]), (x[200:], y[200:]), (x, y), judge)
        assert found.path[-1].score == pytest.approx(given_up)
        assert found.penalty == max(found.path, key=lambda strength: (strength.score, strength.penalty)).penalty
