"""Backward passes that are transformed or traced instead of run: refused by name, and never without a word."""

from __future__ import annotations

import pytest
import torch
from small_models import EXACT, STRONG, distance, expected, gradients, network, sites_of
from torch.nn import functional as F

from vcreg_hub.errors import AttachError
from vcreg_hub.regularizer.attachment import attach


def per_sample(model, x, y):
    loss = F.cross_entropy(model(x), y, reduction="none")
    return torch.autograd.grad(loss, list(model.parameters()), torch.eye(len(x)).double(), is_grads_batched=True)


def functional(model, x, y):
    """The loss as a function of the parameters, and these."""
    parameters = dict(model.named_parameters())
    return lambda p: F.cross_entropy(torch.func.functional_call(model, p, (x,)), y), parameters


TRANSFORMS = {
    "grad": lambda model, x, y: torch.func.grad(functional(model, x, y)[0])(functional(model, x, y)[1]),
    "vjp": lambda model, x, y: torch.func.vjp(*functional(model, x, y))[0],
    "jacrev": lambda model, x, y: torch.func.jacrev(functional(model, x, y)[0])(functional(model, x, y)[1]),
    "vmap": lambda model, x, y: torch.func.vmap(lambda one: model(one[None])[0])(x),
    "is_grads_batched": per_sample,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_refused_by_name(name):
    model = network()
    x, y = model.batch()
    transform = TRANSFORMS[name]
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        with pytest.raises(AttachError, match=r"VCReg at blocks\.\d .*torch\.func.*vcreg_loss"):
            transform(model, x, y)
        with vc.paused():
            transform(model, x, y)
        model.eval()
        transform(model, x, y)
        model.train()
        # And nothing of it is left.
        want = expected(network(), (x, y))
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_watched_loss_with_a_batch_of_gradients_is_refused():
    model = network()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = vc.watch(F.cross_entropy(model(x), y, reduction="none"))
        with pytest.raises(AttachError, match=r"VCReg at the watched loss .*is_grads_batched"):
            torch.autograd.grad(loss, list(model.parameters()), torch.eye(6).double(), is_grads_batched=True)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("forward_too", [True, False])
def test_compiled_autograd_is_refused_by_name(watched, forward_too):
    from torch._dynamo import compiled_autograd

    torch.compiler.reset()
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = F.cross_entropy(model(x), y)
        loss = vc.watch(loss) if watched else loss
        with compiled_autograd._enable(torch.compile(backend="eager")), pytest.raises(Exception) as refused:
            if forward_too:
                loss = F.cross_entropy(model(x), y)
                loss = vc.watch(loss) if watched else loss
            loss.backward()
        # A forward pass outside has its saved tensors refused by torch itself, which says how to turn it off.
        named = "compiled autograd traces it" if forward_too else "compiled auto"
        assert named in str(refused.value)
        torch.compiler.reset()
        model.zero_grad()
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT
