"""sweep: many variants of a recipe, by a grid or a search, here or on a cluster."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import UsageError
from .app import Jobs, Json, Set, app
from .names import check_model, named_recipe
from .printing import print_json, print_report, tell

if TYPE_CHECKING:
    from ..experiments.grid import Trial
    from ..experiments.runner import Launch
    from ..results.aggregate import Summary


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="module:function, or a recipe.json.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    grid: Annotated[list[str] | None, typer.Option(metavar="FIELD=V1,V2", help="Values to try; repeatable.")] = None,
    search: Annotated[
        Literal["random", "optuna"] | None, typer.Option(help="Search --space instead of a grid.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=LOW..HIGH[:log]", help="Of a search; also FIELD=V1,V2. Repeatable."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Combinations that a search tries.")] = 20,
    metric: Annotated[str | None, typer.Option(help="What Optuna improves, on held-out training data.")] = None,
    search_seed: Annotated[int, typer.Option(min=0, help="Of the search's own draws.")] = 0,
    plain: Annotated[bool, typer.Option("--plain", help="Also the recipe without VCReg.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2.")] = "0",
    jobs: Jobs = 1,
    launcher: Annotated[Literal["local", "slurm"], typer.Option(help="Where the runs happen.")] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of sbatch, such as partition=gpu or gpus_per_node=1; repeatable."),
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Train a grid of settings, or a search's proposals, with every seed; resumable; prints a table.

    A grid and a random search choose nothing. Optuna chooses by held-out training data, never by test data.

        vcreg sweep digits:convnext_atto_vcreg --out runs/s --plain --grid vcreg.alpha=0.16,0.64 --seeds 0,1,2

        vcreg sweep digits:convnext_atto_vcreg --out runs/o --search optuna --metric probe_top1
        --space vcreg.alpha=0.1..10:log --space vcreg.beta=0.01..1:log --set data.val_fraction=0.2
    """
    from ..experiments.grid import expand_grid, parse_grid, parse_seeds, refuse_seed
    from ..experiments.search import draw_random, held_out, parse_space, plain_trials, trials_of

    refuse_seed(setting.partition("=")[0] for setting in set_ or [])
    base, numbers = named_recipe(recipe, set_), parse_seeds(seeds)
    if bool(search) != bool(space) or (search and grid):
        raise UsageError("a search takes --search and --space, a grid takes --grid alone")
    if (metric is not None) != (search == "optuna"):
        raise UsageError("--search optuna needs --metric, such as probe_top1, and nothing else takes it")
    wanted = parse_space(space or [], base)
    todo: list[Trial] = []
    combinations: list[tuple[tuple[str, str], ...]] = [()]
    if search == "optuna":
        base = held_out(base)
        if plain and not all(path == "where" or path.startswith("vcreg") for path in wanted):
            raise UsageError(
                "--plain with Optuna: search the settings of the regularizer alone, so that both are alike"
            )
    elif search == "random":
        combinations = draw_random(wanted, trials, search_seed)
        todo = trials_of(base, combinations, numbers)
    else:
        todo = expand_grid(base, parse_grid(grid or []), numbers)
        combinations = list(dict.fromkeys(trial.settings for trial in todo))
    if plain:
        todo = [*plain_trials(base, combinations, numbers), *todo]
    for name in {trial.recipe.model.name for trial in todo}:
        check_model(name)
    log = tell if as_json else print
    run = partial(_run, out=out, jobs=jobs, log=log, launch=_launch(launcher, slurm, out))
    if todo:
        run(todo)
    best = None
    if search == "optuna":
        from ..experiments.search import search_with_optuna

        best = search_with_optuna(
            base, wanted, metric=str(metric), count=trials, at_once=jobs, seeds=numbers, out=out, run=run,
            seed=search_seed,
        )  # fmt: skip
    _report(out, best, as_json)


def _run(todo: Sequence[Trial], out: Path, jobs: int, log: Callable[[str], None], launch: Launch | None) -> None:
    from ..experiments.runner import run_trials

    run_trials(todo, out, jobs, log, launch)


def _launch(launcher: str, settings: list[str] | None, out: Path) -> Launch | None:
    if launcher == "local":
        if settings:
            raise UsageError("--slurm goes with --launcher slurm")
        return None
    given = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--slurm is NAME=VALUE, got {setting!r}")
        given[name] = value
    from ..experiments.slurm import Slurm

    return Slurm(out / "slurm", given)


def _report(out: Path, best: tuple[Summary, Trial] | None, as_json: bool) -> None:
    from ..results.report import summarise, tabulated, write_report

    summaries = summarise([out])
    write_report(out, summaries)
    told = None if best is None else {"settings": dict(best[1].settings), **best[0].to_json()}
    if as_json:
        print_json({"summaries": [one.to_json() for one in summaries], "best": told})
        return
    print_report(tabulated(summaries))
    if best is not None:
        found, trial = best
        words = shlex.join(word for path, value in trial.settings for word in ("--set", f"{path}={value}"))
        print(f"best {found.quantity.metric} on held-out training data, {found.shown}: {words}")
