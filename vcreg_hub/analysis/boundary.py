"""The line in the plane where a network changes its mind, and how far points lie from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# The square that is looked at: the two moons lie within 2 of the middle.
_HALF_WIDTH = 3.0


def grid_scores(score: Callable[[Tensor], Tensor], half_width: float = _HALF_WIDTH, count: int = 301) -> Tensor:
    """(count, count) scores on even points of the square; the first axis is x, the second y.

    score: (n, 2) -> (n,).
    """
    line = torch.linspace(-half_width, half_width, count)
    points = torch.cartesian_prod(line, line)
    return torch.cat([score(part) for part in points.split(4096)]).view(count, count)


def zero_points(scores: Tensor, half_width: float = _HALF_WIDTH) -> Tensor:
    """(k, 2) points of the zero line, interpolated on the edges of the grid of `grid_scores` where the sign changes.

    A worked example, three points a side from -1 to 1 and the score x - 0.5: it is -0.5 at x = 0 and 0.5 at x = 1, so
    the three edges between them are crossed at x = 0.5.

    >>> zero_points(torch.tensor([[-1.5] * 3, [-0.5] * 3, [0.5] * 3]), 1.0).tolist()
    [[0.5, -1.0], [0.5, 0.0], [0.5, 1.0]]
    """
    line = torch.linspace(-half_width, half_width, len(scores), dtype=scores.dtype)
    step = line[1] - line[0]
    found = []
    for values, across in ((scores, False), (scores.T, True)):
        low, high = values[:-1], values[1:]
        row, column = torch.nonzero((low < 0) != (high < 0), as_tuple=True)
        share = low[row, column] / (low[row, column] - high[row, column])
        pair = torch.stack([line[row] + share * step, line[column]], dim=1)
        found.append(pair.flip(1) if across else pair)
    return torch.cat(found)


def margins(points: Tensor, right: Tensor, line: Tensor) -> Tensor:
    """(n,) distances of points (n, 2) to the nearest of a line's points (k, 2), negative where `right` (n,) is false.

    Distances end at the half width of the square, which is what an empty line gives. With the line's points s apart, a
    distance d comes out between d and sqrt(d^2 + s^2 / 4).
    """
    distance = torch.full((len(points),), _HALF_WIDTH, dtype=points.dtype)
    for start in range(0, len(line), 512):
        distance = torch.minimum(distance, torch.cdist(points, line[start : start + 512]).min(1).values)
    return torch.where(right, distance, -distance)
