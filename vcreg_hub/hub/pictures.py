"""The pictures of a card, drawn from its record alone: the same record gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import JSON
from ..results.figures import draw_metrics
from ..results.training_figure import draw_blocks, draw_training
from .record import Record

# What a card shows -> its file in an export folder, and what follows a release's name beside the cards of releases.
PICTURES = {"results": "results_of_all_seeds.png", "training": "training_curve.png", "blocks": "blocks.png"}
_OF_RELEASE = {"results": ".png", "training": ".training.png", "blocks": ".blocks.png"}
# Columns of metrics.csv that the curve shows.
_COLUMNS = ("train_loss", "val_loss", "train_top1", "val_top1")
# What the regularizer tells of its last training batches, and what the monitor tells of held-out samples.
_TRAINED = {
    "effective_rank": "Effective rank, training batches",
    "collapsed": "Collapsed channels (share), training batches",
    "gradient_share": "VCReg's share of the gradient",
}
_WATCHED = {"val_cdnv": "CDNV, held out", "val_effective_rank": "Effective rank, held out"}


def recorded(epochs: Sequence[Mapping[str, float]]) -> JSON:
    """The part of metrics.csv that an export keeps in results.json: "curve", column -> a value an epoch, and "blocks",
    title -> block -> value, of the last epoch that has them; neither where the run has not recorded it."""
    kept: JSON = {}
    columns = [name for name in _COLUMNS if any(name in row for row in epochs)]
    if len(epochs) > 1 and columns:
        numbers = [row.get("epoch", float(place)) for place, row in enumerate(epochs, start=1)]
        kept["curve"] = {"epoch": numbers, **{name: [row.get(name) for row in epochs] for name in columns}}
    for key, title in _WATCHED.items():
        of_epochs = [
            {name.partition("/")[2]: row[name] for name in row if name.startswith(f"{key}/")} for row in epochs
        ]
        if told := [of_blocks for of_blocks in of_epochs if len(of_blocks) > 1]:
            kept.setdefault("blocks", {})[title] = told[-1]
    return kept


def picture_names(record: Record, prefix: str | None = None) -> dict[str, str]:
    """What the record holds a picture of -> its file's name. prefix: of the names of a release."""
    there = {
        "results": prefix is not None or len(record.runs) > 1 or bool(record.baselines),
        "training": bool(record.results.get("curve")),
        "blocks": bool(_blocks(record)),
    }
    return {
        kind: name if prefix is None else f"{prefix}{_OF_RELEASE[kind]}"
        for kind, name in PICTURES.items()
        if there[kind]
    }


def draw_pictures(record: Record, folder: Path, prefix: str | None = None) -> None:
    """Draw the files of `picture_names` into `folder`."""
    names = picture_names(record, prefix)
    if "results" in names:
        draw_metrics(record.pictured(), folder / names["results"])
    if "training" in names:
        draw_training(record.results["curve"], folder / names["training"])
    if "blocks" in names:
        draw_blocks(_blocks(record), folder / names["blocks"])


def _blocks(record: Record) -> dict[str, Mapping[str, float]]:
    """Title -> block -> value, by what was recorded; empty for fewer than two blocks."""
    found: dict[str, Mapping[str, float]] = {}
    sites = [site for site in record.results.get("regularizer") or () if isinstance(site, dict) and "site" in site]
    for key, title in _TRAINED.items():
        values = {str(site["site"]): site.get(key) for site in sites}
        known = {block: float(value) for block, value in values.items() if isinstance(value, int | float)}
        if len(known) > 1:
            found[title] = known
    return {**found, **(record.results.get("blocks") or {})}
