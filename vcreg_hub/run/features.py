"""Features of a trained network, with the paths and labels of the samples they are of, as arrays and as a file."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..config import Data
from ..data import load_data
from ..data.datasets import named_data
from ..data.files import find_files
from ..errors import DataError, UsageError, some, unknown_name
from ..evals.extraction import Extracted, extract, features_folder
from ..files import ARRAYS, check_paths, replacing, write_tensors
from ..models.checkpoint import Checkpoint, load_checkpoint
from ..models.libraries.library import Preprocessing
from ..models.outputs import OUTPUTS
from .accelerator import accelerator_of
from .predict import unreadable

_logger = logging.getLogger("vcreg_hub")


@dataclass(frozen=True)
class Features:
    """Arrays in one order. arrays: "pooled" (n, d), "spatial" (n, ...) and "blocks.<name>" (n, c), float32, as asked
    for. labels: (n,) int64 into class_names. paths: a file, or where in its data set a sample is. model: its name."""

    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    model: str

    def save(self, to: str | Path) -> Path:
        """Write them, whole or not at all; returns the path.

        .safetensors: the arrays and `labels` as tensors; `paths`, `class_names` and `model` as JSON in its metadata.
        .npy: the one array; paths and labels in a .csv of the same name. .parquet: a row for each sample.
        Errors: UsageError for another ending, or .npy for several arrays.
        """
        to = Path(to)
        _check_target(to, len(self.arrays))
        if to.suffix == ".safetensors":
            tensors = {name: torch.from_numpy(array) for name, array in (*self.arrays.items(), ("labels", self.labels))}
            about = {"paths": self.paths, "class_names": self.class_names, "model": self.model}
            write_tensors(to, tensors, {name: json.dumps(value) for name, value in about.items()})
        elif to.suffix == ".npy":
            (array,) = self.arrays.values()
            with replacing(to) as temporary, temporary.open("wb") as file:
                np.save(file, array)
            with replacing(to.with_suffix(".csv")) as temporary:
                with temporary.open("w", encoding="utf-8", newline="") as text:
                    csv.writer(text).writerows([("path", "label", "class"), *self._rows()])
        else:
            self._write_parquet(to)
        return to

    def _rows(self) -> list[tuple[str, int, str]]:
        return [(path, int(label), self.class_names[label]) for path, label in zip(self.paths, self.labels)]

    def _write_parquet(self, to: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        paths, labels, classes = zip(*self._rows())
        columns = {"path": pyarrow.array(paths), "label": pyarrow.array(labels), "class": pyarrow.array(classes)}
        shapes = {}
        for name, array in self.arrays.items():
            flat = array.reshape(len(array), -1)
            values = pyarrow.array(flat.reshape(-1))
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(values, flat.shape[1])
            shapes[name] = array.shape[1:]
        table = pyarrow.table(columns).replace_schema_metadata(
            {"model": self.model, "class_names": json.dumps(self.class_names), "shapes": json.dumps(shapes)}
        )
        with replacing(to) as temporary:
            parquet.write_table(table, temporary)


def features(
    model: str | Path | nn.Module,
    data: str | Path | Data | Sequence[str | Path],
    *,
    to: str | Path | None = None,
    outputs: Sequence[str] = ("pooled",),
    split: Literal["train", "val", "test"] = "test",
    preprocessing: Preprocessing | None = None,
    batch_size: int = 64,
    workers: int = 0,
    precision: str = "no",
    cache: bool = True,
) -> Features:
    """What the network makes of every sample, shown by its own preprocessing.

    model: see `models.checkpoint.load_checkpoint`. data: files, and folders with files below them, whose folders' names
        are the labels; or the name of a data set, or its settings, of which `split` is taken.
    outputs: "pooled", what enters the classifier; "spatial", the last map or tokens; "blocks", each residual block's
        mean over its positions. to: also write them there, .safetensors, .npy or .parquet.
    cache: keep what was extracted in the folder that VCREG_FEATURES_DIR names, by weights, data and view; what is there
        is not extracted again, and an extraction that broke off goes on.
    A file that cannot be read is left out and named in a warning. Under several processes each calls this and gets the
    whole.
    Errors: those of `load_checkpoint` and of reading the data; UsageError; DataError where nothing can be read.
    """
    for kind in outputs:
        if kind not in OUTPUTS:
            raise unknown_name("output", kind, OUTPUTS)
    if to is not None:
        _check_target(Path(to), len(outputs) + ("blocks" in outputs))
    source = named_data(data)
    if not isinstance(source, Data):
        check_paths(source, None, ())
    checkpoint = load_checkpoint(model, preprocessing)
    accelerator = accelerator_of(precision)
    folder = features_folder() if cache else None
    if isinstance(source, Data):
        module = load_data(checkpoint.shown(replace(source, workers=workers)), checkpoint.video)
        known = module.labels(split)
        found = extract(
            checkpoint.network, module.eval_batches(split, batch_size), accelerator,
            outputs=outputs, data=module.fingerprint(split), cache=folder, expected=known,
        )  # fmt: skip
        paths = tuple(module.where(split, number) for number in range(len(found.labels)))
        names = tuple(module.class_names)
        lost = {int(n): f"{paths[n]} does not decode" for n in np.flatnonzero(found.labels < 0)}
        labels = found.labels if known is None else known
    else:
        cfg = replace(checkpoint.shown(Data("files")), workers=workers)
        files = find_files(source, cfg, checkpoint.video)
        found = extract(
            checkpoint.network, files.batches(batch_size), accelerator,
            outputs=outputs, data=files.fingerprint(), cache=folder,
        )  # fmt: skip
        paths, names, labels = tuple(map(str, files.paths)), files.class_names, files.labels
        lost = unreadable(files, found.labels < 0)
    made = _kept(checkpoint, found, labels, names, paths, lost)
    if to is not None and accelerator.is_main_process:
        made.save(to)
    return made


def _kept(
    checkpoint: Checkpoint,
    found: Extracted,
    labels: np.ndarray,
    names: tuple[str, ...],
    paths: tuple[str, ...],
    lost: Mapping[int, str],
) -> Features:
    """The features without the samples that could not be read."""
    read = np.array([number not in lost for number in range(len(paths))])
    if not read.any():
        raise DataError(f"none of the {len(paths)} samples can be read: {lost[0]}")
    if lost:
        _logger.warning("%d of %d samples are left out: %s", len(lost), len(paths), some(list(lost.values())))
    arrays = {name: array[read] for name, array in found.arrays.items()}
    kept = tuple(path for path, there in zip(paths, read) if there)
    return Features(arrays, labels[read], names, kept, checkpoint.name)


def _check_target(to: Path, arrays: int) -> None:
    check_paths((), to, ARRAYS)
    if to.suffix == ".npy" and arrays > 1:
        raise UsageError(f"{to}: an .npy file holds one array, and {arrays} or more are asked for; use .safetensors")
