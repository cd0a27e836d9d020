"""Accuracy by group, counted by hand."""

from __future__ import annotations

import pytest
import torch

from vcreg_hub.config import Data
from vcreg_hub.data import load_data
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.incremental import Incremental, accuracy_by_group


def test_the_group_is_told_or_not():
    scores = torch.tensor([[3.0, 1.0, 9.0, 0.0], [0.0, 2.0, 1.0, 1.0], [5.0, 0.0, 1.0, 2.0], [0.0, 0.0, 4.0, 3.0]])
    known, unknown = accuracy_by_group(scores, torch.tensor([0, 1, 3, 3]), groups=2)
    assert known.tolist() == [100.0, 50.0]
    assert unknown.tolist() == [50.0, 0.0]


def test_groups_are_of_one_size():
    data = load_data(Data("digits", image_size=8))
    Incremental(groups=5).check(data)
    with pytest.raises(ConfigError, match="10 classes, which are not 3 groups of one size"):
        Incremental(groups=3).check(data)
    with pytest.raises(ConfigError, match="groups is a whole number from 1"):
        Incremental(groups=0)
