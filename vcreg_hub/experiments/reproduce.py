"""Walks an experiment: each variant's grid searched on held-out training data, then all variants on test.

Layout: <out>/pretraining/, <out>/selection/ (a folder below it for each variant, where several are searched),
chosen.json, <out>/final/<variant>[,axis]/seed<k>/. Each step resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Recipe, override
from ..errors import RunFolderError, UsageError
from ..files import write_json
from ..recipes import load_recipe
from ..results.aggregate import Summary, recipe_id
from ..results.report import read_summary, summarise, write_report
from ..results.tables import Table
from .boundaries import draw_averaged
from .comparison import OVERHEAD, TIMINGS, read_outcomes, write_comparison
from .experiment import Experiment, Variant
from .grid import Trial, expand_grid
from .runner import run_trials
from .targets import Scale, find_target, with_seeds


def run_experiment(
    experiment: Experiment,
    out: Path,
    jobs: int = 1,
    log: Callable[[str], None] = print,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> list[Summary]:
    """Walk an experiment below `out`; returns the summaries of the final runs.

    change: applied to every variant's recipe (the command line's `--set`), not to a pretraining's. Errors: VCRegError
    naming the runs that failed.
    """
    walk = _Walk(experiment, out, jobs, log)
    start = walk.pretrain()
    shared = [*start, *experiment.settings]
    recipes = {
        one.name: change(override(load_recipe(one.recipe), [*shared, *one.settings])) for one in experiment.variants
    }
    chosen = {one.name: walk.search(one, recipes[one.name]) for one in experiment.variants}
    return walk.finish(chosen)


def run_target(
    name: str,
    scale: Scale,
    out: Path,
    *,
    seeds: int | None = None,
    jobs: int = 1,
    log: Callable[[str], None] = print,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> Table:
    """Run what a table or figure of the paper needs, each experiment below its own name in `out`, and set the numbers
    beside the paper's: <out>/<name>.<scale>.md, .html and .png. Returns that table.

    seeds: how many final seeds; None is what each experiment says. Errors: those of `run_experiment`; UsageError for a
    scale without experiments.
    """
    target = find_target(name)
    if target.bench:
        _time_layers(scale, out / OVERHEAD, log)
    for label, experiment in target.experiments(scale).items():
        chosen = experiment if seeds is None else replace(experiment, seeds=with_seeds(experiment, seeds))
        log(f"{name}: {label}")
        run_experiment(chosen, out / label, jobs, log, change)
    return write_comparison(name, target, scale, read_outcomes(target, scale, out), out)


def _time_layers(scale: Scale, folder: Path, log: Callable[[str], None]) -> None:
    """Measure Table 8 on the CPU (`small`) or a GPU (`full`), unless that is there already."""
    path = folder / TIMINGS[scale]
    if path.is_file():
        log(f"{path} is there already")
        return
    from ..bench.overhead import overhead

    write_json(path, overhead(path.stem, blocks=(), log=log))


def current_results(experiment: Experiment, out: Path) -> str:
    """The results of an experiment below `out` so far, the judged metric alone: `plain 60.10 ± 1.20 %, ...`, or
    "not yet run". Of a split axis only the mean over the splits counts."""
    try:
        found = [one for one in read_summary(out / "final") if one.quantity.metric == experiment.metric]
    except RunFolderError:
        return "not yet run"
    means = [one for one in found if one.folds]
    return ", ".join(f"{one.group.label} {one.shown} (n = {one.n})" for one in means or found)


@dataclass(frozen=True)
class _Walk:
    experiment: Experiment
    out: Path
    jobs: int
    log: Callable[[str], None]

    def pretrain(self) -> list[str]:
        """Train what the experiment starts from; the settings that make a recipe start there."""
        address = self.experiment.pretraining
        if address is None:
            return []
        trial = Trial("pretraining", load_recipe(address))
        self.log(f"pretraining: {address}")
        run_trials([trial], self.out, self.jobs, self.log)
        return [f"model.pretrained={json.dumps(str(self.out / trial.path))}"]

    def search(self, variant: Variant, recipe: Recipe) -> Recipe:
        """The recipe with the values of the variant's grid that are best on held-out training data."""
        if not variant.grid:
            return recipe
        metric, several = self.experiment.metric, sum(bool(one.grid) for one in self.experiment.variants) > 1
        folder, of, suffix = self.out / "selection", "", ""
        if several:
            folder, of, suffix = folder / variant.name, f" of {variant.name}", f".{variant.name}"
        self.log(f"selection{of}: {metric} on held-out training data")
        searched = override(recipe, [*self.experiment.holding_out, "eval.split=val"])
        trials = expand_grid(searched, variant.grid, self.experiment.selection_seeds)
        run_trials(trials, folder, self.jobs, self.log)
        summaries = summarise([folder])
        write_report(folder, summaries)
        settings = {recipe_id(trial.recipe): trial.settings for trial in trials}
        best = _choose(summaries, metric, among=settings)
        self.log(f"chosen: {best.group.label} ({metric} {best.mean:.2f} {best.quantity.unit} on val)")
        found = settings[best.group.id]
        write_json(self.out / f"chosen{suffix}.json", best.to_json() | {"settings": dict(found)})
        return override(recipe, [f"{path}={value}" for path, value in found])

    def finish(self, recipes: dict[str, Recipe]) -> list[Summary]:
        """Run every variant on the test split with all seeds and values of the axis."""
        experiment = self.experiment
        axis, seeds = experiment.axis, experiment.seeds
        trials = {name: expand_grid(recipe, axis, seeds, name) for name, recipe in recipes.items()}
        todo = [trial for of_variant in trials.values() for trial in of_variant]
        _refuse_repeated(todo)
        run_trials(sorted(todo, key=lambda trial: trial.recipe.train.seed), self.out / "final", self.jobs, self.log)
        beside = {trial.settings: recipe_id(trial.recipe) for trial in trials[experiment.baseline.name]}
        baselines = {
            recipe_id(trial.recipe): beside[trial.settings]
            for variant in experiment.compared
            for trial in trials[variant.name]
        }
        final = summarise([self.out / "final"], baselines)
        write_report(self.out / "final", final)
        if experiment.boundaries:
            draw_averaged(trials, self.out / "final", final)
        return final


def _refuse_repeated(trials: list[Trial]) -> None:
    seen: dict[tuple[str, int], Trial] = {}
    for trial in trials:
        first = seen.setdefault((recipe_id(trial.recipe), trial.recipe.train.seed), trial)
        if first is not trial:
            raise UsageError(f"two variants are the same run: {trial.path} is {first.path}")


def _choose(summaries: Sequence[Summary], metric: str, among: Collection[str]) -> Summary:
    """The summary with the best mean of `metric` on held-out training data, of groups whose ids are `among`.

    Errors: UsageError for an absent metric.
    """
    split = "val"  # never test
    named = [one for one in summaries if one.quantity.metric == metric and one.quantity.split == split]
    candidates = [one for one in named if one.group.id in among]
    if not candidates:
        raise UsageError(
            f"no run reports {metric} on {split}; there are "
            + ", ".join(sorted({one.quantity.metric for one in summaries}))
        )
    sign = 1 if candidates[0].quantity.higher_is_better else -1
    return max(candidates, key=lambda one: sign * one.mean)
