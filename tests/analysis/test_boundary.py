"""The decision line against lines that are known, and distances against the formula of a straight one."""

from __future__ import annotations

import math

import torch

from vcreg_hub.analysis.boundary import grid_scores, margins, zero_points


def test_a_straight_line_is_found_and_distances_are_those_of_its_formula():
    normal, offset = torch.tensor([math.cos(0.3), math.sin(0.3)]), 0.4

    def score(points):
        return points @ normal - offset

    line = zero_points(grid_scores(score))
    assert score(line).abs().max() < 1e-5
    points = 3 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 1.5
    right = torch.arange(200) % 2 == 0
    found, by_hand = margins(points, right, line), score(points).abs()
    assert torch.equal(found > 0, right)
    # The points of the line are at most a step of 0.02 apart, so the nearest one is at most 0.01 from the foot.
    assert (found.abs() >= by_hand - 1e-5).all() and (found.abs() <= (by_hand.square() + 0.01**2).sqrt() + 1e-5).all()


def test_a_circle_is_found_on_both_axes():
    line = zero_points(grid_scores(lambda points: points.square().sum(1) - 1))
    assert (line.norm(dim=1) - 1).abs().max() < 1e-3
    angles = torch.atan2(line[:, 1], line[:, 0]).sort().values
    assert (angles.diff() < 0.03).all(), "without a gap"


def test_without_a_line_distances_end_at_the_square():
    line = zero_points(grid_scores(lambda points: torch.ones(len(points))))
    assert line.shape == (0, 2)
    assert margins(torch.zeros(2, 2), torch.tensor([True, False]), line).tolist() == [3.0, -3.0]
