"""Accuracy against counting by hand."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vcreg_hub.errors import DataError
from vcreg_hub.evals.classification import Classification, evaluate


def batches(scores, labels, size=7):
    return [(scores[i : i + size], labels[i : i + size], None) for i in range(0, len(scores), size)]


def test_top1_top5_and_loss_by_hand():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(50, 9, generator=generator), torch.randint(9, (50,), generator=generator)
    found = dict(evaluate(nn.Identity(), batches(scores, labels), Accelerator(cpu=True), classes=9))
    ranks = [sorted(row, reverse=True).index(row[label]) for row, label in zip(scores.tolist(), labels.tolist())]
    assert found["top1"] == pytest.approx(100 * sum(rank == 0 for rank in ranks) / 50)
    assert found["top5"] == pytest.approx(100 * sum(rank < 5 for rank in ranks) / 50)
    chances = scores.double().softmax(1)[torch.arange(50), labels]
    assert found["loss"] == pytest.approx(-chances.log().mean().item(), rel=1e-6)
    assert found.keys() <= Classification.metrics.keys()


def test_few_classes_have_no_top5_and_the_mode_is_restored():
    model = nn.Dropout()
    scores, labels = torch.eye(3), torch.tensor([0, 1, 0])
    found = dict(evaluate(model, batches(scores, labels), Accelerator(cpu=True), classes=3))
    assert found["top1"] == pytest.approx(200 / 3) and "top5" not in found
    assert model.training


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="empty"):
        list(evaluate(nn.Identity(), [], Accelerator(cpu=True), classes=3))


def test_what_could_not_be_read_is_wrong_and_has_no_loss():
    scores, labels = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, -1 - 2, -1 - 0])
    found = dict(evaluate(nn.Identity(), batches(scores, labels, 2), Accelerator(cpu=True), classes=3))
    assert found["top1"] == 50
    read = dict(evaluate(nn.Identity(), batches(scores[:2], labels[:2]), Accelerator(cpu=True), classes=3))
    assert read["top1"] == 100 and found["loss"] == read["loss"]
    with pytest.raises(DataError, match="none of the samples"):
        list(evaluate(nn.Identity(), batches(scores[2:], labels[2:]), Accelerator(cpu=True), classes=3))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_test_shows_its_progress_on_a_terminal_alone(monkeypatch, kind):
    shown = kind()
    monkeypatch.setattr(sys, "stderr", shown)
    scores, labels = torch.eye(3).repeat(40, 1), torch.arange(3).repeat(40)
    list(evaluate(nn.Identity(), batches(scores, labels), Accelerator(cpu=True), classes=3))
    assert ("testing" in shown.getvalue() and "/18" in shown.getvalue()) == (kind is Terminal)
    assert kind is Terminal or not shown.getvalue()
