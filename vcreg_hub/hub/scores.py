"""The metrics of a record, over the seeds they were measured with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """One metric over the seeds it was measured with.

    value: that of the weights on the card (None for a twin). mean, std: over `n` seeds; std is the sample standard
    deviation, None for one seed.
    """

    metric: str
    unit: str
    higher_is_better: bool
    dataset: str
    config: str
    split: str
    protocol: str
    value: float | None
    mean: float
    std: float | None
    n: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.metric, self.dataset, self.config, self.split, self.protocol)


def scores(record: dict[str, Any]) -> list[Score]:
    """The metrics of a release, in the order of its results.json; mean and std are over its seeds."""
    return _over_seeds(record["runs"], own=record["runs"][0])


def twin_scores(record: dict[str, Any]) -> dict[tuple[str, ...], Score]:
    """The plain twin's metrics by `Score.key`; empty when no twin has been run."""
    return {score.key: score for score in _over_seeds(record["twins"], own=None)}


def _over_seeds(runs: Sequence[dict[str, Any]], own: dict[str, Any] | None) -> list[Score]:
    tables = [{row_key(row): row for row in run["metrics"]} for run in runs]
    found = []
    for key in dict.fromkeys(key for table in tables for key in table):
        rows = [table[key] for table in tables if key in table]
        values = [row["value"] for row in rows]
        mine = None if own is None else tables[0].get(key)
        found.append(
            Score(
                metric=rows[0]["metric"],
                unit=rows[0]["unit"],
                higher_is_better=rows[0]["higher_is_better"],
                dataset=rows[0]["dataset"],
                config=rows[0]["dataset_config"],
                split=rows[0]["split"],
                protocol=rows[0]["protocol"],
                value=None if mine is None else mine["value"],
                mean=statistics.fmean(values),
                std=statistics.stdev(values) if len(values) > 1 else None,
                n=len(values),
            )
        )
    return found


def row_key(row: dict[str, Any]) -> tuple[str, ...]:
    """What makes a row of results.json another number than the next one."""
    return tuple(row[field] for field in ("metric", "dataset", "dataset_config", "split", "protocol"))
