"""Predicts the classes of files: the likeliest ones of each, with their probabilities."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Data
from ..data.files import Files, find_files
from ..errors import DataError, UsageError
from ..evals.extraction import extract
from ..files import TABLES, check_paths, replacing
from ..models.checkpoint import load_checkpoint
from ..models.libraries.library import Preprocessing
from .accelerator import accelerator_of


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one file. classes: (name, probability), the likeliest first; none where the file cannot
    be read, and `error` says why."""

    path: str
    classes: tuple[tuple[str, float], ...]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {"path": self.path, "predictions": found, "error": self.error}


def predict(
    model: str | Path | nn.Module,
    paths: str | Path | Sequence[str | Path],
    top_k: int = 5,
    *,
    to: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    batch_size: int = 64,
    workers: int = 0,
    precision: str = "no",
) -> list[Prediction]:
    """The `top_k` likeliest classes of every file at `paths`, by the network's own preprocessing; one view of each.

    model: see `models.checkpoint.load_checkpoint`. paths: files, and folders with files below them. to: also write a
    table there, .csv or .parquet. preprocessing: in place of the model's own. Under several processes each calls this,
    and each gets the whole list.
    Errors: those of `load_checkpoint`; UsageError for a path that is not there or another kind of table; DataError
    where no file can be read. One among others that cannot be read has an `error`.
    """
    if top_k < 1:
        raise UsageError(f"top_k is 1 or more, got {top_k}")
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    check_paths(given, to, TABLES)
    checkpoint = load_checkpoint(model, preprocessing)
    cfg = replace(checkpoint.shown(Data("files")), workers=workers)
    files = find_files(given, cfg, checkpoint.video)
    accelerator = accelerator_of(precision)
    found = extract(checkpoint.network, files.batches(batch_size), accelerator, outputs=("logits",))
    scores = torch.from_numpy(found.arrays["logits"]).softmax(1)
    names = checkpoint.view.classes or [str(number) for number in range(scores.shape[1])]
    if len(names) != scores.shape[1]:
        raise UsageError(f"{checkpoint.name} names {len(names)} classes, but has {scores.shape[1]} logits")
    likeliest = scores.topk(min(top_k, len(names)), dim=1)
    predictions = [
        Prediction(str(path), tuple((names[place], value) for value, place in zip(values.tolist(), places.tolist())))
        for path, values, places in zip(files.paths, likeliest.values, likeliest.indices)
    ]
    lost = unreadable(files, found.labels < 0)
    predictions = [
        Prediction(one.path, (), lost[number]) if number in lost else one for number, one in enumerate(predictions)
    ]
    if to is not None and accelerator.is_main_process:
        _write(predictions, Path(to))
    return predictions


def unreadable(files: Files, lost: Any) -> dict[int, str]:
    """Number -> reason of the files that `lost` (n,) bool flags. Errors: DataError where that is all of them."""
    reasons = {int(number): files.reason(int(number)) for number in lost.nonzero()[0]}
    if len(reasons) == len(files.paths):
        raise DataError(f"none of the {len(files.paths)} files can be read: {reasons[0]}")
    return reasons


def _write(predictions: Sequence[Prediction], to: Path) -> None:
    """A row for each file, whole or not at all: path, error, and class_1, probability_1, class_2 and so on."""
    count = max(len(one.classes) for one in predictions)
    columns = ["path", "error", *(f"{what}_{k + 1}" for k in range(count) for what in ("class", "probability"))]
    rows = []
    for one in predictions:
        cells: list[Any] = [one.path, one.error, *(cell for pair in one.classes for cell in pair)]
        rows.append(cells + [None] * (len(columns) - len(cells)))
    with replacing(to) as temporary:
        if to.suffix == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns, *rows])
        else:
            import pyarrow
            from pyarrow import parquet

            kinds = {"c": pyarrow.string(), "e": pyarrow.string(), "p": pyarrow.float64()}
            kind = {name: pyarrow.string() if name == "path" else kinds[name[0]] for name in columns}
            columnar = [pyarrow.array([row[i] for row in rows], kind[name]) for i, name in enumerate(columns)]
            parquet.write_table(pyarrow.table(columnar, names=columns), temporary)
