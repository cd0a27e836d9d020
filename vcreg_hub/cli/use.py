"""predict, features: applies a trained network to files and data sets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..config import Data
from ..data.datasets import named_data
from ..errors import UsageError, some
from ..files import ARRAYS, TABLES, check_paths
from .app import Json, app
from .printing import leave_group, print_json, print_table

Model = Annotated[
    str,
    typer.Argument(
        help="A run or export folder, a *_vcreg or timm name, hf-hub:ID, hf:ID, torchvision:NAME or local-dir:FOLDER."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples at a time on each process.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read files, of each process.")]
Precision = Annotated[str, typer.Option(help="no, bf16 or fp16.")]


@app.command()
def predict(
    model: Model,
    paths: Annotated[list[str], typer.Argument(help="Images or videos, and folders that hold some.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes of each file, the likeliest first.")] = 5,
    to: Annotated[Path | None, typer.Option(help="Also write a table here, .csv or .parquet.")] = None,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    precision: Precision = "no",
    as_json: Json = False,
) -> None:
    """The likeliest classes of images or videos, with probabilities. Also under accelerate launch -m vcreg_hub.

    The preprocessing is the model's own, one view of each file: an image's centre, a clip from a video's middle.
    --json prints a list with one object a file. A file that cannot be read is named, and the others go on.
    """
    check_paths(paths, to, TABLES)  # before torch is imported
    from ..run.predict import predict as run

    found = run(model, paths, top_k, to=to, batch_size=batch_size, workers=workers, precision=precision)
    if os.environ.get("RANK", "0") == "0":
        if as_json:
            print_json([one.to_json() for one in found])
        else:
            shown = [f"{k + 1}" for k in range(max(len(one.classes) for one in found))]
            print_table([{"file": one.path} | dict(zip(shown, _cells(one))) for one in found])
        if lost := [one.error for one in found if one.error]:
            print(f"{len(lost)} of {len(found)} files cannot be read: {some(lost)}", file=sys.stderr)
        if to is not None:
            print(f"table: {to}", file=sys.stderr)
    leave_group()


def _cells(one: Any) -> list[str]:
    if one.error:
        return ["cannot be read"]
    return [f"{name} {100 * probability:.1f}%" for name, probability in one.classes]


@app.command()
def features(
    model: Model,
    data: Annotated[list[str], typer.Argument(help="Files and folders of them, or the name of a data set.")],
    to: Annotated[Path, typer.Option(help="The file to write: .safetensors, .npy or .parquet.")],
    output: Annotated[
        list[str] | None,
        typer.Option(help="pooled (the classifier's input, the default), spatial or blocks; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a data set: train, val or test.")] = "test",
    root: Annotated[str | None, typer.Option(help="The data set's folder.")] = None,
    labels: Annotated[str, typer.Option(help="The data set's label set or column.")] = "class",
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    precision: Precision = "no",
    cache: Annotated[bool, typer.Option(help="Keep what is extracted, and take what was; see docs/use.md.")] = True,
) -> None:
    """Write a model's features of files or of a data set, with paths and labels. Also under accelerate launch.

    Of files the label is the folder that they lie in. Interrupted, the same command goes on where it was.
    """
    if split not in ("train", "val", "test"):
        raise UsageError(f"--split is train, val or test, got {split!r}")
    part: Literal["train", "val", "test"] = split  # type: ignore[assignment]
    source = named_data(data, root, labels)
    check_paths(() if isinstance(source, Data) else source, to, ARRAYS)  # before torch is imported
    from ..run.features import features as run

    found = run(
        model, source, to=to, outputs=output or ("pooled",), split=part,
        batch_size=batch_size, workers=workers, precision=precision, cache=cache,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in found.arrays.items())
        print(f"features: {to} ({shapes})")
    leave_group()
