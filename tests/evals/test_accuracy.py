"""One accuracy, against counting by hand."""

from __future__ import annotations

import pytest
import torch

from vcreg_hub.evals.accuracy import GROUPED, accuracies, accuracies_by_frequency


def test_every_accuracy_by_hand():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(60, 7, generator=generator), torch.randint(6, (60,), generator=generator)
    ranked = scores.topk(5, dim=1).indices
    first = [row.argmax().item() == label for row, label in zip(scores, labels.tolist())]
    among = [label in row for row, label in zip(ranked.tolist(), labels.tolist())]
    by_class = [
        sum(hit for hit, label in zip(first, labels.tolist()) if label == c) / int((labels == c).sum())
        for c in labels.unique().tolist()
    ]
    found = accuracies(ranked, labels, 7)
    assert found["top1"] == pytest.approx(100 * sum(first) / 60)
    assert found["top5"] == pytest.approx(100 * sum(among) / 60)
    assert found["mean_per_class"] == pytest.approx(100 * sum(by_class) / len(by_class)), "class 6 has no sample"
    assert "top5" not in accuracies(ranked[:, :1], labels, 7) and "top5" not in accuracies(ranked, labels, 5)


def test_a_sample_that_could_not_be_read_is_wrong_in_its_class():
    ranked, labels = torch.tensor([[0], [1], [1]]), torch.tensor([0, 1, -1 - 1])
    assert accuracies(ranked, labels, 2) == pytest.approx({"top1": 200 / 3, "mean_per_class": 75.0})


def test_frequent_and_rare_classes_are_counted_apart():
    generator = torch.Generator().manual_seed(2)
    ranked, labels = torch.randint(5, (90, 5), generator=generator), torch.randint(5, (90,), generator=generator)
    counts = (500, 101, 100, 20, 19)
    found = accuracies_by_frequency(ranked, labels, counts)
    for name, classes in (("many", (0, 1)), ("medium", (2, 3)), ("few", (4,))):
        hits = [guess == label for guess, label in zip(ranked[:, 0].tolist(), labels.tolist()) if label in classes]
        assert found[f"top1_{name}"] == pytest.approx(100 * sum(hits) / len(hits))
    assert found.keys() == GROUPED.keys()


def test_a_sample_that_could_not_be_read_is_wrong_in_its_group():
    ranked, labels = torch.tensor([[0], [1], [1]]), torch.tensor([0, 1, -1 - 1])
    assert accuracies_by_frequency(ranked, labels, (200, 4)) == {"top1_many": 100, "top1_few": 50}


def test_a_training_set_without_a_long_tail_has_no_groups():
    ranked, labels = torch.tensor([[0], [1]]), torch.tensor([0, 1])
    assert accuracies_by_frequency(ranked, labels, (100, 11)) == {}
    assert accuracies_by_frequency(ranked, labels, None) == {}
