"""The mean over the train/test splits of a data set, which is what HMDB51's results are."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .summary import spread


def over_folds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each recipe that was run on several splits, one row a metric: the mean over the splits.

    rows: of `summary.summarise`. A seed's value is its mean over the splits, of seeds that every split has; the
    standard deviation is that over seeds. `folds` names the splits. Recipes that differ in more than split and seed,
    and different noise, never meet.
    """
    groups: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row.get("fold") is not None:
            same = (row["family"], row["trained_sigma"], row.get("sigma"), row["metric"], row["dataset_config"])
            groups[(*same, row["dataset"], row["split"])][row["fold"]] = row
    found = (_mean(folds) for folds in groups.values() if len(folds) > 1)
    return [row for row in found if row is not None]


def _mean(folds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    by_seed = [dict(zip(row["seeds"], row["values"], strict=True)) for row in folds.values()]
    seeds = set.intersection(*map(set, by_seed))
    if not seeds:
        return None
    first = next(iter(folds.values()))
    # "plain,split=1" and "plain,split=2" are "plain".
    labels = [row["label"].split(",") for row in folds.values()]
    common = ",".join(part for part in labels[0] if all(part in label for label in labels)) or first["recipe"]
    values = {seed: statistics.fmean(values[seed] for values in by_seed) for seed in sorted(seeds)}
    kept = {name: value for name, value in first.items() if name != "fold"}
    return kept | {"label": f"{common}, mean of {len(folds)} splits", "folds": sorted(folds)} | spread(values)
