"""The moving average against the rule written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vcreg_hub.config import Train
from vcreg_hub.errors import ConfigError
from vcreg_hub.training.ema import Ema, build_ema


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def wander(model: nn.Module) -> None:
    """A training step's worth of change, in weights and buffers."""
    model.train()
    model(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}


def by_hand(states: list[dict[str, Tensor]], decay: float, updates: list[int], copies: set[int]) -> dict[str, Tensor]:
    """Average of the states after steps 1, 2, ...; it changes at the steps `updates`, of which `copies` copy."""
    average: dict[str, Tensor] = {}
    for step in updates:
        now = states[step - 1]
        if not average or step in copies:
            average = dict(now)
        else:
            average = {name: decay * average[name] + (1 - decay) * now[name] for name in now}
    return average


def run(ema: Ema, model: nn.Module, steps: int) -> list[dict[str, Tensor]]:
    states = []
    for step in range(1, steps + 1):
        wander(model)
        states.append(floats(model))
        ema.update(model, step)
    return states


def assert_is(ema: Ema, expected: dict[str, Tensor]) -> None:
    found = floats(ema.module)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("every", [1, 3])
def test_the_plain_rule(every: int) -> None:
    model = network()
    ema = build_ema(model, Train(epochs=2, ema_decay=0.8, ema_every=every), 0, 7)
    assert ema is not None
    states = run(ema, model, 14)
    updates = list(range(1, 15)) if every == 1 else [1, 4, 7, 8, 11, 14]
    assert_is(ema, by_hand(states, 0.8, updates, set()))


def test_torchvisions_rule_rescales_and_copies_while_warming_up() -> None:
    model = network()
    train = Train(epochs=4, batch_size=32, ema_decay=0.999, ema_every=2, ema_rule="torchvision")
    ema = build_ema(model, train, 2, 5)
    assert ema is not None
    # 5 steps an epoch: updates at the 1st, 3rd and 5th step of each; epochs 1 and 2 warm up; the first update after
    # them still copies, because torchvision sets its counter back after each update of the warmup.
    states = run(ema, model, 20)
    updates = [epoch * 5 + step for epoch in range(4) for step in (1, 3, 5)]
    decay = 1 - min(1, (1 - 0.999) * 32 * 2 / 4)
    assert decay == pytest.approx(0.984)
    assert_is(ema, by_hand(states, decay, updates, {step for step in updates if step <= 10} | {11}))


def test_the_decay_of_the_recipes() -> None:
    def decay(**settings: float) -> float:
        ema = build_ema(
            nn.Linear(1, 1), Train(ema_decay=0.99998, ema_every=32, ema_rule="torchvision", **settings), 5, 9
        )  # type: ignore[arg-type]
        assert ema is not None
        return ema.decay

    assert decay(epochs=600, batch_size=1024) == pytest.approx(1 - 2e-5 * 1024 * 32 / 600)
    assert decay(epochs=1, batch_size=65536) == 0.0


def test_the_average_leaves_model_and_gradients_alone() -> None:
    model = network()
    ema = build_ema(model, Train(ema_decay=0.5), 0, 5)
    assert ema is not None
    before = copy.deepcopy(model.state_dict())
    ema.update(model, 1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in ema.module.parameters()}


def test_it_goes_on_where_it_was_left() -> None:
    torch.manual_seed(1)
    train = Train(epochs=4, ema_decay=0.9, ema_every=2, ema_rule="torchvision", batch_size=64)
    model = network()
    whole = build_ema(model, train, 1, 4)
    assert whole is not None
    for step in range(1, 7):
        wander(model)
        whole.update(model, step)
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    assert all(isinstance(value, Tensor) for value in state.values())
    resumed = build_ema(network(), train, 1, 4)
    assert resumed is not None
    resumed.load_state_dict(state)
    for step in range(7, 13):
        wander(model)
        whole.update(model, step)
        resumed.update(model, step)
    assert_is(resumed, floats(whole.module))


def test_no_average_unless_asked_and_nonsense_is_refused() -> None:
    assert build_ema(network(), Train(), 0, 5) is None
    with pytest.raises(ConfigError, match="plain or torchvision"):
        build_ema(network(), Train(ema_decay=0.9, ema_rule="tv"), 0, 5)  # type: ignore[arg-type]
