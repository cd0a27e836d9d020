"""What the collapse evaluation tells of features whose collapse is known."""

from __future__ import annotations

import numpy as np
import pytest

from vcreg_hub.evals.collapse import Collapse


def features(spread: float, seed: int):
    """Four classes at the corners of a square of side 2 in the first two of five channels; the fifth is dead."""
    draws = np.random.default_rng(seed)
    labels = np.arange(400) % 4
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float32)[labels]
    rows = np.concatenate([corners, np.zeros((400, 3))], 1) + spread * draws.normal(size=(400, 5))
    rows[:, 4] = 7
    return rows.astype(np.float32), labels.astype(np.int64)


def test_tight_classes_are_collapsed_and_loose_ones_are_not():
    tight, loose = (dict(Collapse().score(features(spread, 0), features(spread, 1))) for spread in (0.02, 1.0))
    assert {*tight, "ncc_agreement"} == Collapse.metrics.keys()
    assert tight["ncc_top1"] == 100 and loose["ncc_top1"] < 90
    # Four channels vary with deviation s, and (2 s^2) 4 / (2 * 4) or, on a diagonal, / (2 * 8) is the mean over pairs.
    assert tight["cdnv"] == pytest.approx(4 * 0.02**2 * (4 / 4 + 2 / 8) / 6, rel=0.1)
    assert loose["cdnv"] > 500 * tight["cdnv"] and loose["directional_cdnv"] < loose["cdnv"]
    assert tight["effective_rank"] == pytest.approx(2, abs=0.01) and loose["effective_rank"] > 3
    assert loose["rankme"] > tight["rankme"]
    assert tight["collapsed"] == pytest.approx(20) and tight["mean_correlation"] < 0.1


def test_samples_that_could_not_be_read_are_left_out():
    rows, labels = features(0.3, 0)
    lost = np.concatenate([rows, np.full((1, 5), np.nan, np.float32)]), np.append(labels, -1 - 2)
    assert dict(Collapse().score(lost, lost)) == dict(Collapse().score((rows, labels), (rows, labels)))
