"""What torch.jit, torch.export and torch.fx make of an attached model: what they make of the plain one."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from vcreg_hub.errors import AttachError
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg

PLACEMENTS = ("blocks", "final")


@pytest.fixture
def twins():
    """The same network twice: attached, and plain."""

    def build(where: str = "blocks", name: str = "test_convnext") -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        plain = timm.create_model(name, num_classes=5)
        attached = copy.deepcopy(plain)
        attach(attached, VCReg(), where)
        return attached, plain

    return build


X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
scripting = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")


@scripting
@pytest.mark.parametrize("where", PLACEMENTS)
def test_scripts_as_the_plain_network_does_and_stays_attached(twins, where):
    attached, plain = twins(where)
    scripted = torch.jit.script(attached.eval())
    assert torch.equal(scripted(X), plain.eval()(X))
    assert str(scripted.graph) == str(torch.jit.script(plain).graph)
    assert next(scripted.parameters()) is next(attached.parameters())  # as torch.jit.script does: one set of weights
    added = gradients(attached, attached.vcreg.watch)
    assert not torch.equal(added, gradients(plain, lambda loss: loss))
    attached.vcreg.detach()
    assert torch.equal(gradients(attached, lambda loss: loss), gradients(plain, lambda loss: loss))
    assert attached.__dict__.keys() == plain.__dict__.keys() - {"__overloads__"}  # torch.jit.script's own mark


def gradients(model: nn.Module, watch) -> torch.Tensor:
    model.train().zero_grad()
    watch(model(X).square().mean()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@scripting
def test_scripting_for_training_says_that_the_regularizer_is_left_out(twins):
    attached, _ = twins()
    with pytest.warns(UserWarning, match=r"scripted ConvNeXt is the plain network: .*torch.compile keeps it"):
        torch.jit.script(attached.train())


@scripting
def test_copies_script_too(twins):
    attached, plain = twins()
    for copied in (copy.deepcopy(attached), pickle.loads(pickle.dumps(attached))):
        scripted = torch.jit.script(copied.eval())
        assert next(scripted.parameters()) is next(copied.parameters())
        assert torch.equal(scripted(X), plain.eval()(X))


@scripting
def test_a_part_with_hooks_is_refused_by_name(twins):
    attached, _ = twins()
    with pytest.raises(AttachError, match=r"hook at 'stages.0.blocks.0': script the whole ConvNeXt.*or detach"):
        torch.jit.script(attached.eval().stages[0])
    assert len(attached.vcreg.sites) == 9 and attached.stages[0].blocks[0]._forward_hooks


@pytest.mark.parametrize(
    ("where", "strict", "training"), [("blocks", True, True), ("blocks", False, False), ("final", False, True)]
)
@pytest.mark.usefixtures("fresh_compiler")
def test_exports_as_the_plain_network_does(twins, where, strict, training):
    attached, plain = (model.train(training) for model in twins(where))
    ours, stock = (torch.export.export(model, (X,), strict=strict) for model in (attached, plain))
    assert [node.target for node in ours.graph.nodes] == [node.target for node in stock.graph.nodes]
    assert torch.equal(ours.module()(X), stock.module()(X))
    assert not attached.vcreg._injection.called  # as far as training goes, nothing has happened


@scripting
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", PLACEMENTS)
def test_traces_as_the_plain_network_does(twins, where, training):
    attached, plain = (model.train(training) for model in twins(where))
    ours, stock = (torch.jit.trace(model, X, check_trace=False) for model in (attached, plain))
    kinds = [[node.kind() for node in traced.inlined_graph.nodes()] for traced in (ours, stock)]
    assert kinds[0] == kinds[1]
    ours, stock = (torch.fx.symbolic_trace(model) for model in (attached, plain))
    assert ours.code == stock.code
    assert torch.equal(ours(X), stock(X))
