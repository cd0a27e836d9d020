"""The picture on a model card: its results beside the plain twin's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..results.figures import bars
from .scores import Score, scores, twin_scores


def draw_results(record: dict[str, Any], path: Path) -> None:
    """Write the picture to `path` (PNG): each metric's mean, standard deviation and seeds; of several train/test splits
    their mean."""
    own, twins = scores(record), list(twin_scores(record).values())
    kind = "VCReg" if record["recipe"]["vcreg"] else "plain"
    rows = [_row("plain", score) for score in _shown(twins)] + [_row(kind, score) for score in _shown(own)]
    bars(rows, path)


def _shown(found: list[Score]) -> list[Score]:
    return [score for score in found if score.of_splits] or found


def _row(label: str, score: Score) -> dict[str, Any]:
    """As `summary.summarise` has them."""
    return {
        "label": label,
        "metric": score.metric,
        "unit": score.unit,
        "higher_is_better": score.higher_is_better,
        "dataset_config": score.config,
        "split": score.split,
        "mean": score.mean,
        "std": score.std,
        "n": score.n,
        "values": list(score.values),
    }
