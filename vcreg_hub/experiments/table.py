"""The experiments of this package, a row each: variants, grids to search, seeds to report.

`vcreg reproduce NAME` walks one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError, unknown_name
from ..paper import PAPER_NUMBERS

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


def find_experiment(name: str) -> Experiment:
    """The row of `EXPERIMENTS`. Errors: UnknownNameError, naming the nearest."""
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def _plain_and_vcreg(recipe: str, grid: Grid) -> tuple[Variant, ...]:
    """A recipe without VCReg, and its `_vcreg` with what the grid finds."""
    return Variant("plain", recipe, baseline=True), Variant("vcreg", f"{recipe}_vcreg", grid)


# The paper's range for images (Appendix A).
_ALPHAS = ("1.28", "0.64", "0.32", "0.16")
_BETAS = ("0.16", "0.08", "0.04", "0.02", "0.01")

# The paper's grid for video, its splits and its levels of noise (Appendix C.2, Figures 3 and 4).
_VIDEO_GRID = {"vcreg.alpha": ("1", "3", "5"), "vcreg.beta": ("0.1", "0.3", "0.5")}
# The paper's grid is for networks that are fine-tuned. One that starts from random weights learns late under it (alpha
# 3, beta 0.3: 25% of the training clips after 27 of 40 epochs, plain 72%), so the search goes down to images' values.
_WEAKER_GRID = {"vcreg.alpha": ("0.16", "1", "3"), "vcreg.beta": ("0.02", "0.1", "0.3")}
_WEAKEST_GRID = {"vcreg.alpha": ("0.16",), "vcreg.beta": ("0.02", "0.1")}
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
        variants=_plain_and_vcreg(f"fashion_mnist:{recipe}", {"vcreg.alpha": alphas, "vcreg.beta": betas}),
        metric="probe_top1",
        selection_seeds=selection_seeds,
        seeds=seeds,
        paper="Table 5 does the same with CIFAR-100 and ConvNeXt-Atto: 60.7% plain, 72.9% VCReg",
    )


def _hierarchy(network: str, alphas: tuple[str, ...], betas: tuple[str, ...]) -> Experiment:
    return Experiment(
        variants=_plain_and_vcreg(f"fashion_mnist:hierarchy_{network}", {"vcreg.alpha": alphas, "vcreg.beta": betas}),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        paper="Table 5 does the same with CIFAR-100 and ConvNeXt-Atto: 60.7% plain, 72.9% VCReg",
    )


# Five seeds that no other experiment on these recipes has shown test numbers of.
_FRESH = (5, 6, 7, 8, 9)
_ABLATIONS = {
    "variance_alone": "vcreg.beta=0",
    "covariance_alone": "vcreg.alpha=0",
    "algorithm1": "vcreg.gradient=algorithm1",
    "no_delta": "vcreg.delta=null",
    "large_eps": "vcreg.eps=0.01",
}
_DOWNSAMPLE = {"downsample": "where=downsample", "both": "where=blocks+downsample"}
# Table 6 asks how collapsed the features are that Table 5 probes.
_COLLAPSE = ("evals=classification,logreg,collapse",)


def _hierarchy_as_picked(
    network: str, *settings: str, axis: Grid | None = None, variants: Mapping[str, str] | None = None
) -> Experiment:
    """Plain against the coefficients that `hierarchy_<network>` picked, all under `settings`.

    variants: further ones, a name and the one setting in which each differs from those coefficients.
    """
    recipe = f"fashion_mnist:hierarchy_{network}"
    compared = [Variant("vcreg", f"{recipe}_vcreg")]
    compared += [Variant(name, f"{recipe}_vcreg", settings=(setting,)) for name, setting in (variants or {}).items()]
    return Experiment(
        variants=(Variant("plain", recipe, baseline=True), *compared),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=_FRESH,
        axis=axis or {},
        settings=(*_COLLAPSE, *settings),
    )


def _moons(epochs: int, longer: int) -> Experiment:
    """The regularizers of Figure 5, those with a coefficient searched on validation moons that overlap.

    epochs: of 1,000 steps. longer: those of the variant that is trained longer.
    """
    decay = {"optim.weight_decay": ("0.001", "0.01", "0.1")}
    decoupling = {"task.spectral_decoupling": ("0.004", "0.012", "0.04", "0.12")}
    strength = {"vcreg.alpha": ("0.64", "5", "25"), "vcreg.beta": ("10", "50", "250", "1000")}
    others = {
        "dropout": ("model.kwargs.drop_rate=0.7",),
        "batch_norm": ("model.kwargs.norm=true",),
        "longer": (f"train.epochs={longer}",),
        "adam_1e-4": ("optim.name=adam", "optim.lr=0.0001"),
        "adam_3e-3": ("optim.name=adam", "optim.lr=0.003"),
        "deeper": ("model.kwargs.hidden=[500,500,500,500]",),
        "rotated": ("data.name=moons:0.1@45",),
    }
    return Experiment(
        variants=(
            Variant("plain", "moons:mlp", baseline=True),
            Variant("vcreg", "moons:mlp_vcreg", strength),
            Variant("weight_decay", "moons:mlp", decay),
            Variant("spectral_decoupling", "moons:mlp", decoupling),
            *(Variant(name, "moons:mlp", settings=settings) for name, settings in others.items()),
        ),
        metric="overlap_top1",
        selection_seeds=(100,),
        seeds=tuple(range(10, 20)),  # seed 0 was looked at while this was written
        paper="Figures 2 and 5 draw the averaged boundaries, without numbers",
        settings=(f"train.epochs={epochs}",),
        boundaries=True,
    )


def _class_incremental() -> Experiment:
    """VCReg at two places beside two methods against forgetting, each searched on validation images."""
    recipe = "fashion_mnist:class_incremental"
    at_blocks = {"vcreg.alpha": ("0.04", "0.16", "0.64", "2.5"), "vcreg.beta": ("0.04", "0.16", "0.64", "2.5")}
    # One reproduction of the paper on other classes found its best values here.
    on_vector = {"vcreg.alpha": ("0.64", "3", "15"), "vcreg.beta": ("0.16", "1.6", "12.8")}
    with_lwf = {"task.lwf": ("1", "3"), "vcreg.beta": ("0.04", "0.16", "0.64")}
    return Experiment(
        variants=(
            Variant("plain", recipe, baseline=True),
            Variant("vcreg", f"{recipe}_vcreg", at_blocks),
            Variant("vcreg_final", f"{recipe}_vcreg", on_vector, settings=("where=final",)),
            Variant("ewc", recipe, {"task.ewc": ("10", "100", "1000", "10000", "100000")}),
            Variant("lwf", recipe, {"task.lwf": ("0.3", "1", "3", "10")}),
            Variant("lwf_vcreg", f"{recipe}_vcreg", with_lwf),
        ),
        metric="known_top1",
        selection_seeds=(100,),
        seeds=(10, 11, 12, 13, 14),  # test numbers of seed 0 were looked at while this was written
    )


def _shipped(network: str) -> Experiment:
    grid = {"vcreg.alpha": ("1.28", "0.32"), "vcreg.beta": ("0.16", "0.02")}
    return Experiment(
        variants=_plain_and_vcreg(f"fashion_mnist:{network}", grid),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    )


def _self_supervised(method: str) -> Experiment:
    """One coarse grid for both methods, inside the paper's range and a step beyond its largest beta."""
    grid = {"vcreg.alpha": ("0.16", "0.64"), "vcreg.beta": ("0.01", "0.08", "0.64")}
    return Experiment(
        variants=_plain_and_vcreg(f"fashion_mnist:{method}", grid),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        paper="Table 4 does the same with ImageNet and ResNet-50",
    )


def _hmdb51(network: str) -> Experiment:
    plain, vcreg = _TABLE_2[network]
    return Experiment(
        variants=_plain_and_vcreg(f"hmdb51:{network}", _VIDEO_GRID),
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
    grid: Grid = _VIDEO_GRID,
    pretraining: str | None = None,
    seeds: tuple[int, ...] = (0,),
) -> Experiment:
    """Coefficients are picked at the recipe's own level, sigma 1: the paper does not say at which it did."""
    return Experiment(
        variants=_plain_and_vcreg(f"noise:{network}", grid),
        metric="top1",
        selection_seeds=(100,),
        seeds=seeds,
        paper=paper,
        holding_out=_HELD_OUT,
        axis=_SIGMAS,
        pretraining=pretraining,
    )


# The ResNet-32 that ships with this package as a start, shown images of the size it was trained on.
_CLOTHES = (
    "model.name=resnet32_cifar",
    "model.pretrained=resnet32_cifar_vcreg.fashion_mnist",
    "model.kwargs={}",
    "data.image_size=32",
)
_UNTRAINED = ("model.pretrained=false",)


def _transfer(data: str) -> Experiment:
    """An ImageNet backbone fine-tuned on a few hundred images, beside the same network from random weights, and on
    other images than its own the ResNet-32 of this package."""
    recipe = f"transfer:{data}"
    # The weak end of the paper's grid for fine-tuning, and below it.
    grid = {"vcreg.alpha": ("0.1", "1"), "vcreg.beta": ("0.01", "0.1")}
    starts = {"random": _UNTRAINED} | ({} if data == "fashion_mnist" else {"clothes": _CLOTHES})
    return Experiment(
        variants=(
            Variant("plain", recipe, baseline=True),
            Variant("vcreg", recipe, grid, settings=("vcreg.alpha=1",)),
            *(Variant(name, recipe, settings=settings) for name, settings in starts.items()),
        ),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 fine-tunes networks that are pretrained without VCReg, on videos",
    )


def _probed_on_digits(*settings: str) -> Experiment:
    return Experiment(
        variants=(
            Variant("plain", "transfer:hierarchy", baseline=True),
            # As `hierarchy_convnext` picked them on clothes: no digit chose them.
            Variant("vcreg", "transfer:hierarchy", settings=("vcreg.alpha=0.64", "vcreg.beta=0.04")),
        ),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        settings=settings,
    )


def _frozen(recipe: str, start: str) -> Experiment:
    return Experiment(
        variants=(Variant("random", recipe, baseline=True, settings=_UNTRAINED), Variant(start, recipe)),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    )


def _long_tail(network: str) -> Experiment:
    """Towards the weak end: a class of eight images has few variances to keep. LDAM-DRW as its authors set it."""
    recipe = f"fashion_mnist:long_tail_{network}"
    grid = {"vcreg.alpha": ("0.04", "0.16", "0.64"), "vcreg.beta": ("0.0025", "0.01", "0.04")}
    return Experiment(
        variants=(*_plain_and_vcreg(recipe, grid), Variant("ldam", recipe, settings=("task=ldam",))),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        paper="Table 3 does the same with CIFAR10-LT and ResNet-32: 69.6% plain, 71.2% VCReg",
    )


def _searched(recipe: str, metric: str, *settings: str, variants: tuple[Variant, ...] = ()) -> Experiment:
    """The paper's own set-up, its whole grid searched on a tenth of the training images."""
    return Experiment(
        variants=(*_plain_and_vcreg(recipe, _IMAGE_GRID), *variants),
        metric=metric,
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        holding_out=("data.val_fraction=0.1",),
        settings=settings,
    )


_IMAGE_GRID = {"vcreg.alpha": _ALPHAS, "vcreg.beta": _BETAS}


def _rivals() -> Experiment:
    """VCReg beside what else a user may pick, each with eight points searched by the same seed.

    The betas are the ends of the paper's range, not those that `hierarchy_convnext` found best.
    """
    recipe = "fashion_mnist:hierarchy_convnext"
    wld = {"vcreg.similarity_weight": ("0.0001", "0.001", "0.01", "0.1"), "vcreg.gamma": ("1", "10")}
    single = {
        "weight_decay": ("optim.weight_decay", ("0", "0.01", "0.1", "0.2", "0.5", "1", "2", "5")),
        "projector": (
            "task.projector",
            ("[64]", "[256]", "[1024]", "[2048]", "[64,64]", "[256,256]", "[1024,1024]", "[2048,2048]"),
        ),
        "etf": ("task.etf_length", ("0.25", "0.5", "1", "2", "4", "8", "16", "32")),
        "spectral_decoupling": (
            "task.spectral_decoupling",
            ("0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3"),
        ),
    }
    return Experiment(
        variants=(
            *_plain_and_vcreg(recipe, {"vcreg.alpha": ("0.16", "0.64", "2.5", "10"), "vcreg.beta": ("0.01", "0.16")}),
            Variant(
                "decov",
                recipe,
                {"where": ("final", "blocks"), "vcreg.weight": ("0.001", "0.01", "0.1", "1")},
                settings=("vcreg=decov",),
            ),
            *(
                Variant(f"wld_{form}", recipe, wld, settings=("vcreg=wld_reg", f"vcreg.form={form}", "where=final"))
                for form in ("direct", "det", "logdet")
            ),
            *(
                Variant(name, recipe, {path: values}, settings=(f"{path}={values[0]}",))
                for name, (path, values) in single.items()
            ),
        ),
        metric="logreg_top1",
        selection_seeds=(101,),
        # Not 0 to 9: their test numbers were seen.
        seeds=(10, 11, 12, 13, 14),
        paper="Table 1 compares with DeCov and WLD-Reg: ResNet-50 on ImageNet, eight linear probes",
    )


EXPERIMENTS = {
    # Not 0 to 9: their test numbers were seen with the other two settings before this one was chosen.
    "fashion_mnist": _superclass("superclass", seeds=(10, 11, 12, 13, 14)),
    # Not 0 to 4, likewise.
    "fashion_mnist_resized": _superclass("superclass_resized", seeds=(5, 6, 7, 8, 9), selection_seeds=(100, 101)),
    "fashion_mnist_augmented": _superclass(
        "superclass_augmented", seeds=(0, 1, 2, 3, 4), alphas=_ALPHAS[:3], betas=_BETAS[:4]
    ),
    # Wide enough that the best point lies inside: the paper's range ends at 1.28 and 0.16.
    "hierarchy_convnext": _hierarchy(
        "convnext", ("0.16", "0.64", "2.5", "10"), ("0.01", "0.04", "0.16", "0.64", "2.5")
    ),
    # A network with batch norm wants a larger beta: the best of 0.01 to 2.5 was 2.5.
    "hierarchy_resnet": _hierarchy("resnet", ("0.64", "2.5", "10"), ("0.16", "0.64", "2.5", "10", "40")),
    **{
        f"hierarchy_{name}_{network}": experiment
        # The betas beside the one that was picked.
        for network, betas in {
            "convnext": ("0.01", "0.16", "0.64", "2.5"),
            "resnet": ("0.04", "0.16", "0.64", "10", "40"),
        }.items()
        for name, experiment in {
            # Until and beyond the collapse of the plain network.
            "length": _hierarchy_as_picked(network, axis={"train.epochs": ("6", "15", "30", "60", "100")}),
            "ablation": _hierarchy_as_picked(network, variants=_ABLATIONS),
            # Table 7's four; no module lies between the blocks of a ResNet.
            "placement": _hierarchy_as_picked(
                network, variants={"final": "where=final"} | (_DOWNSAMPLE if network == "convnext" else {})
            ),
            "beta": _hierarchy_as_picked(network, variants={f"beta_{one}": f"vcreg.beta={one}" for one in betas}),
            "shifts": _hierarchy_as_picked(network, "data.crop=pad", "data.hflip=0.5"),
            "smoothing": _hierarchy_as_picked(network, "train.label_smoothing=0.1", "train.mixup=0.8"),
            "footwear": _hierarchy_as_picked(network, "data.labels=footwear"),
        }.items()
    },
    "rivals": _rivals(),
    "long_tail_resnet": _long_tail("resnet"),
    "long_tail_convnext": _long_tail("convnext"),
    "long_tail_cifar10": _searched("cifar:long_tail", "top1"),
    "long_tail_cifar100": _searched("cifar:long_tail", "top1", "data.name=cifar100"),
    "superclass_cifar100": _searched("cifar:superclass", "probe_top1"),
    **{
        f"superclass_{name}": _searched("imagenet:superclass", "probe_top1", f"data.hierarchy={name}")
        for name in ("living_9", "mixed_10", "mixed_13", "geirhos_16", "big_12")
    },
    # Table 7's four.
    "placement_imagenet": _searched(
        "imagenet:convnext_atto",
        "top1",
        variants=tuple(
            Variant(name, "imagenet:convnext_atto_vcreg", _IMAGE_GRID, settings=(where,))
            for name, where in {"final": "where=final", **_DOWNSAMPLE}.items()
        ),
    ),
    "self_supervised_simclr": _self_supervised("simclr"),
    "self_supervised_vicreg": _self_supervised("vicreg"),
    "moons": _moons(epochs=10, longer=100),
    "moons_short": _moons(epochs=1, longer=10),
    "class_incremental": _class_incremental(),
    # The image models whose weights ship with this package: those of the first seed, whatever the other seeds give.
    "resnet32_cifar_vcreg.fashion_mnist": _shipped("resnet32_cifar"),
    "convnext_zepto_rms_vcreg.fashion_mnist": _shipped("convnext_zepto_rms"),
    "transfer_digits": _transfer("digits"),
    "transfer_fashion_mnist": _transfer("fashion_mnist"),
    "transfer_hierarchy": _probed_on_digits(),
    "transfer_classes": _probed_on_digits("data.labels=class"),
    "transfer_frozen": _frozen("transfer:frozen", "imagenet"),
    "transfer_frozen_resnet32": _frozen("transfer:frozen_resnet32", "clothes"),
    "action_shapes": Experiment(
        variants=_plain_and_vcreg("action_shapes:videomae_tiny", _WEAKER_GRID),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 does the same with HMDB51 and networks pretrained on Kinetics",
        holding_out=_HELD_OUT,
        axis=_SPLITS,
    ),
    "action_shapes_vivit": Experiment(
        variants=_plain_and_vcreg("action_shapes:vivit_tiny", _WEAKEST_GRID),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 does the same with HMDB51 and a ViViT-B pretrained on Kinetics",
        holding_out=_HELD_OUT,
    ),
    "action_shapes_finetuned": Experiment(
        variants=_plain_and_vcreg("action_shapes:videomae_tiny_finetuned", _VIDEO_GRID),
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
        # What is stronger stayed at chance without noise already.
        _WEAKEST_GRID,
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
