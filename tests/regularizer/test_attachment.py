"""What attach does: the injected gradient in every regime of one eager process."""

from __future__ import annotations

import threading
import warnings

import pytest
import timm
import torch
from small_models import (
    EXACT,
    STRONG,
    Grid,
    Map,
    Network,
    Tokens,
    distance,
    expected,
    explicit_gradients,
    explicit_penalty,
    gradients,
    network,
    sites_of,
)
from torch.nn import functional as F

from vcreg_hub.errors import AttachError
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg


@pytest.mark.parametrize(
    ("block", "channels_last"), [(Tokens, False), (Map, False), (Map, True), (Grid, False), (Grid, True)]
)
def test_the_parameters_get_the_gradient_of_the_explicit_loss(block, channels_last):
    model = network(block)
    x, y = model.batch()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("scale", [1.0, 4.0, 1 / 3, 65536.0])
def test_the_regularizer_follows_the_scale_of_the_loss(scale):
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=scale)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        (vc.watch(F.cross_entropy(model(x), y)) * scale).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_loss_of_several_elements_is_reduced_later():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=0.5)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        (vc.watch(F.cross_entropy(model(x), y, reduction="none")).mean() / 2).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("k", [1, 4])
def test_accumulation(k):
    model = network()
    batches = [model.batch(seed=i) for i in range(k)]
    for batch in batches:
        explicit_gradients(model, sites_of(model), batch, scale=1 / k)
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        for x, y in batches:
            (vc.watch(F.cross_entropy(model(x), y)) / k).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("checkpointing", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize("block", [Tokens, Map])
def test_checkpointing(block, checkpointing):
    model = network(block, checkpointing=checkpointing)
    x, y = model.batch()
    plain = network(block)
    want = expected(plain, plain.batch(), scale=0.25)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        for _ in range(2):  # the second step must not inherit the first one's scale
            model.zero_grad()
            (vc.watch(F.cross_entropy(model(x), y)) * 0.25).backward()
            assert distance(gradients(model), want) < EXACT
        assert [row["backwards"] for row in vc.statistics()] == [2, 2, 2]


@pytest.mark.parametrize("block", [Tokens, Map])
def test_bfloat16_autocast(block):
    model = network(block).float()
    x, y = model.batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        want = expected(model, (x, y))
        plain = expected(model, (x, y), cfg=VCReg(alpha=0, beta=0))
        with attach(model, STRONG, sites=sites_of(model)) as vc:
            loss = vc.watch(F.cross_entropy(model(x), y))
    loss.backward()
    assert distance(gradients(model), want) < 5e-3
    assert distance(plain, want) > 0.3


@pytest.mark.parametrize("loss_scale", [1.0, 65536.0])
@pytest.mark.parametrize("k", [1, 4])
def test_float16_with_a_grad_scaler(loss_scale, k):
    model = Network(Tokens)
    cfg = VCReg(alpha=0.5, beta=0.3)  # 65536 times the gradient must fit float16
    batches = [model.batch(seed=i, dtype=torch.float32) for i in range(k)]
    for batch in batches:
        explicit_gradients(model, sites_of(model), batch, cfg=cfg, scale=1 / k)
    want = gradients(model).clone()  # in float32: what float16 training approximates
    scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with attach(model, cfg, sites=sites_of(model)) as vc:
        for _ in range(2):
            model.zero_grad()
            for x, y in batches:
                with torch.autocast("cpu", torch.float16):
                    loss = vc.watch(F.cross_entropy(model(x), y))
                scaler.scale(loss / k).backward()
            scaler.unscale_(optimizer)
            assert torch.isfinite(gradients(model)).all()
            assert distance(gradients(model), want) < 2e-2
            scaler.step(optimizer)
            scaler.update()


def test_two_forwards_one_loss():
    model = network()
    (x1, y1), (x2, y2) = model.batch(seed=1), model.batch(seed=2)
    model.zero_grad()
    explicit_gradients(model, sites_of(model), (x1, y1), scale=2.0)
    explicit_gradients(model, sites_of(model), (x2, y2), scale=2.0)
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        a, b = model(x1), model(x2)
        (vc.watch(F.cross_entropy(a, y1) + F.cross_entropy(b, y2)) * 2).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("separately", [False, True])
def test_two_watched_losses_keep_their_own_scales(separately):
    model = network()
    (x1, y1), (x2, y2) = model.batch(seed=1), model.batch(seed=2)
    model.zero_grad()
    explicit_gradients(model, sites_of(model), (x1, y1), scale=3.0)
    explicit_gradients(model, sites_of(model), (x2, y2), scale=0.25)
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        a = vc.watch(F.cross_entropy(model(x1), y1))
        b = vc.watch(F.cross_entropy(model(x2), y2))
        if separately:
            (0.25 * b).backward()
            (3 * a).backward()
        else:
            (3 * a + 0.25 * b).backward()
    assert distance(gradients(model), want) < EXACT


ORDERS = {
    "one pass": lambda a, b: (3 * a + 0.25 * b).backward(),
    "one pass, the other way round": lambda a, b: (0.25 * b + 3 * a).backward(),
    "two passes": lambda a, b: ((3 * a).backward(retain_graph=True), (0.25 * b).backward()),
    "two passes, the other way round": lambda a, b: ((0.25 * b).backward(retain_graph=True), (3 * a).backward()),
    "as GradNorm": lambda a, b: (
        torch.autograd.grad(a, list_of(a), retain_graph=True),
        torch.autograd.grad(b, list_of(b), retain_graph=True),
        (3 * a + 0.25 * b).backward(),
    ),
}


def list_of(loss):
    """Some leaf that the loss depends on, as gradient surgery asks for it."""
    node = loss.grad_fn
    while not hasattr(node, "variable"):
        node = next(following for following, _ in node.next_functions if following is not None)
    return [node.variable]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("checkpointing", [None, "non-reentrant"])
def test_several_watched_losses_of_one_forward_add_up(order, checkpointing):
    model = network(checkpointing=checkpointing)
    x, y = model.batch()
    with explicit_penalty(sites_of(model), STRONG) as terms:
        out = model(x)
        penalty = sum(terms)
        total = 3 * (F.cross_entropy(out, y) + penalty) + 0.25 * (out.square().mean() + 0.5 * penalty)
        total.backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        ORDERS[order](vc.watch(F.cross_entropy(out, y)), vc.watch(out.square().mean(), weight=0.5))
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("separately", [False, True])
def test_several_losses_of_several_forwards_are_told_apart_by_the_graph(separately):
    """Two views, then a loss of each and one of both."""
    model = network()
    (x1, y1), (x2, y2) = model.batch(seed=1), model.batch(seed=2)
    of_view = []
    for x in (x1, x2):
        with explicit_penalty(sites_of(model), STRONG) as terms:
            of_view.append((model(x), sum(terms)))
    (a, r1), (b, r2) = of_view
    both = (a - b).square().mean()
    (3 * (F.cross_entropy(a, y1) + r1) + 0.25 * (F.cross_entropy(b, y2) + r2) + 2 * (both + r1 + r2)).backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        a, b = model(x1), model(x2)
        first, second = vc.watch(F.cross_entropy(a, y1)), vc.watch(F.cross_entropy(b, y2))
        both = vc.watch((a - b).square().mean())
        if separately:
            (0.25 * second).backward(retain_graph=True)
            (2 * both).backward(retain_graph=True)
            (3 * first).backward()
        else:
            (3 * first + 0.25 * second + 2 * both).backward()
    assert distance(gradients(model), want) < EXACT


def test_two_losses_of_two_checkpointed_forwards_are_refused():
    model = network(checkpointing="reentrant")
    (x1, y1), (x2, y2) = model.batch(seed=1), model.batch(seed=2)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        a, b = model(x1), model(x2)
        vc.watch(F.cross_entropy(a, y1))
        if vc._injection.scale._last.passes > 1:
            with pytest.raises(AttachError, match="Watch the total once"):
                vc.watch(F.cross_entropy(b, y2))


def test_a_loss_that_is_watched_twice_counts_once():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=4.0)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        (4 * vc.watch(vc.watch(F.cross_entropy(model(x), y)))).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_walk_that_no_watched_loss_began_adds_nothing(when):
    """An auxiliary loss of the same forward pass, walked by itself."""
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=4.0)
    model(x).square().mean().backward()
    want += gradients(model)
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        loss, auxiliary = vc.watch(F.cross_entropy(out, y)), out.square().mean()
        walks = [lambda: auxiliary.backward(retain_graph=True), lambda: (4 * loss).backward(retain_graph=True)]
        for walk in walks if when == "before" else reversed(walks):
            walk()
    assert distance(gradients(model), want) < EXACT


def test_paused_backward_passes_add_nothing():
    """The input gradient of an attack, then a step on what it made."""
    model = network()
    x, y = model.batch()
    plain = torch.autograd.grad(F.cross_entropy(model(x.requires_grad_()), y), x)[0]
    x = x.detach()
    want = expected(model, (x + plain.sign(), y), scale=2.0)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        attacked = x.clone().requires_grad_()
        with vc.paused():
            (g,) = torch.autograd.grad(vc.watch(F.cross_entropy(model(attacked), y)), attacked)
        torch.testing.assert_close(g, plain)
        (2 * vc.watch(F.cross_entropy(model(x + g.sign()), y))).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_forward_in_another_thread_leaves_a_running_backward_alone():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=8.0)

    def elsewhere(grad):
        def look():
            with torch.no_grad():
                model(x)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        out.register_hook(elsewhere)
        (vc.watch(F.cross_entropy(out, y)) * 8).backward()
    assert distance(gradients(model), want) < EXACT


def test_reentrant_checkpointing_with_two_losses_in_one_pass_is_refused():
    model = network(checkpointing="reentrant")
    (x1, y1), (x2, y2) = model.batch(seed=1), model.batch(seed=2)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        a = vc.watch(F.cross_entropy(model(x1), y1))
        b = vc.watch(F.cross_entropy(model(x2), y2))
        with pytest.raises(AttachError):
            (a + 0.25 * b).backward()


def test_forwards_that_are_thrown_away_do_not_count():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        model(x + 1)
        vc.watch(F.cross_entropy(model(x + 2), y))
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_graph_may_be_walked_twice():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y), scale=3.0)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = vc.watch(F.cross_entropy(model(x), y))
        loss.backward(retain_graph=True)
        (2 * loss).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_gradient_penalty_is_that_of_the_explicit_loss():
    """Differentiating the gradient (create_graph=True) sees the regularizer's part too."""
    model = network()
    x, y = model.batch()
    x.requires_grad_()

    def step(total):
        (g,) = torch.autograd.grad(total, x, create_graph=True)
        (total + g.square().sum()).backward()
        return gradients(model).clone()

    with explicit_penalty(sites_of(model), STRONG) as terms:
        loss = F.cross_entropy(model(x), y)
        want = step(loss + sum(terms))
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        assert distance(step(vc.watch(F.cross_entropy(model(x), y))), want) < 1e-10


def test_a_scale_does_not_survive_into_an_unwatched_step():
    model = network()
    x, y = model.batch()
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        (vc.watch(F.cross_entropy(model(x), y)) * 8).backward()
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert distance(gradients(model), want) < EXACT


def test_a_scale_does_not_survive_into_a_second_unwatched_walk_of_its_graph():
    model = network()
    x, y = model.batch()
    F.cross_entropy(model(x), y).backward()
    plain = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = F.cross_entropy(model(x), y)
        (vc.watch(loss * 1.0) * 8).backward(retain_graph=True)
        model.zero_grad()
        loss.backward()
        assert distance(gradients(model), plain) < EXACT


def test_an_interrupted_backward_leaves_nothing_behind():
    model = network(checkpointing="reentrant")
    x, y = model.batch()
    plain = network()
    want = expected(plain, plain.batch())

    def fail(grad):
        raise KeyboardInterrupt

    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        out.register_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            (vc.watch(F.cross_entropy(out, y)) * 8).backward()
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert distance(gradients(model), want) < EXACT


def test_an_interrupted_backward_leaves_nothing_for_a_second_walk_of_its_graph():
    model = network()
    x, y = model.batch()
    F.cross_entropy(model(x), y).backward()
    plain = gradients(model).clone()
    model.zero_grad()

    def fail(grad):
        raise KeyboardInterrupt

    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        handle = out.register_hook(fail)
        loss = F.cross_entropy(out, y)
        watched = vc.watch(loss * 1.0)
        with pytest.raises(KeyboardInterrupt):
            (watched * 8).backward(retain_graph=True)
        handle.remove()
        model.zero_grad()
        loss.backward()
        assert distance(gradients(model), plain) < EXACT


def test_an_unwatched_backward_under_float16_warns():
    model = Network(Tokens)
    x, y = model.batch(dtype=torch.float32)
    with attach(model, STRONG, sites=sites_of(model)):
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        with pytest.warns(UserWarning, match=r"float16 .* not watched.* vc\.watch\(loss\)"):
            (loss * 1024).backward()


@pytest.mark.parametrize("set_to_none", [False, True])
def test_an_unwatched_backward_that_accumulates_warns_once(set_to_none):
    model = network()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):  # plain unwatched steps are right and quiet
                model.zero_grad(set_to_none=set_to_none)
                F.cross_entropy(model(x), y).backward()
        with pytest.warns(UserWarning, match=r"found gradients of an earlier one.* vc\.watch\(loss\)"):
            F.cross_entropy(model(x), y).backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            F.cross_entropy(model(x), y).backward()


def test_accumulation_shows_behind_a_normalisation_that_starts_at_zero():
    """The last weight of each block of a ResNet is 0 at first, so the layers before it get no gradient."""
    model = timm.create_model("test_resnet", num_classes=3)
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    with attach(model, STRONG):
        F.cross_entropy(model(x), y).backward()
        with pytest.warns(UserWarning, match="found gradients of an earlier one"):
            F.cross_entropy(model(x), y).backward()


def test_watching_through_a_detached_attachment_is_an_error():
    model = network()
    x, y = model.batch()
    attachment = attach(model, STRONG, sites=sites_of(model))
    attachment.detach()
    with pytest.raises(AttachError, match="was detached"):
        attachment.watch(F.cross_entropy(model(x), y))


def test_watched_accumulation_is_quiet():
    model = network()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        for _ in range(3):
            (vc.watch(F.cross_entropy(model(x), y)) / 3).backward()


def test_watching_what_has_no_gradient_is_the_identity():
    model = network()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        constant = torch.tensor(1.0)
        assert vc.watch(constant) is constant
        assert vc.watch(1.5) == 1.5
        loss = model(model.batch()[0]).sum()
        assert vc.watch(loss) is loss
        with torch.no_grad():
            assert vc.watch(loss) is loss


@pytest.mark.gpu
@pytest.mark.parametrize(("half", "tolerance"), [(None, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)])
def test_on_a_gpu_without_waiting_for_it(half, tolerance):
    cfg = VCReg(alpha=0.5, beta=0.3)
    model = Network(Map)
    x, y = model.batch(dtype=torch.float32)
    want = explicit_gradients(model, sites_of(model), (x, y), cfg=cfg).clone()
    model.zero_grad()
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    scaler = torch.amp.GradScaler("cuda", enabled=half == torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with attach(model, cfg, sites=sites_of(model)) as vc:
        for step in range(2):
            model.zero_grad()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error" if step else "default")
            with torch.autocast("cuda", half or torch.bfloat16, enabled=half is not None):
                loss = vc.watch(F.cross_entropy(model(x), y))
            scaler.scale(loss).backward()
            torch.cuda.set_sync_debug_mode("default")
            scaler.unscale_(optimizer)
            assert distance(gradients(model).cpu(), want) < tolerance
            scaler.step(optimizer)
            scaler.update()
