"""The same exactness under torch.compile, and the ways in which a compiled model could lose its hooks silently."""

from __future__ import annotations

import pytest
import torch
from small_models import STRONG, Map, Network, Tokens, distance, explicit_gradients, gradients, sites_of
from torch.nn import functional as F

from vcreg_hub.errors import AttachError
from vcreg_hub.regularizer.attachment import attach

BACKEND = "aot_eager"


pytestmark = pytest.mark.usefixtures("fresh_compiler")


def prepared(block=Tokens, scale=4.0, **kwargs):
    """A double model, a batch, and the gradients that an uncompiled twin gets from the explicit loss."""
    twin = Network(block).double()
    want = explicit_gradients(twin, sites_of(twin), twin.batch(), scale=scale)
    model = Network(block, **kwargs).double()
    return model, model.batch(), want


@pytest.mark.parametrize("block", [Tokens, pytest.param(Map, marks=pytest.mark.slow)])
def test_a_compiled_model(block):
    model, (x, y), want = prepared(block)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, backend=BACKEND, fullgraph=True)
        for step in range(3):
            model.zero_grad()
            with torch._dynamo.config.patch(error_on_recompile=step > 0):
                (vc.watch(F.cross_entropy(compiled(x), y)) * 4).backward()
            assert distance(gradients(model), want) < 1e-12
        assert [row["backwards"] for row in vc.statistics()] == [3, 3, 3]


@pytest.mark.slow
def test_a_scale_does_not_survive_into_an_unwatched_compiled_step():
    model, (x, y), want = prepared(scale=1.0)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, backend=BACKEND)
        (vc.watch(F.cross_entropy(compiled(x), y)) * 8).backward()
        model.zero_grad()
        F.cross_entropy(compiled(x), y).backward()
        assert distance(gradients(model), want) < 1e-12
        with pytest.warns(UserWarning, match="found gradients of an earlier one"):
            F.cross_entropy(compiled(x), y).backward()


def test_two_watched_losses_in_one_pass():
    twin = Network().double()
    (x1, y1), (x2, y2) = twin.batch(seed=1), twin.batch(seed=2)
    explicit_gradients(twin, sites_of(twin), (x1, y1), scale=3.0)
    want = explicit_gradients(twin, sites_of(twin), (x2, y2), scale=0.25)
    model = Network().double()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, backend=BACKEND)
        a = vc.watch(F.cross_entropy(compiled(x1), y1))
        b = vc.watch(F.cross_entropy(compiled(x2), y2))
        (3 * a + 0.25 * b).backward()
        assert distance(gradients(model), want) < 1e-12
        out = compiled(x1)
        a, b = vc.watch(F.cross_entropy(out, y1)), vc.watch(out.square().mean())
        with pytest.raises(AttachError, match="Watch the total once"):
            (a + 0.25 * b).backward()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["blocks in eval", "frozen backbone"])
def test_a_compiled_step_whose_sites_have_nothing_to_do_trains_on(how):
    model, (x, y), _ = prepared()
    model.blocks.eval() if how == "blocks in eval" else model.blocks.requires_grad_(False)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, backend=BACKEND)
        with pytest.warns(UserWarning, match="3 of 3 sites got no gradient") as said:
            for _ in range(3):
                vc.watch(F.cross_entropy(compiled(x), y)).backward()
        assert len([one for one in said if "sites" in str(one.message)]) == 1


@pytest.mark.slow
def test_compiled_with_checkpointing():
    model, (x, y), want = prepared(checkpointing="non-reentrant")
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, backend=BACKEND)
        (vc.watch(F.cross_entropy(compiled(x), y)) * 4).backward()
        assert distance(gradients(model), want) < 1e-12


@pytest.mark.slow
# Torch's own: compiling a block apart from its model asks the activations it is called with for a .grad.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_blocks():
    model, (x, y), want = prepared()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        for block in model.blocks:
            block.compile(backend=BACKEND)
        (vc.watch(F.cross_entropy(model(x), y)) * 4).backward()
        assert distance(gradients(model), want) < 1e-12


def test_forward_and_loss_compiled_together_break_the_graph_at_watch_and_stay_exact():
    model, (x, y), want = prepared()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        step = torch.compile(lambda x, y: vc.watch(F.cross_entropy(model(x), y)), backend=BACKEND)
        for _ in range(2):
            model.zero_grad()
            (step(x, y) * 4).backward()
            assert distance(gradients(model), want) < 1e-12


@pytest.mark.slow
def test_forward_and_loss_in_one_full_graph_are_refused():
    model, (x, y), _ = prepared()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        step = torch.compile(lambda x, y: vc.watch(F.cross_entropy(model(x), y)), backend=BACKEND, fullgraph=True)
        with pytest.raises(Exception, match="call it outside of the compiled function"):
            step(x, y)


@pytest.mark.slow
def test_autocast_is_known_inside():
    model = Network().float()
    x, y = model.batch(dtype=torch.float32)
    with attach(model, STRONG, sites=sites_of(model)):
        compiled = torch.compile(model, backend=BACKEND, fullgraph=True)
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(compiled(x), y)
        with pytest.warns(UserWarning, match="float16"):
            loss.backward()


def test_attaching_after_the_first_compiled_call_is_refused():
    model, (x, _), _ = prepared()
    compiled = torch.compile(model, backend=BACKEND)
    compiled(x)
    for target in (model, compiled):
        with pytest.raises(AttachError, match=r"compiled and called before attach.*torch\.compiler\.reset"):
            attach(target, STRONG, sites=sites_of(model))
    assert not hasattr(model, "vcreg")
    torch.compiler.reset()
    with attach(compiled, STRONG, sites=sites_of(model)) as vc:
        assert compiled.vcreg is model.vcreg is vc
        vc.watch(compiled(x).sum()).backward()
        assert [row["backwards"] for row in vc.statistics()] == [1, 1, 1]


@pytest.mark.slow
def test_attaching_to_a_model_that_was_compiled_but_not_called_works():
    model, (x, y), want = prepared()
    compiled = torch.compile(model, backend=BACKEND)
    with attach(compiled, STRONG, sites=sites_of(model)) as vc:
        (vc.watch(F.cross_entropy(compiled(x), y)) * 4).backward()
        assert distance(gradients(model), want) < 1e-12


def test_a_compiled_twin_of_the_same_class_is_noticed():
    """Torch would run the twin's code, without hooks, for this model too."""
    twin, (x, _), _ = prepared()
    torch.compile(twin, backend=BACKEND)(x)
    model = Network().double()
    with pytest.raises(AttachError, match="another model of its class"):
        attach(model, STRONG, sites=sites_of(model))


def test_hooks_that_a_compiled_caller_ignores_are_an_error_at_the_first_step():
    """A compiled function that calls the model cannot be seen from the model."""
    model, (x, y), _ = prepared()
    step = torch.compile(lambda x: model(x), backend=BACKEND)
    step(x)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = vc.watch(F.cross_entropy(step(x), y))
        with pytest.raises(AttachError, match="no hook ran"):
            loss.backward()


@pytest.mark.slow
def test_detached_compiled_models_lose_the_regularizer():
    model, (x, y), _ = prepared()
    vc = attach(model, STRONG, sites=sites_of(model))
    compiled = torch.compile(model, backend=BACKEND)
    vc.watch(F.cross_entropy(compiled(x), y)).backward()
    vc.detach()
    del vc
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    want = gradients(model).clone()
    model.zero_grad()
    torch.compiler.reset()
    F.cross_entropy(compiled(x), y).backward()
    assert distance(gradients(model), want) < 1e-12


@pytest.mark.slow
def test_inductor():
    model, (x, y), want = prepared(Map)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        compiled = torch.compile(model, fullgraph=True)
        for _ in range(2):
            model.zero_grad()
            (vc.watch(F.cross_entropy(compiled(x), y)) * 4).backward()
            assert distance(gradients(model), want) < 1e-10
