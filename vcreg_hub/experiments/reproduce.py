"""Experiments: coefficients picked on held-out training data, then plain against VCReg on test, over several seeds.

`vcreg reproduce NAME` walks one; each step resumes. The table is short because an experiment is a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Recipe, override
from ..errors import RunFolderError, unknown_name
from ..files import write_json
from ..paper import PAPER_NUMBERS
from ..recipes import load_recipe
from ..results.summary import choose, read_summary, shown, summarise, write_report
from .runner import Cell, cells, check, run_cells

Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """plain / vcreg: recipe addresses. grid: what is searched with `selection_seeds`, judged by `metric` on the
    validation split. seeds: of the final runs; they share none with the selection. paper: what the paper got.

    holding_out: settings of the search alone, where the recipe itself holds nothing out. axis: what the final runs vary
    besides the seed, such as the data set's splits; the search sees the recipe's own value of it. pretraining: address
    of the recipe whose network all of them start from, trained first, once, with its own seed and settings.
    """

    plain: str
    vcreg: str
    grid: Mapping[str, Sequence[str]]
    metric: str
    selection_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    paper: str = ""
    holding_out: tuple[str, ...] = ()
    axis: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pretraining: str | None = None


# The paper's range for images (Appendix A).
_ALPHAS = ("1.28", "0.64", "0.32", "0.16")
_BETAS = ("0.16", "0.08", "0.04", "0.02", "0.01")

# The paper's grid for video, its splits and its levels of noise (Appendix C.2, Figures 3 and 4).
_VIDEO_GRID = {"vcreg.alpha": ("1", "3", "5"), "vcreg.beta": ("0.1", "0.3", "0.5")}
# The paper's grid is for networks that are fine-tuned. One that starts from random weights learns late under it (alpha
# 3, beta 0.3: 25% of the training clips after 27 of 40 epochs, plain 72%), so the search goes down to images' values.
_WEAKER_GRID = {"vcreg.alpha": ("0.16", "1", "3"), "vcreg.beta": ("0.02", "0.1", "0.3")}
_SPLITS = {"video.split": ("1", "2", "3")}
_SIGMAS = {"video.noise": ("0", "1", "1.5", "2")}
_HELD_OUT = ("data.val_fraction=0.2",)
# Its rows: plain, VCReg.
_TABLE_2 = {row.architecture: (row.plain, row.vcreg) for row in PAPER_NUMBERS if row.table == "Table 2"}


def _superclass(
    recipe: str,
    seeds: tuple[int, ...],
    selection_seeds: tuple[int, ...] = (100,),
    alphas: tuple[str, ...] = _ALPHAS,
    betas: tuple[str, ...] = _BETAS,
) -> Experiment:
    return Experiment(
        plain=f"fashion_mnist:{recipe}",
        vcreg=f"fashion_mnist:{recipe}_vcreg",
        grid={"vcreg.alpha": alphas, "vcreg.beta": betas},
        metric="probe_top1",
        selection_seeds=selection_seeds,
        seeds=seeds,
        paper="Table 5 does the same with CIFAR-100 and ConvNeXt-Atto: 60.7% plain, 72.9% VCReg",
    )


def _shipped(network: str) -> Experiment:
    return Experiment(
        plain=f"fashion_mnist:{network}",
        vcreg=f"fashion_mnist:{network}_vcreg",
        grid={"vcreg.alpha": ("1.28", "0.32"), "vcreg.beta": ("0.16", "0.02")},
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    )


def _hmdb51(network: str) -> Experiment:
    plain, vcreg = _TABLE_2[network]
    return Experiment(
        plain=f"hmdb51:{network}",
        vcreg=f"hmdb51:{network}_vcreg",
        grid=_VIDEO_GRID,
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper=f"Table 2: {plain}% plain, {vcreg}% VCReg, mean of three splits",
        holding_out=_HELD_OUT,
        axis=_SPLITS,
    )


def _noise(
    network: str,
    paper: str = "",
    grid: Mapping[str, Sequence[str]] = _VIDEO_GRID,
    pretraining: str | None = None,
    seeds: tuple[int, ...] = (0,),
) -> Experiment:
    """Coefficients are picked at the recipe's own level, sigma 1: the paper does not say at which it did."""
    return Experiment(
        plain=f"noise:{network}",
        vcreg=f"noise:{network}_vcreg",
        grid=grid,
        metric="top1",
        selection_seeds=(100,),
        seeds=seeds,
        paper=paper,
        holding_out=_HELD_OUT,
        axis=_SIGMAS,
        pretraining=pretraining,
    )


EXPERIMENTS = {
    # Not 0 to 9: their test numbers were seen with the other two settings before this one was chosen.
    "fashion_mnist": _superclass("superclass", seeds=(10, 11, 12, 13, 14)),
    # Not 0 to 4, likewise.
    "fashion_mnist_resized": _superclass("superclass_resized", seeds=(5, 6, 7, 8, 9), selection_seeds=(100, 101)),
    "fashion_mnist_augmented": _superclass(
        "superclass_augmented", seeds=(0, 1, 2, 3, 4), alphas=_ALPHAS[:3], betas=_BETAS[:4]
    ),
    # The image models whose weights ship with this package: those of the first seed, whatever the other seeds give.
    "resnet32_cifar_vcreg.fashion_mnist": _shipped("resnet32_cifar"),
    "convnext_zepto_rms_vcreg.fashion_mnist": _shipped("convnext_zepto_rms"),
    "action_shapes": Experiment(
        plain="action_shapes:videomae_tiny",
        vcreg="action_shapes:videomae_tiny_vcreg",
        grid=_WEAKER_GRID,
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 does the same with HMDB51 and networks pretrained on Kinetics",
        holding_out=_HELD_OUT,
        axis=_SPLITS,
    ),
    "action_shapes_vivit": Experiment(
        plain="action_shapes:vivit_tiny",
        vcreg="action_shapes:vivit_tiny_vcreg",
        grid={"vcreg.alpha": ("0.16",), "vcreg.beta": ("0.02", "0.1")},
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 does the same with HMDB51 and a ViViT-B pretrained on Kinetics",
        holding_out=_HELD_OUT,
    ),
    "action_shapes_finetuned": Experiment(
        plain="action_shapes:videomae_tiny_finetuned",
        vcreg="action_shapes:videomae_tiny_finetuned_vcreg",
        grid=_VIDEO_GRID,
        metric="top1",
        selection_seeds=(100, 101),
        seeds=(0, 1, 2),
        paper="Table 2 does the same with HMDB51 and networks pretrained on Kinetics",
        holding_out=_HELD_OUT,
        axis=_SPLITS,
        pretraining="action_shapes:videomae_tiny_pretraining",
    ),
    "noise_action_shapes": _noise(
        "action_shapes",
        "Figures 3 and 4 do the same with HMDB51",
        # The weak end of the grid above: what is stronger stayed at chance without noise already.
        {"vcreg.alpha": ("0.16",), "vcreg.beta": ("0.02", "0.1")},
    ),
    "noise_action_shapes_finetuned": _noise(
        "action_shapes_finetuned",
        "Figures 3 and 4 do the same with HMDB51",
        pretraining="action_shapes:videomae_tiny_pretraining",
        seeds=(0, 1, 2),
    ),
    **{f"hmdb51_{network}": _hmdb51(network) for network in _TABLE_2},
    **{
        f"noise_{network}": _noise(network, f"Figure {figure}, drawn without numbers")
        for figure, size in ((3, "small"), (4, "base"))
        for network in (f"videomae_{size}", f"videomaev2_{size}")
    },
}


def reproduce(
    name: str, out: Path, jobs: int = 1, say: Say = print, change: Callable[[Recipe], Recipe] = lambda recipe: recipe
) -> list[dict[str, Any]]:
    """Walk an experiment below `out`: selection/, then final/; returns the summary of the final runs.

    change: applied to both recipes (the command line's `--set`), not to a pretraining's. Errors: UnknownNameError;
    VCRegError naming the runs that failed.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    experiment = EXPERIMENTS[name]
    start = _pretrained(experiment, out, jobs, say)
    plain, regularized = (change(override(load_recipe(r), start)) for r in (experiment.plain, experiment.vcreg))
    say(f"selection: {experiment.metric} on held-out training data")
    searched = override(regularized, [*experiment.holding_out, "eval.split=val"])
    check(run_cells(cells(searched, experiment.grid, experiment.selection_seeds), out / "selection", jobs, say))
    rows = summarise([out / "selection"])
    write_report(out / "selection", rows)
    best = choose(rows, experiment.metric)
    say(f"chosen: {best['label']} ({experiment.metric} {best['mean']:.2f} {best['unit']} on val)")
    write_json(out / "chosen.json", dict(best))

    values = dict(part.split("=") for part in best["label"].split(","))
    chosen = override(regularized, [f"{path}={values[path.rpartition('.')[2]]}" for path in experiment.grid])
    todo = [
        *cells(plain, experiment.axis, experiment.seeds, "plain"),
        *cells(chosen, experiment.axis, experiment.seeds, "vcreg"),
    ]
    check(run_cells(sorted(todo, key=lambda cell: cell.recipe.train.seed), out / "final", jobs, say))
    final = summarise([out / "final"])
    write_report(out / "final", final)
    return final


def _pretrained(experiment: Experiment, out: Path, jobs: int, say: Say) -> list[str]:
    """Train what the experiment starts from; the settings that make a recipe start there."""
    if experiment.pretraining is None:
        return []
    cell = Cell("pretraining", load_recipe(experiment.pretraining))
    say(f"pretraining: {experiment.pretraining}")
    check(run_cells([cell], out, jobs, say))
    return [f"model.pretrained={json.dumps(str(out / cell.path))}"]


def standing(name: str, out: Path) -> str:
    """What came out of an experiment below `out` so far, the judged metric alone: `plain 60.10 ± 1.20 %, ...`, or
    "not yet run". Of a split axis only the mean over the splits counts."""
    experiment = EXPERIMENTS[name]
    try:
        rows = [row for row in read_summary(out / "final") if row["metric"] == experiment.metric]
    except RunFolderError:
        return "not yet run"
    means = [row for row in rows if "folds" in row]
    return ", ".join(f"{row['label']} {shown(row)} (n = {row['n']})" for row in means or rows)
