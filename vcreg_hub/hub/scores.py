"""The metrics of a record, over the seeds and the train/test splits they were measured with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """One metric over the seeds it was measured with.

    value: that of the weights on the card (None for a twin). values: one a seed. of_splits: whether each of them is a
    mean over train/test splits.
    """

    metric: str
    unit: str
    higher_is_better: bool
    dataset: str
    config: str
    split: str
    protocol: str
    value: float | None
    values: tuple[float, ...]
    of_splits: bool = False

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for one seed."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def key(self) -> tuple[str, ...]:
        return (self.metric, self.dataset, self.config, self.split, self.protocol)


def scores(record: dict[str, Any]) -> list[Score]:
    """The metrics of a release, in the order of its results.json; mean and std are over its seeds.

    Where it was measured on several train/test splits, the means over those come first.
    """
    return _over_folds(record["runs"]) + _over_seeds(record["runs"], own=record["runs"][0])


def twin_scores(record: dict[str, Any]) -> dict[tuple[str, ...], Score]:
    """The plain twin's metrics by `Score.key`; empty when no twin has been run."""
    twins = record["twins"]
    return {score.key: score for score in _over_folds(twins) + _over_seeds(twins, own=None)}


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
                values=tuple(values),
            )
        )
    return found


def _over_folds(runs: Sequence[dict[str, Any]]) -> list[Score]:
    """Of runs on several splits; a seed's value is its mean over them, of seeds that every split has, and std is over
    those."""
    if len({run.get("fold") for run in runs}) < 2:
        return []
    groups: dict[tuple[str, ...], dict[int, dict[int, dict[str, Any]]]] = {}
    for run in runs:
        for row in run["metrics"]:
            if "fold" in row:
                whole = row["split"].removesuffix(f", fold {row['fold']}")
                folds = groups.setdefault(row_key({**row, "split": whole}), {})
                folds.setdefault(row["fold"], {})[run["seed"]] = row
    return [score for key, folds in groups.items() if (score := _mean_of_folds(key, folds)) is not None]


def _mean_of_folds(key: tuple[str, ...], folds: dict[int, dict[int, dict[str, Any]]]) -> Score | None:
    seeds = sorted(set.intersection(*map(set, folds.values())))
    if len(folds) < 2 or not seeds:
        return None
    metric, dataset, config, split, protocol = key
    row = next(iter(next(iter(folds.values())).values()))
    values = [statistics.fmean(by_seed[seed]["value"] for by_seed in folds.values()) for seed in seeds]
    return Score(
        metric=metric,
        unit=row["unit"],
        higher_is_better=row["higher_is_better"],
        dataset=dataset,
        config=config,
        split=f"{split}, mean of {len(folds)} splits",
        protocol=protocol,
        value=None,
        values=tuple(values),
        of_splits=True,
    )


def row_key(row: dict[str, Any]) -> tuple[str, ...]:
    """What makes a row of results.json another number than the next one."""
    return tuple(row[field] for field in ("metric", "dataset", "dataset_config", "split", "protocol"))
