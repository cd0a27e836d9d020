"""What attach does to a model and what the injected gradient is, in every regime of one eager process."""

from __future__ import annotations

import copy
import io
import warnings
from collections import namedtuple

import pytest
import torch
from small_models import (
    STRONG,
    Grid,
    Map,
    Network,
    Tokens,
    distance,
    explicit_gradients,
    explicit_penalty,
    gradients,
    sites_of,
)
from torch import nn
from torch.nn import functional as F

from vcreg_hub.blocks import Site, find_blocks
from vcreg_hub.core import VCReg, rows, vcreg_loss
from vcreg_hub.errors import AttachError, BlocksNotFoundError, UsageError
from vcreg_hub.hooks import attach

EXACT = 1e-12


def network(block=Tokens, **kwargs):
    return Network(block, **kwargs).double()


def expected(model, batch, **kwargs):
    model.zero_grad()
    result = explicit_gradients(model, sites_of(model), batch, **kwargs).clone()
    model.zero_grad()
    return result


# ---- exactness ---------------------------------------------------------------------------------------------------


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


def test_two_watched_losses_of_one_forward_are_refused():
    model = network()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        a, b = vc.watch(F.cross_entropy(out, y)), vc.watch(out.square().mean())
        with pytest.raises(AttachError, match="Watch the total once"):
            (a + 0.25 * b).backward()


def test_two_watched_losses_of_one_forward_are_refused_in_two_passes_too():
    model = network()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        out = model(x)
        a, b = vc.watch(F.cross_entropy(out, y)), vc.watch(out.square().mean())
        a.backward(retain_graph=True)
        with pytest.raises(AttachError, match="belongs to another loss"):
            b.backward()


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


# ---- a scale belongs to its step ---------------------------------------------------------------------------------


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
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = F.cross_entropy(model(x), y)
        (vc.watch(loss * 1.0) * 8).backward(retain_graph=True)
        model.zero_grad()
        loss.backward()
        assert distance(gradients(model), want) < EXACT


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


# ---- invisible ---------------------------------------------------------------------------------------------------


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


# ---- where -------------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "sizes features")


class Wrapped(Tokens):
    """A block that returns its features inside of something."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x))


WRAPPERS = {
    "tuple": (lambda x: (x, None), lambda o: o[0]),
    "behind integers": (lambda x: (torch.tensor(3), x, x.detach()), lambda o: o[1]),
    "list": (lambda x: [x, 2], lambda o: o[0]),
    "namedtuple": (lambda x: Pair(torch.tensor([1]), x), lambda o: o.features),
    "dict": (lambda x: {"ids": torch.tensor(1), "x": x}, lambda o: o["x"]),
    "nested": (lambda x: ((torch.tensor(1), x), x * 2), lambda o: o[0][1]),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_first_float_tensor_of_an_output_is_regularized(kind):
    wrap, unwrap = WRAPPERS[kind]
    block = Wrapped(wrap).double()
    x = torch.randn(6, 5, 8, dtype=torch.float64)
    torch.manual_seed(0)
    unwrap(block(x)).sin().sum().backward()
    task = gradients(block).clone()
    block.zero_grad()
    vcreg_loss(rows(unwrap(block(x)), -1), STRONG).backward()
    want = task + gradients(block)
    block.zero_grad()
    with attach(block, STRONG, sites=[Site("", block, -1)]) as vc:
        out = block(x)
        assert type(out) is type(wrap(x))
        vc.watch(unwrap(out).sin().sum()).backward()
    assert distance(gradients(block), want) < EXACT


@pytest.mark.parametrize("keyword", [False, True])
def test_the_input_of_the_classifier(keyword):
    class Keyword(Network):
        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(input=x.mean(1)) if keyword else self.head(x.mean(1))

    model = Keyword().double()
    x, y = model.batch()
    sites = [Site("head", model.head, -1, "input")]
    hidden = x
    for block in model.blocks:
        hidden = block(hidden)
    hidden = hidden.mean(1)
    (F.cross_entropy(model.head(hidden), y) + vcreg_loss(hidden, STRONG)).backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=sites) as vc:
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_convnext.r160_in1k"])
@pytest.mark.parametrize("features_only", [False, True])
def test_timm_models(name, features_only):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, features_only=features_only).double().train()
    for m in model.modules():  # both passes must see the same statistics
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.0
    x = torch.randn(2, 3, 160 if "vit" in name else 64, 160 if "vit" in name else 64, dtype=torch.float64)

    def loss():
        out = model(x)
        return sum(o.square().mean() for o in out) if features_only else out.square().mean()

    sites = find_blocks(model, example_input=x)
    with explicit_penalty(sites, STRONG) as terms:
        total = loss() + sum(terms)
        total.backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, example_input=x) as vc:
        assert [s.name for s in vc.sites] == [s.name for s in sites]
        vc.watch(loss()).backward()
        assert distance(gradients(model), want) < 1e-10
        model.zero_grad()
        if not features_only:
            model.set_grad_checkpointing()
            vc.watch(loss()).backward()
            assert distance(gradients(model), want) < 1e-10
            assert {row["backwards"] for row in vc.statistics()} == {2}


def test_frozen_blocks_are_reported_and_the_rest_is_exact():
    model = network()
    x, y = model.batch()
    model.blocks[0].requires_grad_(False)
    want = expected(model, (x, y))
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = vc.watch(F.cross_entropy(model(x), y))
        with pytest.warns(UserWarning, match=r"1 of 3 sites got no gradient.*: blocks\.0\."):
            loss.backward()
        assert distance(gradients(model), want) < EXACT
        read = vc.statistics()
        assert [row["backwards"] for row in read] == [0, 1, 1]
        assert read[0]["variance_loss"] is None
        model.zero_grad()
        vc.watch(F.cross_entropy(model(x), y)).backward()  # said once


def test_a_model_in_eval_mode_is_reported():
    model = network().eval()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        loss = vc.watch(F.cross_entropy(model(x), y))
        with pytest.warns(UserWarning, match="3 of 3 sites"):
            loss.backward()


def test_features_overwritten_in_place_are_refused():
    model = network()

    class Overwrite(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    chain = nn.Sequential(model.blocks[0], Overwrite())
    x = model.batch()[0]
    # Torch itself says so, in the forward pass.
    with attach(chain, STRONG, sites=[Site("0", chain[0], -1)]), pytest.raises(RuntimeError, match="modified inplace"):
        chain(x)


def test_features_overwritten_behind_our_back_are_refused():
    class Leaky(Tokens):
        def forward(self, x):
            self.kept = super().forward(x)
            return self.kept

    block = Leaky()
    with attach(block, STRONG, sites=[Site("", block, -1)]) as vc:
        loss = vc.watch(block(torch.randn(6, 5, 8)).sum())
        block.kept.detach().mul_(2)
        with pytest.raises(AttachError, match="overwritten in place"):
            loss.backward()


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_attaching_twice_is_refused():
    model = network()
    with attach(model, STRONG, sites=sites_of(model)):
        with pytest.raises(AttachError, match=r"attached already.*vcreg\.detach"):
            attach(model, STRONG, sites=sites_of(model))
        with pytest.raises(AttachError, match="attached already"):
            attach(nn.Sequential(model), STRONG, sites=sites_of(model))
    attach(model, STRONG, sites=sites_of(model)).detach()


def test_an_attribute_of_that_name_is_not_overwritten():
    model = network()
    model.vcreg = "mine"
    with pytest.raises(AttachError, match="of its own named vcreg"):
        attach(model, STRONG, sites=sites_of(model))
    assert model.vcreg == "mine"


def test_wrong_arguments_are_named():
    model = network()
    with pytest.raises(UsageError, match=r"where is text.*got 3"):
        attach(model, STRONG, where=3)
    with pytest.raises(UsageError, match=r"takes a torch module first.*got 'resnet18'"):
        attach("resnet18", STRONG)
    with pytest.raises(UsageError, match=r"takes a VCReg, got 0\.64"):
        attach(model, 0.64)
    with pytest.raises(BlocksNotFoundError):
        attach(model, STRONG, sites=[])
    with pytest.raises(AttachError, match="not a module of this"):
        attach(model, STRONG, sites=[Site("elsewhere", nn.Linear(2, 2), -1)])
    with pytest.raises(AttachError, match="given twice"):
        attach(model, STRONG, sites=[sites_of(model)[0]] * 2)
    assert not hasattr(model, "vcreg")


# ---- loops that cannot be edited ---------------------------------------------------------------------------------


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


def transformers_vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config).double().train()


@pytest.mark.parametrize("reduction", ["mean", "sum over num_items_in_batch"])
def test_a_watched_transformers_model(reduction):
    """The two ways in which transformers' Trainer accumulates over two batches."""
    model = transformers_vit()
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
