"""The evaluation of a boundary, on a network whose boundary is known."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vcreg_hub.config import Data, Eval
from vcreg_hub.data import load_data
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.boundary import Boundary
from vcreg_hub.evals.context import Context

DATA = load_data(Data("moons:0.1", split_seed=4))


class Straight(nn.Module):
    """The boundary is the line x = 0; class 1 lies on its left."""

    def forward(self, points):
        return torch.stack([points[:, 0], -points[:, 0]], dim=1)


def test_a_straight_boundary_is_wrong_where_moons_overlap():
    context = Context(Straight(), DATA, Eval("val"), Accelerator(cpu=True), load=load_data)
    found = dict(Boundary(overlap=0.3).run(context))
    overlapping = load_data(DATA.moved(-0.3)).sets.val
    right = (overlapping.points[:, 0] < 0) == (overlapping.labels == 1)
    assert found["overlap_top1"] == pytest.approx(100 * right.mean())
    distances = torch.from_numpy(DATA.sets.val.points[:, 0]).abs()
    assert found["margin"] == pytest.approx(distances.mean().item(), abs=2e-3)
    assert found["margin_p1"] == pytest.approx(distances.quantile(0.01).item(), abs=2e-3)


def test_it_is_of_points_alone_and_the_overlap_is_bounded():
    with pytest.raises(ConfigError, match="boundary is of points in the plane"):
        Boundary().check(load_data(Data("digits", image_size=8)))
    with pytest.raises(ConfigError, match="overlap is a number from 0 to 1"):
        Boundary(overlap=1.5)
