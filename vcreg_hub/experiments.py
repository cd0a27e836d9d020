"""Experiments: coefficients picked on held-out training images, then plain against VCReg on test, over several seeds.

`vcreg reproduce NAME` walks one; each step resumes. The table is short because an experiment is a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .config import Recipe
from .errors import unknown_name
from .recipes import load_recipe
from .rundir import write_json
from .study import cells, check, choose, run_cells, summarise, write_report

Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """plain / vcreg: recipe addresses. grid: what is searched with `selection_seeds`, judged by `metric` on the
    validation split. seeds: of the final runs; they share none with the selection. paper: what the paper got."""

    plain: str
    vcreg: str
    grid: Mapping[str, Sequence[str]]
    metric: str
    selection_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    paper: str = ""


# The paper's range for images (Appendix A).
_ALPHAS = ("1.28", "0.64", "0.32", "0.16")
_BETAS = ("0.16", "0.08", "0.04", "0.02", "0.01")

EXPERIMENTS = {
    "fashion_mnist": Experiment(
        plain="fashion_mnist:superclass",
        vcreg="fashion_mnist:superclass_vcreg",
        grid={"vcreg.alpha": _ALPHAS, "vcreg.beta": _BETAS},
        metric="probe_top1",
        selection_seeds=(100, 101),
        # Not 0 to 4: their test numbers were seen with the augmented recipes before this setting was chosen.
        seeds=(5, 6, 7, 8, 9),
        paper="Table 5 does the same with CIFAR-100 and ConvNeXt-Atto: 60.7% plain, 72.9% VCReg",
    ),
    "fashion_mnist_augmented": Experiment(
        plain="fashion_mnist:superclass_augmented",
        vcreg="fashion_mnist:superclass_augmented_vcreg",
        grid={"vcreg.alpha": _ALPHAS[:3], "vcreg.beta": _BETAS[:4]},
        metric="probe_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        paper="Table 5 does the same with CIFAR-100 and ConvNeXt-Atto: 60.7% plain, 72.9% VCReg",
    ),
    # The two models whose weights ship with this package: those of the first seed, whatever the other seeds give.
    "resnet32_cifar_vcreg.fashion_mnist": Experiment(
        plain="fashion_mnist:resnet32_cifar",
        vcreg="fashion_mnist:resnet32_cifar_vcreg",
        grid={"vcreg.alpha": ("1.28", "0.32"), "vcreg.beta": ("0.16", "0.02")},
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    ),
    "convnext_zepto_rms_vcreg.fashion_mnist": Experiment(
        plain="fashion_mnist:convnext_zepto_rms",
        vcreg="fashion_mnist:convnext_zepto_rms_vcreg",
        grid={"vcreg.alpha": ("1.28", "0.32"), "vcreg.beta": ("0.16", "0.02")},
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    ),
}


def reproduce(
    name: str, out: Path, jobs: int = 1, say: Say = print, change: Callable[[Recipe], Recipe] = lambda recipe: recipe
) -> list[dict[str, Any]]:
    """Walk an experiment below `out`: selection/, then final/; returns the summary of the final runs.

    change: applied to every recipe (the command line's `--set`). Errors: UnknownNameError; VCRegError naming the runs
    that failed.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    experiment = EXPERIMENTS[name]
    plain, regularized = change(load_recipe(experiment.plain)), change(load_recipe(experiment.vcreg))
    say(f"selection: {experiment.metric} on held-out training images")
    searched = replace(regularized, eval=replace(regularized.eval, split="val"))
    check(run_cells(cells(searched, experiment.grid, experiment.selection_seeds), out / "selection", jobs, say))
    rows = summarise([out / "selection"])
    write_report(out / "selection", rows)
    best = choose(rows, experiment.metric)
    say(f"chosen: {best['label']} ({experiment.metric} {best['mean']:.2f} {best['unit']} on val)")
    write_json(out / "chosen.json", dict(best))

    settings = dict(part.split("=") for part in best["label"].split(","))
    chosen = {path: [settings[path.rpartition(".")[2]]] for path in experiment.grid}
    todo = cells(plain, {}, experiment.seeds, "plain") + cells(regularized, chosen, experiment.seeds, "vcreg")
    check(run_cells(sorted(todo, key=lambda cell: cell.recipe.train.seed), out / "final", jobs, say))
    final = summarise([out / "final"])
    write_report(out / "final", final)
    return final
