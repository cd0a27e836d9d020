"""The loss of the classes, and what spectral decoupling adds to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vcreg_hub.config import Train
from vcreg_hub.errors import ConfigError
from vcreg_hub.tasks.classification import Classification
from vcreg_hub.tasks.task import TaskModule


def test_spectral_decoupling_is_half_lambda_times_the_squared_logits():
    torch.manual_seed(0)
    samples, labels = torch.randn(7, 4), torch.randint(3, (7,))
    network = nn.Linear(4, 3)
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
