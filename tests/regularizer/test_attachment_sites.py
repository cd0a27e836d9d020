"""Where a regularizer sits, and what cannot hold one."""

from __future__ import annotations

import copy
import warnings
from collections import namedtuple

import pytest
import timm
import torch
from small_models import (
    EXACT,
    STRONG,
    Network,
    Tokens,
    distance,
    expected,
    explicit_penalty,
    gradients,
    network,
    sites_of,
)
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from vcreg_hub.errors import AttachError, BlocksNotFoundError, UsageError
from vcreg_hub.placement.sites import Site, find_blocks
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.loss import rows, vcreg_loss

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
        vc.watch(F.cross_entropy(model(x), y)).backward()
        assert distance(gradients(model), want) < EXACT
        read = vc.statistics()
        assert [row["backwards"] for row in read] == [0, 1, 1]
        assert read[0]["variance_loss"] is None
        model.zero_grad()
        out = model(x)
        with pytest.warns(UserWarning, match=r"1 of 3 sites got no gradient.*: blocks\.0\."):
            vc.watch(F.cross_entropy(out, y)).backward()
        vc.watch(F.cross_entropy(model(x), y)).backward()  # said once


NOTHING_TO_DO = {
    "blocks in eval": lambda model: model.blocks.eval(),
    "frozen backbone": lambda model: model.blocks.requires_grad_(False),
    "the whole model in eval": lambda model: model.eval(),
}


@pytest.mark.parametrize("how", NOTHING_TO_DO)
def test_a_step_whose_sites_have_nothing_to_do_trains_on(how):
    model = network()
    x, y = model.batch()
    NOTHING_TO_DO[how](model)
    F.cross_entropy(model(x), y).backward()
    plain = gradients(model).clone()
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        with pytest.warns(UserWarning, match=r"3 of 3 sites got no gradient.*: blocks\.0, ") as said:
            for _ in range(3):
                model.zero_grad()
                vc.watch(F.cross_entropy(model(x), y)).backward()
        assert len(said) == 1
        torch.testing.assert_close(gradients(model), plain)


@pytest.mark.parametrize("features", ["made under no_grad", "kept from before"])
def test_a_probe_on_features_trains_on(features):
    model = network()
    x, y = model.batch()
    made = torch.randn(6, 5, 8, dtype=x.dtype)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        with pytest.warns(UserWarning, match="3 of 3 sites got no gradient") as said:
            for _ in range(3):
                if features == "made under no_grad":
                    with torch.no_grad():
                        made = model.blocks[0](x)
                vc.watch(F.cross_entropy(model.head(made).mean(1), y)).backward()
        assert len(said) == 1


def test_gradual_unfreezing_reports_once_and_regularizes_what_was_thawed():
    model = network()
    x, y = model.batch()
    model.blocks.requires_grad_(False)
    model.blocks[1].requires_grad_(True)
    want = expected(model, (x, y))
    model.blocks.requires_grad_(False)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        with pytest.warns(UserWarning, match="3 of 3 sites got no gradient") as said:
            for _ in range(2):
                vc.watch(F.cross_entropy(model(x), y)).backward()
            model.blocks[1].requires_grad_(True)
            model.zero_grad()
            vc.watch(F.cross_entropy(model(x), y)).backward()
        assert len(said) == 1
        assert distance(gradients(model), want) < EXACT


def test_a_classifier_that_was_replaced_after_attach_is_an_error():
    model = timm.create_model("test_resnet", num_classes=3)
    x = torch.randn(2, 3, 32, 32)
    with attach(model, STRONG, where="final"):
        model.reset_classifier(5)
        model.eval()(x)
        with torch.no_grad():
            model.train()(x)
        with pytest.raises(AttachError, match=r"the classifier 'fc' was replaced after attach.*attach again"):
            model(x)
    with attach(model, STRONG, where="final") as vc:
        vc.watch(F.cross_entropy(copy.deepcopy(model).train()(x), torch.tensor([0, 4])))
    assert not model._forward_pre_hooks


def test_a_classifier_within_a_wrapper_is_still_the_site():
    """Sharding and activation checkpointing put wrappers in the place of modules."""
    model = network()
    x, y = model.batch()
    site = Site("head", model.head, -1, "input")
    with explicit_penalty([site], STRONG) as terms:
        (F.cross_entropy(model(x), y) + sum(terms)).backward()
    want = gradients(model).clone()
    model.zero_grad()
    with attach(model, STRONG, sites=[site]) as vc:
        model.head = nn.Sequential(model.head)
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


def test_a_head_that_is_defined_first_does_not_look_like_accumulation():
    """Its gradient is there before those of the blocks are, in the very first pass."""

    class HeadFirst(Network):
        def __init__(self):
            super().__init__()
            head, blocks = self._modules.pop("head"), self._modules.pop("blocks")
            self.head, self.blocks = head, blocks

    model = HeadFirst().double()
    x, y = model.batch()
    with attach(model, STRONG, sites=sites_of(model)), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize("make", [lambda: torch.device("meta"), FakeTensorMode], ids=["meta", "fake"])
@pytest.mark.parametrize("n", [6, 1], ids=["many rows", "fewer rows than channels"])
def test_meta_and_fake_tensors_walk_through(make, n):
    with make():
        model = Network()
        with attach(model, STRONG, sites=sites_of(model)) as vc:
            for _ in range(2):
                vc.watch(model(torch.empty(n, 5, 8)).sum()).backward()
            model(torch.empty(n, 5, 8)).sum().backward()
        assert all(p.grad is not None for p in model.blocks.parameters())


def test_features_overwritten_in_place_are_refused():
    model = network()

    class Overwrite(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    chain = nn.Sequential(model.blocks[0], Overwrite())
    x = model.batch()[0]
    # Torch itself says so, in the forward pass.
    sites = [Site("0", chain[0], -1)]
    with attach(chain, STRONG, sites=sites), pytest.raises(RuntimeError, match=r"VCReg at 0.* being modified inplace"):
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
    with pytest.raises(UsageError, match=r"takes a regularizer such as VCReg, got 0\.64"):
        attach(model, 0.64)
    with pytest.raises(BlocksNotFoundError):
        attach(model, STRONG, sites=[])
    with pytest.raises(AttachError, match="not a module of this"):
        attach(model, STRONG, sites=[Site("elsewhere", nn.Linear(2, 2), -1)])
    with pytest.raises(AttachError, match="given twice"):
        attach(model, STRONG, sites=[sites_of(model)[0]] * 2)
    assert not hasattr(model, "vcreg")


def test_blocks_that_accelerate_dispatches():
    """A device_map wraps each module's forward and moves what goes in and out; here all devices are the CPU."""
    from accelerate import dispatch_model

    model = network()
    x, y = model.batch()
    want = expected(network(), (x, y))
    names = ["blocks.0", "blocks.1", "blocks.2", "head"]
    model = dispatch_model(model, dict.fromkeys(names, "cpu"), main_device="cpu", force_hooks=True)
    assert all(hasattr(block, "_hf_hook") for block in model.blocks)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        vc.watch(F.cross_entropy(model(x), y)).backward()
    assert distance(gradients(model), want) < EXACT


def test_replicas_of_data_parallel_are_refused():
    model = network()
    x, _ = model.batch()
    with attach(model, STRONG, sites=sites_of(model)):
        replica = model.blocks[0]._replicate_for_data_parallel()  # without the copied parameters that GPUs would hold
        for name, module in model.blocks[0].named_children():
            setattr(replica, name, module)
        with pytest.raises(AttachError, match=r"DataParallel.*torchrun"):
            replica(x)
