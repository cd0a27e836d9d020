"""The SGD probe: every head is as if trained alone, several processes as one, and validation chooses the rate."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from two_processes import free_port

from vcreg_hub.config import Data, Eval, Model, Recipe, Train
from vcreg_hub.data import load_data
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.context import Context
from vcreg_hub.evals.heads import Heads, _optimizer, train_heads
from vcreg_hub.evals.linear import Linear
from vcreg_hub.run import make_accelerator, train

DATA = Data("digits", image_size=32, workers=0, train_images=300, val_fraction=0.2, crop="none", hflip=0.0)
SHORT = Linear(rates=(0.01, 0.1), epochs=2, milestones=(1,), batch_size=64)


def context(data: Data = DATA) -> Context:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_convnext", in_chans=1, num_classes=10)
    recipe = Recipe("r", Model("test_convnext"), data, train=Train(batch_size=64))
    return Context(network, load_data(data), Eval(), make_accelerator(recipe), load=load_data)


@pytest.mark.parametrize("batchnorm", [True, False])
def test_a_head_among_others_is_the_head_alone(batchnorm):
    both, losses = train_heads(replace(SHORT, batchnorm=batchnorm), context())
    assert len(losses) == 2 and all(len(of_epoch) == 2 for of_epoch in losses)
    for i, rate in enumerate(SHORT.rates):
        alone, alone_losses = train_heads(replace(SHORT, rates=(rate,), batchnorm=batchnorm), context())
        assert torch.allclose(both.linears[i].weight, alone.linears[0].weight, atol=1e-6)
        assert [of[i] for of in losses] == pytest.approx([of[0] for of in alone_losses], rel=1e-5)


def test_it_is_the_protocol_written_down():
    """SGD with Nesterov momentum on frozen features, the rate scaled with the batch and cut at the milestone."""
    found, _ = train_heads(replace(SHORT, rates=(0.1,)), context())
    again = context()
    data, network = again.trained_on, again.network.eval()
    head = None
    batches = data.train_batches(Train(epochs=2, batch_size=64, seed=0), 0, 1)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for samples, labels in batches:
            with torch.no_grad():
                rows = network.forward_head(network.forward_features(samples), pre_logits=True)
            if head is None:
                head = Heads(1, rows.shape[1], 10, batchnorm=True, seed=0)
                norm, linear = head.norms[0], head.linears[0]
                memory = {p: torch.zeros_like(p) for p in head.parameters()}
            loss = F.cross_entropy(linear(norm(rows)), labels)
            rate = 0.1 * 64 / 256 * (0.1 if epoch >= 1 else 1)
            gradients = torch.autograd.grad(loss, list(head.parameters()))
            with torch.no_grad():
                for p, gradient in zip(head.parameters(), gradients, strict=True):
                    if p is linear.weight or p is linear.bias:
                        gradient = gradient + 5e-4 * p
                    memory[p] = 0.9 * memory[p] + gradient
                    p -= rate * (gradient + 0.9 * memory[p])
    assert torch.allclose(found.linears[0].weight, head.linears[0].weight, atol=1e-5)
    assert torch.allclose(found.norms[0].running_mean, head.norms[0].running_mean, atol=1e-5)


def test_the_normalisation_is_not_decayed_and_can_be_off():
    heads = Heads(2, 8, 3, batchnorm=True, seed=0)
    groups = _optimizer(SHORT, heads).param_groups
    assert [(group["weight_decay"], group["peak"]) for group in groups] == [
        (5e-4, 0.0025), (0.0, 0.0025), (5e-4, 0.025), (0.0, 0.025),
    ]  # fmt: skip
    plain = Heads(2, 8, 3, batchnorm=False, seed=0)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in plain.modules())
    rows = torch.randn(5, 8)
    assert torch.allclose(plain(rows)[1], rows @ plain.linears[1].weight.T)
    assert torch.equal(plain.linears[0].weight, plain.linears[1].weight)


def test_in_a_run_validation_chooses_and_the_search_is_kept(tmp_path):
    # A rate that learns nothing and one that does.
    probe = replace(SHORT, rates=(1e-7, 0.1), epochs=3)
    recipe = Recipe("r", Model("test_convnext"), DATA, train=Train(batch_size=64, max_steps=1), evals=(probe,))
    folder = train(recipe, tmp_path / "run", log=lambda text: None)
    rows = folder.results()["metrics"]
    assert [row["metric"] for row in rows] == ["linear_top1", "linear_mean_per_class"]
    assert rows[0]["rate"] == 0.1 and rows[0]["value"] > 20
    kept = json.loads((folder.path / rows[0]["details"]).read_text())
    assert kept["held_out"][1] > kept["held_out"][0] and len(kept["losses"]) == 3
    assert kept["losses"][2][1] < kept["losses"][0][1]


@pytest.mark.parametrize(
    ("probe", "data", "says"),
    [
        (SHORT, replace(DATA, val_fraction=0.0), "no validation samples: give one, such as --set evals.linear.rates"),
        (replace(SHORT, batch_size=512), DATA, "batches of 512, but digits/class has 300 training samples"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_training(tmp_path, probe, data, says):
    recipe = Recipe("r", Model("test_convnext"), data, train=Train(batch_size=64), evals=(probe,))
    with pytest.raises(ConfigError, match=says):
        train(recipe, tmp_path / "run", log=lambda text: None)
    assert not (tmp_path / "run" / "state").exists()
    with pytest.raises(ConfigError, match="rates is one number or more, got none"):
        replace(SHORT, rates=())


def test_two_processes_train_as_one(tmp_path):
    """Without normalisation, whose statistics are each process's own: the same heads up to rounding."""
    program = Path(__file__).parent / "linear_processes.py"
    port = free_port()
    started = [
        subprocess.Popen([sys.executable, program, str(rank), str(port), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()
    one, losses = train_heads(replace(SHORT, batchnorm=False), context())
    for rank in range(2):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        assert torch.allclose(torch.tensor(told["weight"]), one.linears[1].weight, atol=1e-5)
        assert told["losses"] == [pytest.approx(of, rel=1e-4) for of in losses]
        # 500 test images on two processes, each counted once.
        assert told["top1"] == pytest.approx(told["top1"] // 0.2 * 0.2, abs=1e-6) and told["scored"] == 500
