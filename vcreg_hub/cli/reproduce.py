"""reproduce: the tables and figures of the paper, and single experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, unknown_name
from .app import Jobs, Json, Set, app
from .printing import print_json, print_report, tell

if TYPE_CHECKING:
    from ..experiments.experiment import Experiment
    from ..experiments.targets import Scale


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="table1 to table8, fig2 to fig5, or an experiment.")] = None,
    scale: Annotated[str | None, typer.Option(help="Of a table or figure: small (the default) or full.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many final seeds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say: runs, hours, missing data.")] = False,
    out: Annotated[Path | None, typer.Option(help="Its folder; runs/NAME, of a table or figure runs.")] = None,
    jobs: Jobs = 1,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Repeat a table or figure of the paper, or one experiment; run it again to resume.

    Coefficients are chosen on held-out training data, then several seeds are run on test. Without a name, the list.
    """
    from ..experiments.targets import TARGETS

    if scale not in (None, "small", "full"):
        raise unknown_name("scale", scale, ("small", "full"))
    if name is None:
        _list(as_json)
    elif name in TARGETS:
        chosen: Scale = "full" if scale == "full" else "small"
        _reproduce_target(name, chosen, seeds, dry_run, out or Path("runs"), jobs, set_ or [], as_json)
    elif scale is not None:
        raise UsageError(f"--scale is of {', '.join(TARGETS)}; {name} is none of them")
    else:
        _reproduce_experiment(name, seeds, dry_run, out or Path("runs") / name, jobs, set_ or [], as_json)


def _list(as_json: bool) -> None:
    from ..experiments.reproduce import current_results
    from ..experiments.table import EXPERIMENTS
    from ..experiments.targets import TARGETS

    ours = {known: current_results(one, Path("runs") / known) for known, one in EXPERIMENTS.items()}
    if as_json:
        print_json({known: _told(one) | {"ours": ours[known]} for known, one in EXPERIMENTS.items()})
        return
    for known, target in TARGETS.items():
        print(f"{known}: {target.title}. Small: {', '.join(target.experiments('small')) or 'a measurement of time'}")
    for known, experiment in EXPERIMENTS.items():
        paper = f" The paper: {experiment.paper}." if experiment.paper else ""
        compared = ", ".join(variant.recipe for variant in experiment.compared)
        print(f"{known}: {experiment.baseline.recipe} against {compared}.{paper} Ours, in runs/{known}: {ours[known]}")


def _reproduce_target(
    name: str, scale: Scale, seeds: int | None, dry_run: bool, out: Path, jobs: int, settings: list[str], as_json: bool
) -> None:
    from ..config import override
    from ..experiments.reproduce import run_target
    from ..experiments.targets import find_target

    target = find_target(name)
    if dry_run:
        experiments = target.experiments(scale)
        tell(f"{name}, {scale}: {target.title}")
        if target.bench:
            tell(f"minutes on {'the CPU' if scale == 'small' else 'one GPU'}")
        _print_estimates(experiments, seeds, {label: out / label for label in experiments}, settings, as_json)
        return
    change = lambda recipe: override(recipe, settings)  # noqa: E731
    table = run_target(name, scale, out, seeds=seeds, jobs=jobs, log=tell if as_json else print, change=change)
    print_json(table.json()) if as_json else print_report(table)
    tell(f"written: {out / f'{name}.{scale}'}.md, .html and .png")


def _reproduce_experiment(
    name: str, seeds: int | None, dry_run: bool, out: Path, jobs: int, settings: list[str], as_json: bool
) -> None:
    from ..config import override
    from ..experiments.reproduce import run_experiment
    from ..experiments.table import EXPERIMENTS
    from ..experiments.targets import TARGETS, with_seeds
    from ..results.aggregate import over_splits
    from ..results.report import tabulated

    if name not in EXPERIMENTS:
        raise unknown_name("target or experiment", name, [*TARGETS, *EXPERIMENTS])
    experiment = EXPERIMENTS[name]
    if dry_run:
        _print_estimates({name: experiment}, seeds, {name: out}, settings, as_json)
        return
    if seeds is not None:
        experiment = replace(experiment, seeds=with_seeds(experiment, seeds))
    change = lambda recipe: override(recipe, settings)  # noqa: E731
    summaries = run_experiment(experiment, out, jobs, tell if as_json else print, change)
    summaries = [*summaries, *over_splits(summaries)]
    if as_json:
        print_json(_told(experiment) | {"summaries": [one.to_json() for one in summaries]})
        return
    print_report(tabulated(summaries))
    if paper := experiment.paper:
        print(f"\nThe paper's, not measured here: {paper}")


def _print_estimates(
    experiments: Mapping[str, Experiment],
    seeds: int | None,
    folders: Mapping[str, Path],
    settings: list[str],
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from ..experiments.estimate import estimate
    from ..experiments.targets import with_seeds

    found = {}
    for label, experiment in experiments.items():
        if seeds is not None:
            experiment = replace(experiment, seeds=with_seeds(experiment, seeds))
        found[label] = estimate(experiment, folders[label], tuple(settings))
    if as_json:
        print_json({label: asdict(one) for label, one in found.items()})
        return
    for label, one in found.items():
        print(f"{label}: {one}")
    missing = dict.fromkeys(text for one in found.values() for text in one.missing)
    for text in missing:
        print(f"missing data: {text}")
    if missing:
        print("VCREG_DATA_DIR names a folder that holds a folder of each; --set data.root=DIR is the training set")


def _told(experiment: Experiment) -> dict[str, str | list[str]]:
    compared = [variant.recipe for variant in experiment.compared]
    return {"baseline": experiment.baseline.recipe, "compared": compared, "paper": experiment.paper}
