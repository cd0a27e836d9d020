"""What an experiment is: variants against a baseline, grids to search, seeds to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError

Grid = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Variant:
    """One of the recipes an experiment compares.

    name: begins the labels of its final runs. recipe: its address. grid: path.to.field -> values to search, none for
    the recipe as it is. baseline: whether the others are compared to this one. settings: what `override` applies to the
    recipe before anything else.
    """

    name: str
    recipe: str
    grid: Grid = field(default_factory=dict)
    baseline: bool = False
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Variants against one baseline. A variant's grid is searched with `selection_seeds`, judged by `metric` on the
    validation split. seeds: of the final runs; they share none with the selection. paper: the paper's result.

    holding_out: settings of the search alone, where the recipe itself holds nothing out. axis: what the final runs vary
    besides the seed, such as the data set's splits; the search sees the recipe's own value of it. pretraining: address
    of the recipe whose network all of them start from, trained first, once, with its own seed and settings. settings:
    what `override` applies to every variant's recipe, before the variant's own. boundaries: whether the final runs'
    averaged decision boundaries are drawn too, of points in the plane.
    Errors: ConfigError without exactly one baseline, or for a name that is there twice.
    """

    variants: tuple[Variant, ...]
    metric: str
    selection_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    paper: str = ""
    holding_out: tuple[str, ...] = ()
    axis: Grid = field(default_factory=dict)
    pretraining: str | None = None
    settings: tuple[str, ...] = ()
    boundaries: bool = False

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ConfigError(f"each variant has a name of its own, got {', '.join(names)}")
        if sum(variant.baseline for variant in self.variants) != 1:
            raise ConfigError(f"one variant is the baseline of the others, among {', '.join(names)}")

    @property
    def baseline(self) -> Variant:
        return next(variant for variant in self.variants if variant.baseline)

    @property
    def compared(self) -> tuple[Variant, ...]:
        """The variants without the baseline."""
        return tuple(variant for variant in self.variants if not variant.baseline)


def plain_and_vcreg(recipe: str, grid: Grid, common: Grid | None = None) -> tuple[Variant, ...]:
    """A recipe without VCReg, and its `_vcreg` with what the grid finds. common: what is searched for both."""
    common = common or {}
    return Variant("plain", recipe, common, baseline=True), Variant("vcreg", f"{recipe}_vcreg", {**common, **grid})


# The paper's range for images (Appendix A).
ALPHAS = ("1.28", "0.64", "0.32", "0.16")
BETAS = ("0.16", "0.08", "0.04", "0.02", "0.01")
IMAGE_GRID = {"vcreg.alpha": ALPHAS, "vcreg.beta": BETAS}
# Both learning rates of Appendix C.4.
RATES = {"optim.lr": ("0.016", "0.008")}
# Placements of Table 7 beside the blocks and the final vector.
DOWNSAMPLE = {"downsample": "where=downsample", "both": "where=blocks+downsample"}


def searched(
    recipe: str, metric: str, *settings: str, variants: tuple[Variant, ...] = (), common: Grid | None = None
) -> Experiment:
    """The paper's own set-up, its whole grid searched on a tenth of the training images. common: as in
    `plain_and_vcreg`."""
    return Experiment(
        variants=(*plain_and_vcreg(recipe, IMAGE_GRID, common), *variants),
        metric=metric,
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        holding_out=("data.val_fraction=0.1",),
        settings=settings,
    )
