"""timm's training tasks, watched by an import: the calls that timm's train.py makes, against the explicit loss."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from small_models import EXACT, STRONG, distance, explicit_gradients, explicit_penalty, gradients
from timm.task import ClassificationTask, LogitDistillationTask
from torch import nn

import vcreg_hub
from vcreg_hub.loops import timm_train  # watches from here on, as with --device-modules
from vcreg_hub.placement.sites import find_blocks

CLASSES = 5


def network(name="test_resnet", cfg=STRONG, **kwargs):
    torch.manual_seed(0)
    vcreg_hub.register_model(name)
    return timm.create_model(f"{name}_vcreg", num_classes=CLASSES, vcreg=cfg, **kwargs).double().train()


def batches(count):
    g = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 32, 32, generator=g, dtype=torch.float64), torch.randint(CLASSES, (4,), generator=g))
        for _ in range(count)
    ]


def task_of(model, **kwargs):
    return ClassificationTask(model, nn.CrossEntropyLoss(), device=torch.device("cpu"), verbose=False, **kwargs)


def epoch(task, data, accum_steps=1, loss_scale=None):
    """One epoch of train.py's `train_one_epoch` without the optimizer's step; the gradients of each update."""
    trainable, updates = task.get_trainable_module(), []
    trainable.train()
    scaler = None if loss_scale is None else torch.amp.GradScaler("cpu", init_scale=loss_scale)
    last_accum_steps = len(data) % accum_steps
    trainable.zero_grad()
    for i, (x, y) in enumerate(data):
        need_update = i == len(data) - 1 or (i + 1) % accum_steps == 0
        if i >= len(data) - last_accum_steps:
            accum_steps = last_accum_steps
        result = task(x, y)
        loss = result["loss"]
        if accum_steps > 1:
            loss /= accum_steps  # in place, as there
        (loss if scaler is None else scaler.scale(loss)).backward(create_graph=False)
        if need_update:
            updates.append(gradients(trainable).clone() / (loss_scale or 1.0))
            trainable.zero_grad()
            task.update_ema(step=len(updates))
    return updates


def explicit(data, accum_steps=1, name="test_resnet", **kwargs):
    """The same of the explicit loss, on a plain twin."""
    twin, updates = network(name, cfg=False, **kwargs), []
    for start in range(0, len(data), accum_steps):
        group = data[start : start + accum_steps]
        twin.zero_grad()
        for batch in group:
            explicit_gradients(twin, find_blocks(twin), batch, scale=1 / len(group))
        updates.append(gradients(twin).clone())
    return updates


def compare(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert distance(one, other) < EXACT * 100


@pytest.mark.parametrize("accum_steps", [1, 2, 4])
@pytest.mark.parametrize("loss_scale", [None, 65536.0])
def test_accumulation_and_a_grad_scaler(accum_steps, loss_scale):
    data = batches(5)  # the last group is shorter
    compare(epoch(task_of(network()), data, accum_steps, loss_scale), explicit(data, accum_steps))


def test_float16_under_autocast():
    cfg = vcreg_hub.VCReg(alpha=0.5, beta=0.3)
    model, twin = network(cfg=cfg).float(), network(cfg=False).float()
    ((x, y),) = batches(1)
    x = x.float()
    with torch.autocast("cpu", torch.float16):
        want = explicit_gradients(twin, find_blocks(twin), (x, y), cfg=cfg, scale=1024.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        loss = task_of(model)(x, y)["loss"]
    scaler.scale(loss).backward()
    # Of half precision; unwatched, the regularizer would be 1/1024 of what it is.
    assert distance(gradients(model), want) < 1e-2


def test_checkpointing_and_averaged_weights():
    model = network()
    model.set_grad_checkpointing(True)
    task = task_of(model)
    task.setup_ema(decay=0.5)
    data = batches(3)
    compare(epoch(task, data, 2), explicit(data, 2))
    averaged = task.get_trainable_module(ema=True).module
    with torch.no_grad():
        averaged(data[0][0])
    assert averaged.vcreg is not model.vcreg and not averaged.training


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_compiled(compiler):
    task = task_of(network())
    task.compile(backend="aot_eager")
    data = batches(3)
    compare(epoch(task, data, 2), explicit(data, 2))


def test_a_resumed_training_goes_on_exactly():
    task, data = task_of(network()), batches(2)
    epoch(task, data, 2)
    saved = task.get_checkpoint_state()
    assert saved["state_dict"].keys() == network(cfg=False).state_dict().keys()
    again = task_of(network())
    again.load_checkpoint_state(saved["state_dict"])
    twin = network(cfg=False)
    twin.load_state_dict(saved["state_dict"])
    want = explicit_gradients(twin, find_blocks(twin), data[0])
    compare(epoch(again, data[:1]), [want])


def test_a_distilled_student_and_not_its_teacher():
    student, teacher = network(), network()
    plain, plain_teacher = network(cfg=False), network(cfg=False)
    x, y = batches(1)[0]
    make = {"criterion": nn.CrossEntropyLoss(), "distill_loss_weight": 0.5, "task_loss_weight": 2.0, "verbose": False}
    got = epoch(LogitDistillationTask(student, teacher, **make), [(x, y)], loss_scale=1024.0)
    reference = LogitDistillationTask(plain, plain_teacher, **make)
    plain.train()
    with explicit_penalty(find_blocks(plain), STRONG) as terms, pytest.warns(UserWarning, match="no network"):
        (reference(x, y)["loss"] + sum(terms)).backward()
    compare(got, [gradients(plain)])


def test_a_task_without_vcreg_says_so_once():
    task, data = task_of(network(cfg=False)), batches(2)
    with pytest.warns(UserWarning, match=r"ClassificationTask trains has VCReg.*\*_vcreg name") as told:
        epoch(task, data)
    assert len(told) == 1


def test_any_architecture_that_the_command_line_names_is_registered():
    line = "train.py --model test_nfnet_vcreg --kd-model-name=test_byobnet_vcreg nosuch_vcreg"
    timm_train._register_named(line.split())
    assert timm.is_model("test_nfnet_vcreg") and timm.is_model("test_byobnet_vcreg")
    assert not timm.is_model("nosuch_vcreg")


def test_evaluation_is_not_watched():
    task, data = task_of(network()), batches(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        task(*data[0])
    compare(epoch(task, data), explicit(data))
