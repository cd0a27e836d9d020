"""The command line: parses, calls, prints. Everything it does is a function of the package.

Exit codes: 0 done, 1 failed, 2 the call itself was wrong, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UsageError, VCRegError

app = typer.Typer(
    help="Train timm and transformers models with VCReg, measure what it gained, publish plain checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Set = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a value of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; a dated one below runs/ by default.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights, such as apache-2.0; there is no default.")]
Siblings = Annotated[list[Path] | None, typer.Option("--sibling", help="A run with another seed; repeatable.")]
Twins = Annotated[list[Path] | None, typer.Option("--twin", help="A plain twin's run; repeatable.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Seconds on a CPU: synthetic data of the right shapes.")]


def main() -> None:
    """Run the command line; a refusal is one clear line on stderr."""
    signal.signal(signal.SIGTERM, _interrupt)
    if threads := os.environ.get("VCREG_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    try:
        app()
    except VCRegError as error:
        print(f"vcreg: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("vcreg: interrupted; the same command goes on from the last whole epoch", file=sys.stderr)
        sys.exit(130)


def _interrupt(_signal: int, _frame: Any) -> None:
    # A cluster's warning before it takes the machine: leave as Ctrl-C does, with whatever is saved kept whole.
    raise KeyboardInterrupt


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="module:function, or a recipe.json to repeat.")],
    out: Out = None,
    set_: Set = None,
    smoke: Smoke = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run that --out holds.")] = False,
    tracker: Annotated[str | None, typer.Option(help="Any tracker accelerate knows, such as tensorboard.")] = None,
    bar: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train and evaluate a recipe. Run it again to resume. Also under accelerate launch -m vcreg_hub."""
    from .run import smoke_test
    from .run import train as run

    chosen = _recipe(recipe, set_)
    if smoke:
        chosen = smoke_test(chosen)
    folder = run(chosen, out, overwrite=overwrite, bar=bar and sys.stderr.isatty(), tracker=tracker)
    if os.environ.get("RANK", "0") == "0":
        _print_metrics(folder.results()["metrics"])
        print(f"run folder: {folder.path}")


@app.command(name="eval")
def eval_(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    set_: Set = None,
    save: Annotated[bool, typer.Option(help="Add the metrics to the run's results.json.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run's weights again: other protocols, data or splits through --set eval.* and --set data.*."""
    from .run import evaluate_run

    rows = evaluate_run(run, set_ or [], save=save)
    _print_json(rows) if as_json else _print_metrics(rows)


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="module:function, or a recipe.json.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    grid: Annotated[list[str] | None, typer.Option(metavar="FIELD=V1,V2", help="Values to try; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    set_: Set = None,
) -> None:
    """Train every combination of a grid and seeds, resumable, and print a table. Chooses nothing by test data."""
    from .study import cells, check, markdown, parse_grid, parse_seeds, run_cells, summarise, write_report

    todo = cells(_recipe(recipe, set_), parse_grid(grid or []), parse_seeds(seeds))
    failed = run_cells(todo, out, jobs)
    check(failed)
    rows = summarise([out])
    write_report(out, rows)
    print(markdown(rows))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold them.")],
    out: Annotated[Path | None, typer.Option(help="Also write summary.json, report.md and report.png here.")] = None,
    as_json: Json = False,
) -> None:
    """Mean and standard deviation over seeds of finished runs."""
    from .study import markdown, summarise, write_report

    rows = summarise(folders)
    if out is not None:
        write_report(out, rows)
    _print_json(rows) if as_json else print(markdown(rows))


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="An experiment; without one, the list.")] = None,
    out: Annotated[Path | None, typer.Option(help="Its folder; runs/NAME by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    set_: Set = None,
) -> None:
    """Repeat a whole experiment: coefficients chosen on held-out training images, then several seeds on test."""
    from .config import override
    from .experiments import EXPERIMENTS
    from .experiments import reproduce as walk
    from .study import markdown

    if name is None:
        for known, experiment in EXPERIMENTS.items():
            print(f"{known}: {experiment.plain} against {experiment.vcreg}. {experiment.paper}")
        return
    rows = walk(name, out or Path("runs") / name, jobs, change=lambda recipe: override(recipe, set_ or []))
    print(markdown(rows))


@app.command()
def recipes(as_json: Json = False) -> None:
    """The recipes of this package, each with the first line of what it says about itself."""
    from .recipes import addresses, summary

    found = {address: summary(address) for address in addresses()}
    if as_json:
        _print_json(found)
        return
    width = max(map(len, found))
    for address, line in found.items():
        print(f"{address:<{width}}  {line}")


@app.command()
def blocks(
    name: Annotated[str, typer.Argument(help="A timm architecture, hf:<config or id>, or torchvision:<name>.")],
    where: Annotated[str, typer.Option(help="final, blocks, downsample, blocks+downsample, or a glob.")] = "blocks",
    as_json: Json = False,
) -> None:
    """Where VCReg would sit in a model: sites with output shapes and channel axis. Builds no weights."""
    from .blocks import describe_name

    rows = describe_name(name, where)
    if as_json:
        _print_json(rows)
        return
    _print_table(rows)
    print(f"{len(rows)} sites")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    to: Annotated[Path, typer.Option(help="The folder to write.")],
    licence: Licence,
    siblings: Siblings = None,
    twins: Twins = None,
    weights: Annotated[str, typer.Option(help="model, or last / best where the run kept those.")] = "model",
    overwrite: Annotated[bool, typer.Option(help="Replace the folder that is there.")] = False,
) -> None:
    """A run as a folder that plain timm or transformers loads, with its model card."""
    from .hub.card import write_card
    from .hub.export import export as write

    folder = write(run, to, licence=licence, weights=weights, overwrite=overwrite)
    try:
        card = write_card(folder, licence=licence, siblings=siblings or [], twins=twins or [])
    except VCRegError as error:
        raise VCRegError(f"the weights are exported to {folder}, but not the card: {error}") from error
    print(f"weights: {folder / 'model.safetensors'}\ncard:    {card}")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A run or export folder.")],
    licence: Licence,
    siblings: Siblings = None,
    twins: Twins = None,
    repo: Annotated[str | None, typer.Option(help="Where it is or will be published, owner/name.")] = None,
) -> None:
    """Print the model card of a run or export folder, rendered from its files alone."""
    from .hub.card import render_card

    print(render_card(folder, licence=licence, repo_id=repo, siblings=siblings or [], twins=twins or []))


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="A data set; without one, the list.")] = None,
    root: Annotated[str | None, typer.Option(help="Its folder, where it has one.")] = None,
    labels: Annotated[str, typer.Option(help="Label set or column.")] = "class",
) -> None:
    """The data sets there are; with a name, read one and say what is in it."""
    from .config import Data
    from .data.images import ROWS, load_images

    if name is None:
        for known, row in ROWS.items():
            print(f"{known:<14} {row.about}")
        return
    images = load_images(Data(name, root=root, labels=labels))
    print(f"{images}\nclasses: {', '.join(images.class_names[:20])}{', ...' if images.num_classes > 20 else ''}")


@app.command()
def env() -> None:
    """What this machine and installation are, as written into every run."""
    from .env import describe_env

    _print_json(describe_env())


def _recipe(address: str, settings: list[str] | None) -> Any:
    from .config import from_json, override
    from .recipes import load_recipe

    if address.endswith(".json"):
        path = Path(address)
        if not path.is_file():
            raise UsageError(f"there is no recipe file {path}")
        recipe = from_json(path.read_text(encoding="utf-8"))
    else:
        sys.path.insert(0, os.getcwd())
        recipe = load_recipe(address)
    return override(recipe, settings or [])


def _print_metrics(rows: list[dict[str, Any]]) -> None:
    _print_table(
        [
            {
                "metric": row["metric"],
                "value": f"{row['value']:.2f} {row['unit']}",
                "data": f"{row['dataset']}/{row['dataset_config']}",
                "split": row["split"],
                "better": "higher" if row["higher_is_better"] else "lower",
            }
            for row in rows
        ]
    )


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for name in rows[0] if rows else []:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
