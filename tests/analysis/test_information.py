"""MINE on Gaussians whose mutual information is known: -1/2 log(1 - r^2) a pair of columns."""

from __future__ import annotations

import math

import pytest
import torch

from vcreg_hub.analysis.information import mutual_information
from vcreg_hub.errors import DataError


def gaussians(nats, columns, n=40_000, seed=0):
    r = math.sqrt(1 - math.exp(-2 * nats / columns))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, columns, generator=generator)
    return x, r * x + math.sqrt(1 - r**2) * torch.randn(n, columns, generator=generator)


@pytest.mark.parametrize(("nats", "columns"), [(0.5, 1), (1.0, 2), (2.0, 2)])
def test_known_information_is_found_to_five_percent(nats, columns):
    assert mutual_information(*gaussians(nats, columns)) == pytest.approx(nats, rel=0.05)


def test_strangers_share_nothing_and_a_seed_repeats():
    x, _ = gaussians(1.0, 1, n=4000)
    stranger = torch.randn(4000, 1, generator=torch.Generator().manual_seed(9))
    state = torch.random.get_rng_state()
    found = mutual_information(x, stranger, steps=200)
    assert abs(found) < 0.02
    assert found == mutual_information(x, stranger, steps=200)
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="pairs of vectors"):
        mutual_information(torch.randn(8, 2), torch.randn(9, 2))
    with pytest.raises(DataError, match="not finite"):
        mutual_information(torch.full((8, 2), torch.nan), torch.randn(8, 2))
