"""SimCLR and VICReg against loops over pairs in float64, on one process and on two; and a whole run of each."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from tasks import joint_embedding_processes as processes

from vcreg_hub.config import Data, Model, Optim, Recipe, Train, VCReg, from_json, override, to_json
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.models.outputs import features, features_and_logits, logits
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import train
from vcreg_hub.tasks.simclr import SimCLR
from vcreg_hub.tasks.task import TaskModule
from vcreg_hub.tasks.vicreg import VICReg
from vcreg_hub.training.optim import build_optimizer

HERE = Path(__file__).parents[1]
TASKS = [SimCLR(projector=(16, 8)), VICReg(projector=(16, 8))]
RECIPE = Recipe(
    name="two_views",
    model=Model("test_resnet"),
    data=Data("digits", val_fraction=0.2, train_images=96, image_size=32, hflip=0.0, augment="simclr-0.5", workers=0),
    optim=Optim("lars", lr=0.3, lr_base_batch=256, weight_decay=1e-6, norm_weight_decay=0.0, bias_weight_decay=0.0),
    train=Train(epochs=1, batch_size=32),
    evals=(LinearProbe(),),
)  # fmt: skip


def embeddings(n: int = 6, e: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    one = torch.randn(n, e, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return one, one + 0.3 * torch.randn(n, e, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def nt_xent_of_pairs(one: torch.Tensor, two: torch.Tensor, temperature: float) -> float:
    """One sum over the anchors of both views and their candidates at a time."""
    total = 0.0
    vectors = [[v / v.norm() for v in view] for view in (one, two)]
    for a, b in (vectors, vectors[::-1]):
        for i, anchor in enumerate(a):
            positive = math.exp(float(anchor @ b[i]) / temperature)
            below = sum(math.exp(float(anchor @ other) / temperature) for other in b)
            below += sum(math.exp(float(anchor @ other) / temperature) for j, other in enumerate(a) if j != i)
            total -= math.log(positive / below) / len(a)
    return total


def vicreg_of_dimensions(one: torch.Tensor, two: torch.Tensor, task: VICReg) -> float:
    n, e = one.shape
    total = (
        task.invariance * sum(float((a - b) ** 2) for a, b in zip(one.flatten(), two.flatten(), strict=True)) / n / e
    )
    for view in (one, two):
        columns = [[float(x) for x in column] for column in view.T]
        centred = [[x - sum(column) / n for x in column] for column in columns]
        cov = [[sum(x * y for x, y in zip(p, q, strict=True)) / (n - 1) for q in centred] for p in centred]
        total += task.variance / 2 * sum(max(0.0, 1 - math.sqrt(cov[i][i] + task.eps)) for i in range(e)) / e
        total += task.covariance * sum(cov[i][j] ** 2 for i in range(e) for j in range(e) if i != j) / e
    return total


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_a_sum_over_pairs(temperature: float) -> None:
    one, two = embeddings()
    found = SimCLR(temperature=temperature).compare(one, two)
    assert float(found["loss"]) == pytest.approx(nt_xent_of_pairs(one, two, temperature), rel=1e-12)
    # Two views that are the same find one another; a far one does not.
    assert float(SimCLR().compare(one, one)["paired"]) == 100.0
    assert float(SimCLR().compare(one, one.roll(1, 0))["paired"]) == 0.0


def test_vicreg_is_a_sum_over_dimensions() -> None:
    one, two = (0.4 * z for z in embeddings())  # below variance 1, where the hinge is on
    for task in (VICReg(), VICReg(invariance=2.0, variance=0.0, covariance=3.0), VICReg(variance=7.0, covariance=0.0)):
        assert float(task.compare(one, two)["loss"]) == pytest.approx(vicreg_of_dimensions(one, two, task), rel=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=["simclr", "vicreg"])
def test_the_gradient_is_that_of_the_loss(task) -> None:
    one, two = (z.requires_grad_() for z in embeddings())
    assert torch.autograd.gradcheck(lambda a, b: task.compare(a, b)["loss"], (one, two))


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    """{case: how far two processes are from one with the doubled batch, on each}."""
    out = tmp_path_factory.mktemp("joint_embedding")
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    port = str(processes.free_port())
    script = str(HERE / "tasks" / "joint_embedding_processes.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), port, str(out)], env={**os.environ, "PYTHONPATH": path},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(processes.WORLD)
    ]  # fmt: skip
    try:
        texts = [process.communicate(timeout=240)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0] * processes.WORLD, "\n".join(texts)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes.WORLD)]


@pytest.mark.parametrize("case", processes.CASES)
def test_two_processes_are_one_with_the_doubled_batch(distances, case: str) -> None:
    for rank in distances:
        assert rank[case]["gradients"] < 1e-10 and rank[case]["loss"] < 1e-10
        assert rank[case]["apart"] > 1e-3, "processes that gather nothing learn something else"


def test_the_online_probe_learns_from_the_features_and_teaches_them_nothing() -> None:
    network = timm.create_model("test_convnext", num_classes=3, in_chans=1)
    x = torch.randn(4, 1, 32, 32)
    found, scores = features_and_logits(network, x)
    assert torch.equal(found, features(network, x)) and torch.equal(scores, logits(network(x)))
    scores.sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {"head.fc.weight", "head.fc.bias"}
    # The features still reach everything below.
    found.sum().backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if not name.startswith("head.fc"))


@pytest.mark.parametrize("task", TASKS, ids=["simclr", "vicreg"])
@pytest.mark.parametrize("vcreg", [None, VCReg()], ids=["plain", "vcreg"])
def test_a_run_exports_the_backbone_alone(tmp_path, task, vcreg) -> None:
    from vcreg_hub.hub.export import write_export

    said: list[str] = []
    run = train(replace(RECIPE, task=task, vcreg=vcreg), tmp_path / "run", log=said.append)
    stock = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    assert run.tensors().keys() == stock.state_dict().keys(), "no projector, no regularizer"
    header = (run.path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_embedding_loss", "train_top1", "val_top1"} <= set(header)
    if vcreg is not None:
        assert {"vcreg_variance_loss", "vcreg_effective_rank"} <= set(header)
        assert any("at 4 sites (blocks)" in line for line in said), "intermediate blocks, not the projector"
    assert from_json(to_json(run.recipe())).task == task
    folder = write_export(run.path, tmp_path / "export", licence="apache-2.0")
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict().keys() == stock.state_dict().keys()


def test_lars_adapts_weights_alone() -> None:
    network = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    module = TaskModule(TASKS[0], network, RECIPE.train, torch.zeros(1, 1, 32, 32))
    optimizer = build_optimizer(module, RECIPE.optim, lr=1.0)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    gradient = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    for name, p in module.named_parameters():
        p.grad = gradient[name].clone()
    optimizer.step()
    for name, p in module.named_parameters():
        decayed = gradient[name] + (1e-6 * before[name] if p.ndim > 1 else 0)
        trust = (
            0.001 * before[name].norm() / (gradient[name].norm() + 1e-6 * before[name].norm()) if p.ndim > 1 else 1.0
        )
        torch.testing.assert_close(p.detach(), before[name] - trust * decayed, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_the_recipes_are_those_of_appendix_c5(method: str) -> None:
    plain, regularized = (load_recipe(f"imagenet:resnet50_{method}{end}") for end in ("", "_vcreg"))
    assert (plain.train.epochs, plain.train.batch_size, plain.optim.warmup_epochs) == (100, 4096, 5)
    rate = {"simclr": 0.3, "vicreg": 0.2}[method]
    assert (plain.optim.name, plain.optim.lr, plain.optim.lr_base_batch) == ("lars", rate, 256)
    assert plain.task.projector == {"simclr": (2048, 256), "vicreg": (8192, 8192)}[method]
    assert plain.task.projector_norm == "all" and "data.augment" in plain.assumed
    assert regularized.vcreg is not None and regularized.where == "blocks"
    assert {"task.views", "vcreg.alpha", "vcreg.delta"} <= set(regularized.assumed), (
        "no source says how VCReg sees them"
    )


def test_settings_that_do_not_fit_are_refused(tmp_path) -> None:
    for setting in ("task.temperature=0", "task.projector=[]", "task.projector=[0]"):
        with pytest.raises(ConfigError, match="task"):
            override(load_recipe("fashion_mnist:simclr"), [setting])
    for setting in ("task.covariance=-1", "task.eps=0"):
        with pytest.raises(ConfigError, match="task"):
            override(load_recipe("fashion_mnist:vicreg"), [setting])
    with pytest.raises(ConfigError, match=r"train\.compile"):
        train(override(replace(RECIPE, task=TASKS[0]), ["train.compile=true"]), tmp_path / "run", log=lambda text: None)
