"""LDAM-DRW against its formula written down, sample by sample."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import timm
import torch

from vcreg_hub.config import Data, Model, Recipe, Train, override
from vcreg_hub.errors import ConfigError
from vcreg_hub.run import evaluate_run, train
from vcreg_hub.tasks.ldam import LDAM
from vcreg_hub.tasks.task import TaskModule

EXAMPLE = torch.zeros(1, 1, 32, 32)
COUNTS = (160, 40, 5)
RECIPE = Recipe(
    name="ldam",
    model=Model("test_convnext"),
    data=Data("digits", imbalance=20, train_images=200, image_size=32, crop="none", hflip=0.0, workers=0),
    train=Train(epochs=2, batch_size=32),
    task=LDAM(),
)


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


def module_of(task=None, counts=COUNTS, settings=None):
    torch.manual_seed(0)
    network = timm.create_model("test_convnext", num_classes=3, in_chans=1)
    return TaskModule(task or LDAM(), network, settings or Train(epochs=10), EXAMPLE, counts)


def batch():
    return torch.randn(7, 1, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 1, 2, 1, 0, 2])


def by_hand(module, weights):
    x, y = batch()
    seen = []
    handle = module.network.get_classifier().register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    module.network(x)
    handle.remove()
    vectors = module.network.get_classifier().weight.detach()
    total = mass = 0.0
    for f, label in zip(seen[0].detach(), y.tolist()):
        scores = [30 * float(f @ w) / float(f.norm() * w.norm()) for w in vectors]
        scores[label] -= 30 * 0.5 * (min(COUNTS) / COUNTS[label]) ** 0.25
        total += weights[label] * (math.log(sum(math.exp(s) for s in scores)) - scores[label])
        mass += weights[label]
    return total / mass


def test_margins_are_those_of_the_paper():
    module = module_of()
    assert float(module(batch())["loss"].detach()) == pytest.approx(by_hand(module, (1, 1, 1)), rel=1e-4)


def test_classes_are_weighted_from_the_deferred_epoch_on():
    module = module_of()
    weights = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS]
    plain, weighted = by_hand(module, (1, 1, 1)), by_hand(module, weights)
    assert abs(plain - weighted) > 0.01
    for epoch, expected in ((7, plain), (8, weighted)):
        module.set_epoch(epoch)
        assert float(module(batch())["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_classifier_has_no_bias_and_rows_of_unit_length_in_the_end(tmp_path):
    run = train(RECIPE, tmp_path / "run", log=quiet)
    tensors = run.tensors()
    assert torch.allclose(tensors["head.fc.weight"].norm(dim=1), torch.ones(10), atol=1e-6)
    assert not tensors["head.fc.bias"].any()
    timm.create_model("test_convnext", num_classes=10, in_chans=1).load_state_dict(tensors)
    again = {row.metric: row.value for row in evaluate_run(run.path)}
    assert again == {row["metric"]: row["value"] for row in run.results()["metrics"]}
    assert {"top1", "top1_few", "top1_medium"} <= again.keys()


def test_it_is_picked_from_the_command_line():
    plain = replace(RECIPE, task=override(RECIPE, ["task=classification"]).task)
    assert override(plain, ["task=ldam", "task.deferral=1"]).task == LDAM(deferral=1.0)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: LDAM(max_margin=-1.0), "max_margin"),
        (lambda: LDAM(deferral=1.5), "deferral"),
        (lambda: LDAM(effective=1.0), "effective"),
        (lambda: module_of(counts=None)(batch()), "no stream or empty class"),
        (lambda: module_of(counts=(3, 2, 0))(batch()), "no stream or empty class"),
        (lambda: module_of(settings=Train(label_smoothing=0.1))(batch()), "one class a sample"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_classifier_that_is_not_one_linear_layer_is_refused():
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, patch_size=16)
    with pytest.raises(ConfigError, match="one linear layer"):
        TaskModule(LDAM(), network, Train(), torch.zeros(1, 3, 32, 32), COUNTS)
