"""Classes in groups: the loss and its two penalties against slow forms, and a run that is killed and goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vcreg_hub.config import Data, Model, Optim, Recipe, Train, VCReg
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.incremental import Incremental as Accuracy
from vcreg_hub.run import train
from vcreg_hub.tasks.incremental import Incremental
from vcreg_hub.tasks.memory import Memory, fisher
from vcreg_hub.tasks.task import TaskModule

TRAIN = Train(epochs=6, class_groups=3)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)).double()


def batch_of(group: int):
    generator = torch.Generator().manual_seed(group)
    samples = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return samples, 2 * group + torch.randint(2, (8,), generator=generator)


def test_fisher_is_the_loop_over_samples_and_classes():
    network = small_network()
    samples, _ = batch_of(1)
    by_hand = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    for sample in samples:
        found = network(sample[None])[0, 2:4].float().log_softmax(0)
        for c in range(2):
            slopes = torch.autograd.grad(found[c], list(network.parameters()), retain_graph=True)
            for name, slope in zip(by_hand, slopes, strict=True):
                by_hand[name] += found[c].exp() * slope**2 / len(samples)
    for name, value in fisher(network, samples, group=1, groups=3).items():
        assert torch.allclose(value, by_hand[name].detach(), rtol=1e-5, atol=1e-9), name
        assert value.max() > 0 or name.startswith("0"), name


def test_the_loss_is_among_the_group_s_own_classes_and_each_penalty_its_formula():
    network = small_network()
    task = Incremental(ewc=3.0, lwf=0.5, temperature=2.0, fisher_images=8)
    module = TaskModule(task, network, TRAIN, torch.zeros(1, 4))
    first = batch_of(0)
    scores = network(first[0]).float()
    assert module(first)["loss"].item() == pytest.approx(F.cross_entropy(scores[:, :2], first[1]).item()), "no penalty"
    module.set_epoch(0)
    task.end_epoch(module, network, [first])
    assert not module.heads["memory"].distance(network), "the group has not ended"
    module.set_epoch(1)
    task.end_epoch(module, network, [first])
    old = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    second = batch_of(1)
    found = module(second)
    now, before = network(second[0]).float(), old(second[0]).float()
    own = F.cross_entropy(now[:, 2:4], second[1] - 2)
    moved = fisher(old, first[0], 0, 3)
    ewc = sum((moved[n] * (p - q) ** 2).sum() for (n, p), q in zip(network.named_parameters(), old.parameters(),
                                                                  strict=True))  # fmt: skip
    p, q = (before[:, :2] / 2).softmax(1), (now[:, :2] / 2).softmax(1)
    lwf = -(p * q.log()).sum(1).mean()
    assert found["kept"].item() == pytest.approx((1.5 * ewc + 0.5 * lwf).item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx((own + 1.5 * ewc + 0.5 * lwf).item(), rel=1e-5)
    state = {name for name in module.state_dict() if name.startswith("heads.memory.")}
    assert {"heads.memory.before/0/weight", "heads.memory.fisher/2/bias"} <= state
    assert not list(module.heads.parameters()), "what is kept is not trained"


def test_fisher_adds_up_over_groups_and_is_left_out_after_the_last():
    network = small_network()
    memory = Memory(network, with_fisher=True)
    for group in (0, 1):
        memory.remember(network, [batch_of(group)], group=group, groups=3, images=8)
    one, two = (fisher(network, batch_of(group)[0], group, 3) for group in (0, 1))
    assert torch.allclose(memory.get_buffer("fisher/2/weight"), one["2.weight"] + two["2.weight"])
    task = Incremental(lwf=1.0)
    module = TaskModule(task, network, TRAIN, torch.zeros(1, 4))
    with torch.no_grad():
        network[0].weight += 1
    module.set_epoch(5)
    task.end_epoch(module, network, [batch_of(2)])
    assert not torch.equal(module.heads["memory"].get_buffer("before/0/weight"), network[0].weight)


def test_what_is_kept_of_batch_normalisation_is_its_running_statistics():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    network(torch.randn(16, 4))
    memory, wanted, samples = Memory(network, with_fisher=False), copy.deepcopy(network).eval(), torch.randn(3, 4)
    network(5 + torch.randn(16, 4))
    kept = network[1].running_mean.clone()
    assert torch.allclose(memory.output(network, samples), wanted(samples))
    assert torch.equal(network[1].running_mean, kept) and network.training


@pytest.mark.parametrize("values", [{"ewc": -1.0}, {"lwf": float("inf")}, {"temperature": 0.0}, {"fisher_images": 0}])
def test_senseless_settings_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Incremental(**values)
    with pytest.raises(ConfigError, match="takes class ids"):
        TaskModule(Incremental(), small_network(), TRAIN, torch.zeros(1, 4))((batch_of(0)[0], torch.zeros(8, 6)))


RECIPE = Recipe(
    name="groups",
    model=Model("test_convnext"),
    data=Data("digits", train_images=400, image_size=32, crop="none", hflip=0.0, workers=0),
    optim=Optim(lr=2e-3, schedule_per="step"),
    train=Train(epochs=10, batch_size=32, class_groups=5),
    evals=(Accuracy(groups=5),),
    vcreg=VCReg(),
    task=Incremental(ewc=10.0, lwf=1.0, fisher_images=20),
)


class Killed(Exception):
    """Stands for the end of a process at a chosen place."""


def test_a_run_that_was_killed_after_a_group_remembers_it(tmp_path, monkeypatch):
    def quiet(_text: str) -> None:
        """The test reads files."""

    whole = train(RECIPE, tmp_path / "whole", log=quiet)
    call, seen = Incremental.loss, []

    def loss(self, module, batch, settings):
        seen.extend([1] * torch.is_grad_enabled())
        if len(seen) == 6:  # in the third epoch, of two steps each: the second group
            raise Killed
        return call(self, module, batch, settings)

    with monkeypatch.context() as patch:
        patch.setattr(Incremental, "loss", loss)
        with pytest.raises(Killed):
            train(RECIPE, tmp_path / "broken", log=quiet)
    broken = train(RECIPE, tmp_path / "broken", log=quiet)
    assert all(torch.equal(tensor, broken.tensors()[name]) for name, tensor in whole.tensors().items())
    assert {row["metric"] for row in whole.results()["metrics"]} == {"known_top1", "unknown_top1"}
    assert broken.results()["metrics"] == whole.results()["metrics"]
    rows = (whole.path / "metrics.csv").read_text().splitlines()
    rates = [line.split(",")[rows[0].split(",").index("lr")] for line in rows[1:]]
    assert rates[0] == rates[2] == rates[8] and rates[0] != rates[1], "each group has a schedule of its own"
