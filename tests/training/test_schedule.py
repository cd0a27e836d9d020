"""The learning rate in closed form against torch's own schedulers and torchvision's recipes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR

from vcreg_hub.config import Optim
from vcreg_hub.errors import ConfigError
from vcreg_hub.training.schedule import lr_at, peak_lr, warmup_of


def torchs(optim: Optim, lr: float, length: int, warmup: int, every: int) -> list[float]:
    """`length` values of torch's schedulers, chained as torchvision's reference training does."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    if optim.schedule == "cosine":
        scheduler = CosineAnnealingLR(optimizer, T_max=length - warmup, eta_min=optim.min_lr)
    else:
        scheduler = StepLR(optimizer, every, optim.step_gamma)
    if warmup:
        rising = LinearLR(optimizer, start_factor=optim.warmup_start, total_iters=warmup)
        scheduler = SequentialLR(optimizer, [rising, scheduler], milestones=[warmup])
    values = []
    for _ in range(length):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


RECIPES = {
    "ResNet-50 v1": (Optim(lr=0.1, schedule="step", step_epochs=30, step_gamma=0.1), 90),
    "ResNet-50 v2": (Optim(lr=0.5, warmup_epochs=5, warmup_start=0.01), 600),
    "ConvNeXt-T": (Optim(lr=1e-3, warmup_epochs=5, warmup_start=0.01), 600),
    "ViT-B/32": (Optim(lr=3e-3, warmup_epochs=30, warmup_start=0.033), 300),
    "with a floor": (Optim(lr=1e-3, warmup_epochs=2, min_lr=1e-5), 20),
    "steps after warmup": (Optim(lr=0.1, schedule="step", step_epochs=4, warmup_epochs=3), 20),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's own SequentialLR uses it
@pytest.mark.parametrize(("optim", "epochs"), RECIPES.values(), ids=RECIPES)
def test_epochs_follow_torch(optim: Optim, epochs: int) -> None:
    expected = torchs(optim, optim.lr, epochs, optim.warmup_epochs, optim.step_epochs)
    for steps in (1, 7):
        ours = [
            lr_at(optim, epoch * steps + step, steps, epochs, optim.lr)
            for epoch in range(epochs)
            for step in range(steps)
        ]
        assert ours == pytest.approx([value for value in expected for _ in range(steps)], rel=1e-9, abs=1e-15)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("optim", "epochs"), RECIPES.values(), ids=RECIPES)
def test_steps_follow_torch_stepped_each_step(optim: Optim, epochs: int) -> None:
    from dataclasses import replace

    steps, epochs = 3, min(epochs, 60)
    optim = replace(optim, schedule_per="step")
    expected = torchs(optim, optim.lr, epochs * steps, optim.warmup_epochs * steps, optim.step_epochs * steps)
    ours = [lr_at(optim, step, steps, epochs, optim.lr) for step in range(epochs * steps)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_known_values_of_the_convnext_recipe() -> None:
    optim = Optim(lr=1e-3, warmup_epochs=5, warmup_start=0.01)

    def at(epoch: int) -> float:
        return lr_at(optim, epoch * 10, 10, 600, 1e-3)

    assert at(0) == pytest.approx(1e-5) and at(1) == pytest.approx(2.08e-4) and at(5) == pytest.approx(1e-3)
    assert at(599) == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * 594 / 595)))


def test_video_fine_tuning_starts_from_zero_and_ends_at_its_floor() -> None:
    optim = Optim(lr=1e-3, lr_base_batch=256, warmup_epochs=5, warmup_start=0.0, min_lr=1e-6, schedule_per="step")
    peak = peak_lr(optim, 128)
    assert peak == 5e-4
    values = [lr_at(optim, step, 20, 50, peak) for step in range(1000)]
    assert values[0] == 0.0 and values[50] == pytest.approx(peak / 2) and max(values) == values[100] == peak
    # The floor is given per 256 samples like the peak.
    assert values[-1] == pytest.approx(5e-7, abs=5e-9) and min(values[100:]) > 5e-7


def test_constant_after_warmup() -> None:
    optim = Optim(lr=2.0, schedule="constant", warmup_epochs=2, warmup_start=0.5)
    assert [lr_at(optim, epoch, 1, 5, 2.0) for epoch in range(5)] == [1.0, 1.5, 2.0, 2.0, 2.0]


def test_no_batch_scaling_unless_asked() -> None:
    assert peak_lr(Optim(lr=0.1), 4096) == 0.1 and peak_lr(Optim(lr=0.1, lr_base_batch=256), 64) == 0.025


@pytest.mark.parametrize("epochs", [0, 1, 4, 5])
def test_a_warmup_that_would_leave_nothing_is_a_quarter(epochs: int) -> None:
    by_step = Optim(warmup_epochs=5, schedule_per="step")
    assert warmup_of(by_step, epochs) == epochs / 4 and warmup_of(by_step, 6) == 5
    assert warmup_of(Optim(warmup_epochs=5), epochs) == epochs // 4
    # The peak is reached, and what follows is the whole cosine.
    rates = [lr_at(by_step, step, 8, epochs, 1.0) for step in range(8 * epochs)]
    assert not rates or (max(rates) == 1.0 and rates[-1] < 0.1 and rates.index(1.0) == 2 * epochs)


@pytest.mark.parametrize(
    ("optim", "says"),
    [
        (Optim(schedule="cosin"), "expected cosine, step or constant"),  # type: ignore[arg-type]
        (Optim(schedule_per="batch"), "expected epoch or step"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(optim: Optim, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        lr_at(optim, 0, 5, 10, 1.0)
