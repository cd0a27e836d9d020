"""A loop on accelerate whose `backward` is watched, against the explicit loss."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from small_models import EXACT, STRONG, distance, expected, explicit_gradients, gradients, network, sites_of
from torch.nn import functional as F

from vcreg_hub.errors import AttachError, UsageError
from vcreg_hub.loops import watch_accelerator
from vcreg_hub.regularizer.attachment import attach


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("loss_scale", [None, 1024.0])
def test_accumulation_and_a_grad_scaler(k, loss_scale):
    model = network()
    batches = [model.batch(seed=i) for i in range(k)]
    for batch in batches:
        explicit_gradients(model, sites_of(model), batch, scale=(loss_scale or 1.0) / k)
    want = gradients(model).clone()
    model.zero_grad()
    attach(model, STRONG, sites=sites_of(model))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=k)
    if loss_scale:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)  # as with mixed_precision="fp16"
    prepared = accelerator.prepare(model)
    watch_accelerator(accelerator, prepared)
    for x, y in batches:
        with accelerator.accumulate(prepared):
            accelerator.backward(F.cross_entropy(prepared(x), y))
    assert distance(gradients(model), want) < EXACT


def test_a_detached_model_is_left_alone():
    model = network()
    x, y = model.batch()
    accelerator = Accelerator(cpu=True)
    vc = attach(model, STRONG, sites=sites_of(model))
    watch_accelerator(accelerator, model)
    vc.detach()
    accelerator.backward(F.cross_entropy(model(x), y))
    got = gradients(model).clone()
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    assert torch.equal(got, gradients(model))


def test_accumulation_that_accelerate_does_not_know_of_is_told_once():
    model = network()
    accelerator = Accelerator(cpu=True)
    with attach(model, STRONG, sites=sites_of(model)):
        watch_accelerator(accelerator, model)
        with pytest.warns(UserWarning, match=r"divided by hand.*gradient_accumulation_steps=k") as told:
            for i in range(4):
                x, y = model.batch(seed=i)
                accelerator.backward(F.cross_entropy(model(x), y) / 4)
    assert len(told) == 1


def test_steps_of_one_batch_are_quiet_and_exact():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y))
    accelerator = Accelerator(cpu=True)
    with attach(model, STRONG, sites=sites_of(model)):
        watch_accelerator(accelerator, model)
        for set_to_none in (True, False, True):
            accelerator.backward(F.cross_entropy(model(x), y))
            assert distance(gradients(model), want) < EXACT
            model.zero_grad(set_to_none=set_to_none)


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(AttachError, match="nothing within Network has VCReg"):
        watch_accelerator(Accelerator(cpu=True), network())
    with pytest.raises(UsageError, match=r"takes an accelerate\.Accelerator first"):
        watch_accelerator(network(), network())
