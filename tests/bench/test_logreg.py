"""The comparison with scikit-learn, small: both minimise one objective, and what is printed is what was measured."""

from __future__ import annotations

import pytest

from vcreg_hub.bench.logreg import logreg, render


def test_both_reach_the_same_minimum_and_are_timed():
    result = logreg("digits", samples=200, width=16, count=5, lowest=1e-2, tolerance=1e-8)
    assert (result["samples"], result["width"], result["tested"]) == (200, 16, 500)
    assert [one["penalty"] for one in result["path"]] == pytest.approx([1e-2, 10**-0.25, 10**1.5, 10**3.25, 1e5])
    for one in result["path"]:
        if one["converged"]["sklearn"]:
            assert one["objective"]["ours"] == pytest.approx(one["objective"]["sklearn"], rel=1e-4)
            assert abs(one["test_top1"]["ours"] - one["test_top1"]["sklearn"]) <= 0.2 + 1e-9  # one image
    seconds = result["seconds"]
    assert len(seconds["ours"]) == 2 and seconds["sklearn"]["wall"] >= sum(o["sklearn_seconds"] for o in result["path"])
    text = render(result)
    assert f"| {seconds['sklearn']['wall']:.1f}" in text and "5 penalties, digits, 200 x 16, 10 classes" in text
