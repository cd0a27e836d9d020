"""What a reproduction would take: runs, hours, and the data that is missing. Nothing is trained.

Hours are those of the trainings alone, without evaluation. On a CPU they come from throughputs measured here, or from
the runs that are there already. On GPUs nothing has been measured here: there they are scaled from the only training
whose cost the paper tells (Appendix F: ConvNeXt-T, 600 epochs, 48 hours on 16 AMD MI50) by samples and multiply-adds.
Of small images a GPU computes faster than it is fed: a training takes no less than the CPU beside the GPU takes to make
the views and to start the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..config import Data, Recipe, override
from ..data import is_drawn
from ..data.datasets import (
    FASHION_MNIST,
    IMAGE_SETS,
    VIDEO_SETS,
    find_image_set,
    folder_of,
)
from ..recipes import load_recipe
from ..rundir import RunDir
from .experiment import Experiment, Variant

# Images or clips a second of training, measured on one core of an AMD EPYC, by network and views of a sample.
_CPU_RATES = {
    ("test_convnext", 1): 2000,
    ("test_resnet", 1): 2550,
    ("test_resnet", 2): 700,
    ("videomae_tiny", 1): 160,
    ("vivit_tiny", 1): 150,
}
# Seconds of an epoch of 1,000 steps on points in the plane, on the same core.
_POINT_EPOCH = 12
# Multiply-adds of a forward pass in 1e9, as (giga, pixels a side they were counted at); of the clip for videos.
_GIGA = {
    "resnet50": (4.09, 224),
    "convnext_tiny": (4.46, 224),
    "vit_base_patch32_224": (4.41, 224),
    "convnext_atto": (0.55, 224),
    "resnet32_cifar": (0.069, 32),
    "videomae_small": (57.0, 224),
    "videomae_base": (180.5, 224),
    "videomaev2_small": (57.0, 224),
    "videomaev2_base": (180.5, 224),
    "vivit_base": (284.4, 224),
}
# Training clips of the sets that are made on the spot; the other sets say how many they have.
_MADE = {"action_shapes": 288, "action_shapes_compound": 576}
_PAPER_HOURS = 48 * 16
# Views of 32 x 32 pixels a second that one core makes (random crop, flip, TrivialAugment, erasing; measured on the same
# core), and how many cores feed a GPU.
_VIEWS, _CORES = 1500, 8
# Seconds in which a core goes once through the layers of the smallest networks of `_GIGA` and their optimizer, measured
# on a batch of two small images: no GPU step is shorter.
_STEP = 0.015


# Pixels a side of images that are held in memory: larger ones are read and decoded, which the paper's hours include.
_SMALL = 32


class Cost(NamedTuple):
    """Hours of one training, None where nothing is known, and of what: `CPU core` or `MI50`."""

    hours: float | None
    of: str


@dataclass(frozen=True)
class Estimate:
    """runs: in all; done: of these, complete already. hours: of what is left, by what they are of; unknown: runs of
    which no hours are known. data: the sets that do not come with this package. missing: those of them that are not at
    hand here, and what to fetch."""

    runs: int
    done: int
    hours: dict[str, float]
    unknown: int
    data: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{hours:,.1f} {of} hours" for of, hours in self.hours.items()]
        parts += [f"{self.unknown} runs of unknown length"] if self.unknown else []
        left = ", ".join(parts) or "nothing"
        return f"{self.runs} runs, {self.done} complete; left: {left}"


def estimate(experiment: Experiment, out: Path, settings: tuple[str, ...] = ()) -> Estimate:
    """The estimate of an experiment whose runs are, or will be, below `out`. settings: the command line's."""
    recipes = list(_runs(experiment, settings))
    finished = [run for path in out.rglob("results.json") if (run := RunDir(path.parent)).complete()]
    done = min(len(finished), len(recipes))
    costs = [cost_of(recipe) for recipe in recipes]
    share = 1 - done / len(recipes) if recipes else 0.0
    hours: dict[str, float] = {}
    for cost in costs:
        if cost.hours is not None:
            hours[cost.of] = hours.get(cost.of, 0.0) + cost.hours * share
    unknown = round(share * sum(cost.hours is None for cost in costs))
    return Estimate(len(recipes), done, {of: h for of, h in hours.items() if h}, unknown, *_data(recipes))


def cost_of(recipe: Recipe) -> Cost:
    """Hours of one training."""
    if is_drawn(recipe.data):
        return Cost(recipe.train.epochs * _POINT_EPOCH / 3600, "CPU core")
    name, size = recipe.model.name, recipe.data.train_size or recipe.data.image_size
    samples = _seen(recipe)
    if rate := _CPU_RATES.get((name, recipe.task.views)):
        return Cost(None if samples is None else samples / rate / 3600, "CPU core")
    if samples is None or name not in _GIGA:
        return Cost(None, "")
    work = samples * recipe.task.views * _multiply_adds(name, size)
    reference = load_recipe("imagenet:convnext_tiny")
    seen = _seen(reference)
    assert seen is not None
    computed = _PAPER_HOURS * work / (seen * _multiply_adds("convnext_tiny", reference.data.train_size or 224))
    fed = samples * recipe.task.views / (_VIEWS * _CORES) if size <= _SMALL else 0.0
    stepped = samples / recipe.train.batch_size * _STEP
    return Cost(max(computed, fed / 3600, stepped / 3600), "MI50")


def _multiply_adds(name: str, size: int) -> float:
    giga, at = _GIGA[name]
    return giga * (size / at) ** 2


def _seen(recipe: Recipe) -> float | None:
    """Samples that a training sees, each as often as it does; None for a data set of unknown size."""
    data = recipe.data
    # Superclasses take a part of a set, which the file that names them tells.
    there = None if data.hierarchy else _samples_of(data.name)
    if there is None and data.train_images is None:
        return None
    held = there * (1 - data.val_fraction) if there is not None else float("inf")
    if data.imbalance is not None and there is not None and (row := IMAGE_SETS[data.name]).classes:
        held = _long_tail(held / row.classes, row.classes, data.imbalance)
    each = min(held, data.train_images or float("inf"))
    return each * recipe.train.epochs * (recipe.video.repeats if recipe.video else 1)


def _long_tail(largest: float, classes: int, ratio: float) -> int:
    """The samples of classes that fall off as in `data.splits.long_tailed`, from a data set with as many of each."""
    return sum(int(largest * ratio ** (-number / (classes - 1))) for number in range(classes))


def _samples_of(name: str) -> int | None:
    if name in VIDEO_SETS:
        return VIDEO_SETS[name].train or _MADE.get(name)
    row = IMAGE_SETS.get(name)
    return None if row is None else row.train


def _runs(experiment: Experiment, settings: tuple[str, ...]) -> Iterator[Recipe]:
    """The recipe of every run: the pretraining, each search, and each variant under each value of the axis."""
    if experiment.pretraining is not None:
        yield load_recipe(experiment.pretraining)
    for variant in experiment.variants:
        recipe = _recipe(experiment, variant, settings)
        if variant.grid:
            held = override(recipe, [*experiment.holding_out, "eval.split=val"])
            points = list(itertools.product(*variant.grid.values()))
            yield from [held] * (len(points) * len(experiment.selection_seeds))
        for values in itertools.product(*experiment.axis.values()):
            changed = override(recipe, [f"{path}={value}" for path, value in zip(experiment.axis, values, strict=True)])
            yield from [changed] * len(experiment.seeds)


def _recipe(experiment: Experiment, variant: Variant, settings: tuple[str, ...]) -> Recipe:
    return override(load_recipe(variant.recipe), [*experiment.settings, *variant.settings, *settings])


def _data(recipes: list[Recipe]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The data sets that have to be fetched, and those that are not at hand with what to fetch."""
    asked = {data.name: data for recipe in recipes for data in _data_of(recipe)}
    fetched = {name: text for name, data in sorted(asked.items()) if (text := _what_to_fetch(data)) is not None}
    there = {name for name in fetched if _is_there(asked[name])}
    return tuple(fetched), tuple(f"{name}: {text}" for name, text in fetched.items() if name not in there)


def _data_of(recipe: Recipe) -> Iterator[Data]:
    yield recipe.data
    yield from (one.data for one in recipe.evals if one.data is not None)


def _what_to_fetch(data: Data) -> str | None:
    """None for what comes with this package or is made by it."""
    if is_drawn(data):
        return None
    if video := VIDEO_SETS.get(data.name):
        return None if video.made else f"prepared by `vcreg data {data.name}`"
    row = IMAGE_SETS[find_image_set(data.name)]
    if row.name in ("digits", "synthetic"):
        return None
    return "; or ".join([f"read from the Hub ({row.hub})"] * bool(row.hub) + [row.files] * bool(row.files)) or row.about


def _is_there(data: Data) -> bool:
    """A given root is taken as what it should be: reading it may take minutes."""
    row = VIDEO_SETS.get(data.name) or IMAGE_SETS[find_image_set(data.name)]
    root = data.root or folder_of(row) or (FASHION_MNIST if row.name == "fashion_mnist" else None)
    return root is not None and Path(root).exists()
