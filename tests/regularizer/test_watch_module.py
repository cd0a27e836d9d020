"""Loops that cannot be edited: `watch_module` finds the loss in what a criterion or a model returns."""

from __future__ import annotations

import pytest
import torch
from small_models import (
    EXACT,
    STRONG,
    distance,
    expected,
    explicit_penalty,
    gradients,
    network,
    sites_of,
    transformers_vit,
)
from torch import nn

from vcreg_hub.errors import AttachError
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.attachment import attach


def test_a_watched_criterion():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=0.25)
    criterion = nn.CrossEntropyLoss()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        vc.watch_module(criterion)
        (criterion(model(x), y) / 4).backward()
        assert distance(gradients(model), want) < EXACT
    assert not criterion._forward_hooks
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        handle = vc.watch_module(criterion)
        handle.remove()
        assert not criterion._forward_hooks


def test_a_watched_module_without_a_loss_is_an_error():
    model = network()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        vc.watch_module(nn.Identity())
        identity = nn.Identity()
        vc.watch_module(identity)
        with pytest.raises(AttachError, match=r"no loss in what Identity returned \(int\)"):
            identity(3)


@pytest.mark.parametrize("reduction", ["mean", "sum over num_items_in_batch"])
def test_a_watched_transformers_model(reduction):
    """The two ways in which transformers' Trainer accumulates over two batches."""
    model = transformers_vit().double().train()
    sites = find_blocks(model)
    batches = [(torch.randn(n, 3, 16, 16, dtype=torch.float64), torch.randint(3, (n,))) for n in (3, 5)]
    kwargs = {} if reduction == "mean" else {"num_items_in_batch": torch.tensor(8)}
    for x, y in batches:
        share = 0.5 if reduction == "mean" else len(y) / 8
        with explicit_penalty(sites, STRONG) as terms:
            loss = model(pixel_values=x, labels=y, **kwargs).loss
            (loss / 2 + sum(terms) * share if reduction == "mean" else loss + sum(terms) * share).backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG) as vc:
        vc.watch_module(model)
        for x, y in batches:
            loss = model(pixel_values=x, labels=y, **kwargs).loss
            (loss / 2 if reduction == "mean" else loss).backward()
        assert distance(gradients(model), want) < 1e-10
        with pytest.raises(AttachError, match="when it is given labels"):
            model(pixel_values=batches[0][0])
        with torch.no_grad():
            model(pixel_values=batches[0][0])
