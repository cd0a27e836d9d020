"""A dry run is kept for a model as long as nobody changes it, and no longer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from vcreg_hub.placement import tracing
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg

IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class of every model that is run from here on."""
    seen: list[str] = []
    run = tracing._run

    def counted(model: nn.Module, *args: object) -> tracing.Trace:
        seen.append(type(model).__name__)
        return run(model, *args)

    monkeypatch.setattr(tracing, "_run", counted)
    return seen


def test_one_run_for_all_placements(runs: list[str]) -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    final = find_blocks(model, "final", IMAGE)
    assert find_blocks(model, "blocks", torch.ones(1, 3, 32, 32)) and find_blocks(model, "final", IMAGE) == final
    model.eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.fc.weight.zero_()
    attach(model, VCReg(), "blocks", example_input=IMAGE).detach()
    assert len(runs) == 1
    attach(model, VCReg(), "blocks", example_input=torch.zeros(2, 3, 64, 64))
    assert len(runs) == 2


def widen(linear: nn.Linear) -> None:
    linear.weight, linear.bias = nn.Parameter(torch.zeros(9, 96)), nn.Parameter(torch.zeros(9))


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "another head": lambda model: model.reset_classifier(9),
    "a module in another's place": lambda model: setattr(model, "act1", nn.GELU()),
    "a setting": lambda model: setattr(model, "drop_rate", 0.5),
    "a list that grows": lambda model: model.steps.append(3),
    "tensors of another shape": lambda model: widen(model.fc),
    "another type": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_run_again(change: str, runs: list[str]) -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    model.steps = [1, 2]
    image = IMAGE.double() if change == "another type" else IMAGE
    find_blocks(model, "final", IMAGE)
    CHANGES[change](model)
    (site,) = find_blocks(model, "final", image)
    assert len(runs) == 2 and site.module is model.get_classifier()


def test_a_replaced_forward_and_a_changed_configuration_are_seen(runs: list[str]) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    settings = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, patch_size=8)
    model = ViTForImageClassification(ViTConfig(**settings, image_size=32))
    find_blocks(model, "blocks")
    find_blocks(model, "final")
    assert len(runs) == 1
    model.config.output_hidden_states = True
    find_blocks(model, "final")
    assert len(runs) == 2
    model.forward = model.forward  # type: ignore[method-assign]
    find_blocks(model, "final")
    find_blocks(model, "final")
    assert len(runs) == 4
