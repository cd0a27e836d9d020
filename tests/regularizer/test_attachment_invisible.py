"""What attach leaves alone: the forward pass, the model's bytes, and copies of it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from small_models import (
    EXACT,
    STRONG,
    Grid,
    Map,
    Tokens,
    distance,
    expected,
    gradients,
    network,
    sites_of,
)
from torch.nn import functional as F

from vcreg_hub.errors import AttachError
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg


@pytest.mark.parametrize("block", [Tokens, Map, Grid])
def test_the_forward_pass_is_the_same_to_the_bit(block):
    model = network(block)
    x, _ = model.batch()
    model.train()
    plain = model(x)
    keys = list(model.state_dict())
    with attach(model, STRONG, sites=sites_of(model)):
        assert torch.equal(model(x), plain)
        assert list(model.state_dict()) == keys
        model.eval()
        assert torch.equal(model(x), plain)


def test_inert_without_training_mode_or_gradients():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), cfg=VCReg(alpha=0, beta=0))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        model.eval()
        F.cross_entropy(model(x), y).backward()
        assert torch.equal(gradients(model), want)
        model.train()
        with torch.no_grad():
            model(x)
        with torch.inference_mode():
            model(x)
        assert [row["backwards"] for row in vc.statistics()] == [0, 0, 0]


def test_detach_leaves_the_model_as_it_was_found():
    def traces(model):
        # Torch keeps an id per module for its hooks; everything else must be equal.
        return [(name, sorted(vars(m)), m._forward_hooks, m._forward_pre_hooks) for name, m in model.named_modules()]

    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), cfg=VCReg(alpha=0, beta=0))
    before = copy.deepcopy(traces(model))
    vc = attach(model, STRONG, sites=sites_of(model))
    assert model.vcreg is vc
    vc.watch_module(model)
    vc.detach()
    vc.detach()
    assert traces(model) == before
    assert not hasattr(model, "vcreg")
    F.cross_entropy(model(x), y).backward()
    assert torch.equal(gradients(model), want)
    attach(model, STRONG, sites=sites_of(model)).detach()


def test_a_pickled_model_has_the_bytes_it_had():
    def pickled():
        file = io.BytesIO()
        torch.save(model, file)
        return file.getvalue()

    model = network()
    attach(model, STRONG, sites=sites_of(model)).detach()  # torch makes its hook dicts OrderedDicts on first use
    before = pickled()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        vc.watch(model(model.batch()[0]).sum()).backward()
    model.zero_grad()
    assert pickled() == before


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "ema"])
def test_copies_have_an_attachment_of_their_own(how):
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=2.0)
    vc = attach(model, STRONG, sites=sites_of(model))
    vc.watch(F.cross_entropy(model(x), y)).backward()  # copies are taken in mid-training
    model.zero_grad()
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    elif how == "ema":
        from timm.utils import ModelEmaV3

        twin = ModelEmaV3(model, decay=0.5).module
        assert not twin.training
        twin(x)
        twin.train().requires_grad_()
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert twin.vcreg is not vc
    assert twin.vcreg.sites[0].module is twin.blocks[0]
    counts = [row["backwards"] for row in vc.statistics()]
    loss = vc.watch(F.cross_entropy(model(x), y))  # both at work at once
    (twin.vcreg.watch(F.cross_entropy(twin(x), y)) * 2).backward()
    assert distance(gradients(twin), want) < EXACT
    assert [row["backwards"] for row in vc.statistics()] == counts
    twin.vcreg.detach()
    assert not hasattr(twin, "vcreg")
    (loss * 2).backward()
    assert distance(gradients(model), want) < EXACT
    vc.detach()


@pytest.mark.parametrize("training", [True, False], ids=["original in training", "original in evaluation"])
def test_a_copy_watched_through_the_original_is_told_so(training):
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=2.0)
    vc = attach(model, STRONG, sites=sites_of(model))
    twin = copy.deepcopy(model)
    model.train(training)
    with pytest.raises(AttachError, match=r"a copied model was watched by the original's.*copy\.vcreg\.watch"):
        vc.watch(F.cross_entropy(twin(x), y)).backward()
    twin.zero_grad()
    (twin.vcreg.watch(F.cross_entropy(twin(x), y)) * 2).backward()
    assert distance(gradients(twin), want) < EXACT


def test_the_repr_says_what_and_where():
    model = network()
    vc = attach(model, VCReg(), sites=sites_of(model)[:1])
    assert repr(vc) == f"Attachment({VCReg()}, 1 site: blocks.0)"
    vc.detach()
    assert repr(vc).endswith("1 site: blocks.0, detached)")
    with attach(model, VCReg(), sites=sites_of(model)) as vc:
        assert "3 sites: blocks.0, blocks.1, blocks.2" in repr(vc)
        assert [site.name for site in vc.sites] == ["blocks.0", "blocks.1", "blocks.2"]
        assert vc.cfg == VCReg()
