"""train, eval, sweep, report, reproduce, recipes, env."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from .app import Jobs, Json, Out, Overwrite, Set, Smoke, app
from .names import check_model, check_tracker_name
from .printing import leave_group, print_json, print_metrics


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="module:function, or a recipe.json to repeat.")],
    out: Out = None,
    set_: Set = None,
    smoke: Smoke = False,
    overwrite: Overwrite = False,
    tracker: Annotated[str | None, typer.Option(help="Any tracker accelerate knows, such as tensorboard.")] = None,
    bar: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train and evaluate a recipe. Run it again to resume. Also under accelerate launch -m vcreg_hub."""
    check_tracker_name(tracker)
    chosen = _recipe(recipe, set_)
    # After the recipe: a typo in it is found before torch is imported.
    from ..run import smoke_test
    from ..run import train as run

    if smoke:
        chosen = smoke_test(chosen)
    folder = run(chosen, out, overwrite=overwrite, bar=bar and sys.stderr.isatty(), tracker=tracker)
    if os.environ.get("RANK", "0") == "0":
        metrics = folder.results()["metrics"]
        if smoke:  # two steps of batch statistics can make any number, such as a loss of millions
            names = ", ".join(dict.fromkeys(row["metric"] for row in metrics))
            print(f"smoke test passed: trained, then evaluated {names}. Their values mean nothing and are not shown")
        else:
            print_metrics(metrics)
        print(f"run folder: {folder.path}")
    leave_group()


@app.command(name="eval")
def eval_(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    set_: Set = None,
    save: Annotated[bool, typer.Option(help="Add the metrics to the run's results.json.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run's weights again: other evaluations, data or splits through --set evals, eval.* and data.*."""
    from ..config import override
    from ..rundir import RunDir

    override(RunDir(run).recipe(), set_ or [])  # finds a typo before torch is imported
    from ..run import evaluate_run

    rows = evaluate_run(run, set_ or [], save=save)
    found = [row.to_json() for row in rows]
    print_json(found) if as_json else print_metrics(found)
    leave_group()


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="module:function, or a recipe.json.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    grid: Annotated[list[str] | None, typer.Option(metavar="FIELD=V1,V2", help="Values to try; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    jobs: Jobs = 1,
    set_: Set = None,
) -> None:
    """Train every combination of a grid and seeds, resumable, and print a table. Chooses nothing by test data."""
    from ..experiments.grid import expand_grid, parse_grid, parse_seeds, refuse_seed
    from ..experiments.runner import run_trials
    from ..results.report import summarise, tabulated, write_report

    refuse_seed(setting.partition("=")[0] for setting in set_ or [])
    trials = expand_grid(_recipe(recipe, set_), parse_grid(grid or []), parse_seeds(seeds))
    run_trials(trials, out, jobs)
    summaries = summarise([out])
    write_report(out, summaries)
    print(tabulated(summaries).markdown())


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold them.")],
    out: Annotated[Path | None, typer.Option(help="Also write summary.json, report.md and report.png here.")] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write report.html, one page with pictures of the networks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Mean and standard deviation over seeds of finished runs; with --html a page that shows their networks."""
    from ..results.aggregate import over_splits
    from ..results.report import summarise, tabulated, write_report

    summaries = summarise(folders)
    if out is not None:
        write_report(out, summaries)
    if html:
        _write_html(folders, (out or Path()) / "report.html")
    summaries += over_splits(summaries)
    print_json([one.to_json() for one in summaries]) if as_json else print(tabulated(summaries).markdown())


def _write_html(folders: list[Path], path: Path) -> None:
    from ..results.comparison import comparisons
    from ..results.page import write_page
    from ..results.report import find_runs
    from ..run.portrait import portray

    compared = comparisons(find_runs(folders))
    galleries = {one.digest: portray([runs[0] for runs in one.runs.values()][:4]) for one in compared}
    write_page(path, compared, galleries)
    print(f"{path}: open it in a browser", file=sys.stderr)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="An experiment; without one, the list.")] = None,
    out: Annotated[Path | None, typer.Option(help="Its folder; runs/NAME by default.")] = None,
    jobs: Jobs = 1,
    set_: Set = None,
) -> None:
    """Repeat a whole experiment: coefficients chosen on held-out training images, then several seeds on test."""
    from ..config import override
    from ..experiments.reproduce import current_results, run_experiment
    from ..experiments.table import EXPERIMENTS, find_experiment
    from ..results.aggregate import over_splits
    from ..results.report import tabulated

    if name is None:
        for known, experiment in EXPERIMENTS.items():
            paper = f" The paper: {experiment.paper}." if experiment.paper else ""
            ours = current_results(experiment, Path("runs") / known)
            compared = ", ".join(variant.recipe for variant in experiment.compared)
            print(f"{known}: {experiment.baseline.recipe} against {compared}.{paper} Ours, in runs/{known}: {ours}")
        return
    experiment = find_experiment(name)
    change = lambda recipe: override(recipe, set_ or [])  # noqa: E731
    summaries = run_experiment(experiment, out or Path("runs") / name, jobs, change=change)
    print(tabulated([*summaries, *over_splits(summaries)]).markdown())
    if paper := experiment.paper:
        print(f"\nThe paper's, not measured here: {paper}")


@app.command(name="recipes")
def recipes_(as_json: Json = False) -> None:
    """Lists the recipes of this package, each with the first line of its docstring."""
    from ..recipes import summaries

    found = summaries()
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for address, line in found.items():
        print(f"{address:<{width}}  {line}")


@app.command(name="env")
def env_() -> None:
    """Describes this machine and installation, as every run records them."""
    from ..env import describe_env

    print_json(describe_env())


def _recipe(address: str, settings: list[str] | None) -> Any:
    from ..config import from_json, override
    from ..data import is_drawn
    from ..data.datasets import OWN_VIDEOS, VIDEO_SETS, find_image_set
    from ..recipes import load_recipe

    if address.endswith(".json"):
        path = Path(address)
        if not path.is_file():
            raise UsageError(f"there is no recipe file {path}")
        recipe = from_json(path.read_text(encoding="utf-8"))
    else:
        sys.path.insert(0, os.getcwd())
        recipe = load_recipe(address)
    recipe = override(recipe, settings or [])
    check_model(recipe.model.name)
    if recipe.video is None:
        for data in (recipe.data, *(one.data for one in recipe.evals if one.data is not None)):
            # A typo is found before torch is imported. Of a video set the network's own error says more.
            if data.name not in (*VIDEO_SETS, *OWN_VIDEOS) and not is_drawn(data):
                find_image_set(data.name)
    return recipe
