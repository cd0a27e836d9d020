"""train, eval, report, reproduce, recipes, env."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import continued
from ..errors import StoppedError, some
from .app import Json, Out, Overwrite, Set, Smoke, app
from .names import check_tracker_name, named_recipe
from .printing import leave_group, print_json, print_metrics, print_report, print_table, tell


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="module:function, a recipe.json to repeat, or a run's folder to go on with.")
    ],
    out: Out = None,
    set_: Set = None,
    smoke: Smoke = False,
    overwrite: Overwrite = False,
    tracker: Annotated[str | None, typer.Option(help="Any tracker accelerate knows, such as tensorboard.")] = None,
    bar: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the data, build the network, and stop there.")
    ] = False,
    continue_with: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Go on with an unfinished run under another value."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate a recipe. Run it again to resume. Also under accelerate launch -m vcreg_hub."""
    check_tracker_name(tracker)
    chosen = named_recipe(recipe, set_)
    out = Path(recipe) if out is None and Path(recipe).is_dir() else out
    continued(chosen, continue_with or [])
    if not bar:
        os.environ.setdefault("TQDM_DISABLE", "1")
    # After the recipe: a typo in it is found before torch is imported.
    from ..run import preview, smoke_test
    from ..run import train as run

    if smoke:
        chosen = smoke_test(chosen)
    first = os.environ.get("RANK", "0") == "0"
    if dry_run:
        parts = preview(chosen) | {"run folder": str(out or "a dated one below runs/")}
        if first:
            print_json(parts) if as_json else print_table(
                [{"part": part, "here": text} for part, text in parts.items()]
            )
            tell("nothing was trained or written; the same command without --dry-run trains")
        leave_group()
        return
    log = tell if as_json else print
    try:
        folder = run(chosen, out, overwrite=overwrite, bar=bar and sys.stderr.isatty(), log=log, tracker=tracker,
                     continue_with=continue_with or [])  # fmt: skip
    except StoppedError:
        leave_group()
        raise
    if first:
        metrics = folder.results()["metrics"]
        if as_json:
            print_json({"folder": str(folder.path), "smoke_test": smoke, "metrics": [] if smoke else metrics})
        elif smoke:  # two steps of batch statistics can make any number, such as a loss of millions
            names = ", ".join(dict.fromkeys(row["metric"] for row in metrics))
            print(f"smoke test passed: trained, then evaluated {names}. Their values mean nothing and are not shown")
        else:
            print_metrics(metrics, chosen)
        if not as_json:
            print(f"run folder: {shlex.quote(str(folder.path))}")
    leave_group()


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
    from ..results.report import missing_runs, summarise, tabulated, write_report

    summaries = summarise(folders)
    if missing := missing_runs(folders):
        tell(f"{len(missing)} planned runs are not complete: {some(missing, most=20)}")
    if out is not None:
        write_report(out, summaries)
    if html:
        _write_html(folders, (out or Path()) / "report.html")
    summaries += over_splits(summaries)
    print_json([one.to_json() for one in summaries]) if as_json else print_report(tabulated(summaries))


def _write_html(folders: list[Path], path: Path) -> None:
    from ..results.comparison import comparisons
    from ..results.page import write_page
    from ..results.report import find_runs
    from ..run.portrait import portray

    compared = comparisons(find_runs(folders))
    galleries = {one.digest: portray([runs[0] for runs in one.runs.values()][:4]) for one in compared}
    write_page(path, compared, galleries)
    print(f"{path}: open it in a browser", file=sys.stderr)


@app.command(name="recipes")
def recipes_(
    name: Annotated[
        str | None, typer.Argument(help="module:function, or a recipe.json; without one, the list.")
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Lists the recipes, each with the first line of its docstring; with a name, every setting and its meaning."""
    from ..config import to_dict
    from ..config.meanings import settings_of
    from ..recipes import summaries

    if name is not None:
        recipe = named_recipe(name, set_)
        if as_json:
            print_json(to_dict(recipe))
        else:
            print_table(
                [{"setting": path, "value": value, "meaning": text} for path, value, text in settings_of(recipe)]
            )
        return
    found = summaries()
    if as_json:
        print_json(found)
        return
    print_table([{"recipe": address, "about": line} for address, line in found.items()])


@app.command(name="env")
def env_() -> None:
    """Describes this machine and installation, as every run records them."""
    from ..env import describe_env

    print_json(describe_env())
