"""Evaluation protocols, one a file. Each yields pairs (metric, value); `METRICS` says how to read them."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is read: its unit, whether more is better, and one line on what it is, in which `{views}` stands for
    how a sample is looked at."""

    unit: str
    higher_is_better: bool
    meaning: str


METRICS = {
    "top1": Metric("%", True, "top-1 accuracy, {views}"),
    "top5": Metric("%", True, "top-5 accuracy, {views}"),
    "mean_per_class": Metric("%", True, "mean of the classes' top-1 accuracies, {views}"),
    "undecodable": Metric("clips", False, "test clips that do not decode; they count as wrong"),
    "loss": Metric("nats", False, "mean cross-entropy"),
    "probe_top1": Metric("%", True, "top-1 accuracy of a linear probe on frozen features"),
    "probe_mean_per_class": Metric("%", True, "mean per-class accuracy of a linear probe on frozen features"),
}
