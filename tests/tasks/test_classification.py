"""What a user may pick instead of a regularizer, each against its formula written down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from torch.nn import functional as F

from vcreg_hub.config import Data, Model, Recipe, Train, VCReg, from_json, override, to_json
from vcreg_hub.errors import ConfigError
from vcreg_hub.models.etf import _simplex_frame
from vcreg_hub.models.outputs import features
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.run import train
from vcreg_hub.tasks.classification import Classification
from vcreg_hub.tasks.task import TaskModule

RECIPE = Recipe(
    name="rival",
    model=Model("test_convnext"),
    data=Data("digits", val_fraction=0.2, train_images=96, image_size=32, crop="none", hflip=0.0, workers=0),
    train=Train(epochs=2, batch_size=32),
)
EXAMPLE = torch.zeros(1, 1, 32, 32)


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


def module_of(task, classes=4, settings=None):
    torch.manual_seed(0)
    network = timm.create_model("test_convnext", num_classes=classes, in_chans=1)
    return TaskModule(task, network, settings or Train(), EXAMPLE)


def batch(classes=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 1, 32, 32, generator=generator), torch.arange(6) % classes


def test_the_plain_loss_is_cross_entropy_and_the_module_has_no_heads():
    module, (x, y) = module_of(Classification()), batch()
    assert torch.equal(module((x, y))["loss"], F.cross_entropy(module.network(x), y))
    assert not module.heads


def test_spectral_decoupling_is_half_lambda_times_the_squared_logits():
    torch.manual_seed(0)
    samples, labels = torch.randn(7, 4), torch.randint(3, (7,))
    network = torch.nn.Linear(4, 3)
    task = Classification(spectral_decoupling=0.3)
    loss = TaskModule(task, network, Train(), samples[:1])((samples, labels))["loss"]
    by_hand = 0.0
    for sample, label in zip(samples, labels, strict=True):
        scores = network(sample)
        by_hand += (-scores.log_softmax(0)[label] + 0.15 * sum(score**2 for score in scores)) / len(samples)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    plain = TaskModule(Classification(), network, Train(), samples[:1])((samples, labels))["loss"]
    assert plain.item() < loss.item()


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_negative_or_endless_coefficient_is_refused(value):
    with pytest.raises(ConfigError, match="spectral_decoupling"):
        Classification(spectral_decoupling=value)


def test_a_projector_teaches_the_network_and_the_classifier_learns_beside_it():
    module, (x, y) = module_of(Classification(projector=(10, 7))), batch()
    layers = [(m.in_features, m.out_features) for m in module.heads.modules() if isinstance(m, torch.nn.Linear)]
    assert layers == [(64, 10), (10, 7), (7, 4)]
    loss = module((x, y))["loss"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in module.network.named_parameters()}
    projector = [p.grad.clone() for p in module.heads.parameters()]

    module.zero_grad()
    entering = []
    handle = module.network.get_classifier().register_forward_pre_hook(lambda _m, inputs: entering.append(inputs[0]))
    scores = module.network(x)
    handle.remove()
    through = F.cross_entropy(module.heads["projector"](entering[0]), y)
    own = F.cross_entropy(scores, y)
    assert float(loss.detach()) == pytest.approx(float((through + own).detach()), rel=1e-6)
    below = [(n, p) for n, p in module.network.named_parameters() if not n.startswith("head.fc")]
    expected = torch.autograd.grad(through, [p for _, p in below], retain_graph=True)
    for (name, _), gradient in zip(below, expected):
        assert torch.allclose(found[name], gradient, atol=1e-6), name
    classifier = torch.autograd.grad(own, list(module.network.get_classifier().parameters()), retain_graph=True)
    assert torch.allclose(found["head.fc.weight"], classifier[0], atol=1e-6)
    head = torch.autograd.grad(through, list(module.heads.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(projector, head))


def test_a_regularizer_of_the_final_features_acts_below_the_projector():
    """In double precision: the gradient with VCReg injected is that of the loss plus its penalty."""
    from vcreg_hub.regularizer.loss import vcreg_loss

    cfg = VCReg(alpha=5.0, beta=3.0)
    module, (x, y) = module_of(Classification(projector=(10,))).double(), batch()
    x = x.double()
    with attach(module.network, cfg, "final", example_input=EXAMPLE.double()) as attachment:
        attachment.watch(module((x, y))["loss"]).backward()
    found = {name: p.grad.clone() for name, p in module.network.named_parameters()}
    module.zero_grad()
    penalty = vcreg_loss(features(module.network, x), cfg)
    # The task's loss is taken in float32, its gradient is the wider of the two tolerances.
    (module((x, y))["loss"] + penalty).backward()
    for name, parameter in module.network.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("classes, width", [(2, 1), (4, 3), (4, 64), (10, 9)])
def test_a_simplex_frame_is_as_wide_apart_as_can_be(classes, width):
    frame = _simplex_frame(classes, width)
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(frame @ frame.T, expected, atol=1e-12)
    assert torch.allclose(frame.sum(0), torch.zeros(width, dtype=torch.float64), atol=1e-12)


def test_a_frame_needs_room():
    with pytest.raises(ConfigError, match="10 classes needs features of 9 dimensions or more, the network has 8"):
        _simplex_frame(10, 8)


def test_a_fixed_classifier_stays_and_is_the_one_that_is_saved(tmp_path):
    recipe = replace(RECIPE, task=Classification(etf_length=2.0))
    run = train(recipe, tmp_path / "run", log=quiet)
    tensors = run.tensors()
    weight = tensors["head.fc.weight"].double()
    cosines = weight @ weight.T / 4
    assert torch.allclose(cosines, torch.full((10, 10), -1 / 9).double().fill_diagonal_(1), atol=1e-5)
    assert not tensors["head.fc.bias"].any()
    stock = timm.create_model("test_convnext", num_classes=10, in_chans=1)
    stock.load_state_dict(tensors)
    assert {row["metric"] for row in run.results()["metrics"]} == {"top1", "top5", "loss"}


def test_a_run_with_a_projector_saves_the_plain_network(tmp_path):
    recipe = replace(RECIPE, task=Classification(projector=(12,)), vcreg=VCReg(), where="final")
    whole = train(recipe, tmp_path / "whole", log=quiet)
    stock = timm.create_model("test_convnext", num_classes=10, in_chans=1)
    assert whole.tensors().keys() == stock.state_dict().keys()
    start = whole.results()["metrics"]
    assert [row["metric"] for row in start] == ["top1", "top5", "loss"]
    assert whole.recipe() == recipe == from_json(to_json(recipe))


def test_they_are_set_from_the_command_line():
    chosen = override(RECIPE, ["task.projector=[256,64]", "task.spectral_decoupling=0.01"])
    assert chosen.task == Classification(projector=(256, 64), spectral_decoupling=0.01)
    assert override(RECIPE, ["task.etf_length=1"]).task == Classification(etf_length=1.0)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Classification(projector=(0,)), "projector is whole numbers, each from 1"),
        (lambda: Classification(etf_length=0.0), "above 0 and at most .* or null"),
        (lambda: Classification(projector=(8,), etf_length=1.0), "pick one"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_compiled_network_is_refused_before_the_first_step(tmp_path, fresh_compiler):
    recipe = replace(RECIPE, task=Classification(projector=(8,)), train=Train(epochs=1, batch_size=32, compile=True))
    with pytest.raises(ConfigError, match=r"train\.compile"):
        train(recipe, tmp_path / "run", log=quiet)
