"""predict, features, eval: applies a trained network to files and data sets, and measures it."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from ..config import Data
from ..data.datasets import named_data
from ..errors import UsageError, some
from ..files import ARRAYS, TABLES, check_paths
from .app import Json, Set, app
from .names import check_model, check_outputs
from .printing import leave_group, print_json, print_metrics, print_table, tell

Model = Annotated[
    str,
    typer.Argument(
        help="A run or export folder, a *_vcreg or timm name, hf-hub:ID, hf:ID, torchvision:NAME or local-dir:FOLDER."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples at a time on each process.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read files, of each process.")]
Cache = Annotated[bool, typer.Option(help="Keep extracted features, and take what was kept; see docs/use.md.")]
Precision = Annotated[str, typer.Option(help="no, bf16 or fp16.")]


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A file or folder of timm's train.py, Lightning, accelerate, ...")],
    model: Annotated[str, typer.Option(help="The network, as recipes name it: a timm name, hf:ID, torchvision:NAME.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    entry: Annotated[
        str | None, typer.Option(help="Of the file, such as state_dict; averaged weights otherwise.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names, a line each, in the order of the logits.")] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Turns a checkpoint of another program into a run folder, for eval, export, card and publish.

    A pickle is read for its tensors alone; nothing in it is run. --set model.kwargs.* and data.* (image_size, resize,
    mean, std, interpolation, fit) say what the file does not.
    """
    check_model(model)
    if not checkpoint.exists():
        raise UsageError(f"there is no {checkpoint}: expected a checkpoint file or a folder that holds one")
    names = None if classes is None else _names(classes)
    from ..run.imported import import_checkpoint

    told: list[str] = []
    log = told.append if as_json else print
    run = import_checkpoint(checkpoint, model, out, entry=entry, classes=names, settings=settings or [], log=log)
    print_json({"run": str(run.path), **run.results()}) if as_json else print(f"run folder: {quote(str(run.path))}")


def _names(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as class names, a line each: {error}") from None


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
    # Before torch is imported.
    if not _is_path(model):
        check_model(model)
    check_paths(paths, to, TABLES)
    from ..run.predict import predict as run

    found = run(model, paths, top_k, to=to, batch_size=batch_size, workers=workers, precision=precision)
    if os.environ.get("RANK", "0") == "0":
        if as_json:
            print_json([one.to_json() for one in found])
        else:
            shown = [f"{k + 1}" for k in range(max(1, *(len(one.classes) for one in found)))]
            print_table([{"file": one.path} | dict(zip_longest(shown, _cells(one), fillvalue="")) for one in found])
        if lost := [one.error for one in found if one.error]:
            tell(f"{len(lost)} of {len(found)} files cannot be read: {some(lost)}")
        if to is not None:
            tell(f"table: {quote(str(to))}")
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
    cache: Cache = True,
) -> None:
    """Write a model's features of files or of a data set, with paths and labels. Also under accelerate launch.

    Of files the label is the folder that they lie in. Interrupted, the same command goes on where it was.
    """
    if not _is_path(model):
        check_model(model)
    if split not in ("train", "val", "test"):
        raise UsageError(f"--split is train, val or test, got {split!r}")
    check_outputs(output or ())
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
        print(f"features: {quote(str(to))} ({shapes})")
    leave_group()


@app.command(name="eval")
def eval_(
    model: Model,
    suite: Annotated[
        str | None, typer.Option(help="A suite such as table1, or evaluations by tag, such as logreg,knn.")
    ] = None,
    set_: Set = None,
    save: Annotated[bool, typer.Option(help="Add the metrics to the run's results.json.")] = False,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Evaluate a trained network: other evaluations, data or splits through --suite, --set evals, eval.* and data.*.

    A run is measured on the data of its recipe. Any other network is told which, and sees them as it is used to:

        vcreg eval resnet32_cifar_vcreg --suite logreg --set data.name=digits
    """
    from ..config import override
    from ..evals.suites import evaluations

    # What is mistyped is found before torch is imported.
    evals = None if suite is None else evaluations(suite)
    recipe = None
    if _is_path(model):
        from ..rundir import RunDir

        if not (Path(model.removeprefix("local-dir:")) / "config.json").is_file():
            recipe = RunDir(model).recipe()
            recipe = override(recipe if evals is None else replace(recipe, evals=evals), set_ or [])
    else:
        check_model(model)
    from ..run.checkpoint import evaluate as run

    rows = run(model, suite, settings=set_ or [], save=save, cache=cache)
    if os.environ.get("RANK", "0") == "0":
        found = [row.to_json() for row in rows]
        print_json(found) if as_json else print_metrics(found, recipe)
    leave_group()


def _is_path(model: str) -> bool:
    return Path(model.removeprefix("local-dir:")).is_dir() or ("/" in model and ":" not in model)
