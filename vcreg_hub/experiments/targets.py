"""The tables and figures of the paper as targets of `vcreg reproduce`, a row each.

A target is a few experiments at each scale, and which of their numbers stand beside which cells of the paper. `small`
is minutes to hours on CPU cores, on data at hand: the paper's cell beside such a number is of the same question, not of
the same setting. `full` is the paper's own setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError, unknown_name
from ..paper import PAPER_TABLES
from .experiment import Experiment
from .full_scale import FULL_SCALE, PROBES
from .table import EXPERIMENTS

Scale = Literal["small", "full"]


@dataclass(frozen=True)
class Line:
    """One number of ours beside one of the paper's.

    what: the setting in words. experiment, run: where the number is from, a row of the experiments and the label of its
    final runs. metric, dataset: of the result; None is any data set. cell: row and column of the paper's table.

    Of a metric that every block has it is the number of what enters the classifier, on images not trained on.
    """

    what: str
    experiment: str
    run: str
    metric: str
    cell: tuple[str, str] | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Target:
    """small, full: its lines at each scale. paper: the paper's table, None for a figure without numbers. note: what the
    small scale does instead. bench: whether it is a measurement of time, by `vcreg bench overhead`, without lines."""

    title: str
    small: tuple[Line, ...]
    full: tuple[Line, ...]
    note: str
    paper: str | None = None
    bench: bool = False

    def lines(self, scale: Scale) -> tuple[Line, ...]:
        return self.small if scale == "small" else self.full

    def experiments(self, scale: Scale) -> dict[str, Experiment]:
        """The experiments of a scale by name, in the order in which they run."""
        names = dict.fromkeys(line.experiment for line in self.lines(scale))
        return {name: _KNOWN[name] for name in names}


def find_target(name: str) -> Target:
    """The row of `TARGETS`. Errors: UnknownNameError, naming the nearest among targets and experiments."""
    if name not in TARGETS:
        raise unknown_name("target or experiment", name, [*TARGETS, *EXPERIMENTS])
    return TARGETS[name]


def with_seeds(experiment: Experiment, count: int) -> tuple[int, ...]:
    """The first `count` final seeds of an experiment, and where it has fewer the next numbers that its search leaves.

    Errors: UsageError for none.
    """
    if count < 1:
        raise UsageError(f"--seeds is the number of final seeds, 1 or more, got {count}")
    seeds = list(experiment.seeds[:count])
    candidate = max(experiment.seeds) + 1
    while len(seeds) < count:
        if candidate not in experiment.selection_seeds:
            seeds.append(candidate)
        candidate += 1
    return tuple(seeds)


_KNOWN: dict[str, Experiment] = {**EXPERIMENTS, **FULL_SCALE}


def _pair(
    what: str, experiment: str, metric: str, rows: tuple[str, str] | None = None, column: str = "",
    dataset: str | None = None, runs: tuple[str, str] = ("plain", "vcreg"),
) -> tuple[Line, ...]:  # fmt: skip
    """A baseline and its VCReg. rows, column: of the paper's table."""
    cells = [None, None] if rows is None else [(row, column) for row in rows]
    return tuple(Line(what, experiment, run, metric, cell, dataset) for run, cell in zip(runs, cells, strict=True))


def _with_vcreg(row: str) -> tuple[str, str]:
    return row, f"{row} (VCReg)"


def _joined(parts: Sequence[tuple[Line, ...]]) -> tuple[Line, ...]:
    return tuple(line for part in parts for line in part)


def _table_1(arch: str) -> tuple[Line, ...]:
    return _joined([
        _pair(f"{arch}, {column}", f"imagenet_{arch}", metric, _with_vcreg(arch), column, dataset)
        for column, (metric, dataset) in PROBES.items()
    ])  # fmt: skip


def _table_4(method: str, row: str) -> tuple[Line, ...]:
    # ImageNet's own is that of the online probe.
    columns = {"ImageNet": ("top1", "imagenet"), **PROBES}
    return _joined([
        _pair(f"{row}, {column}", f"imagenet_{method}", metric, _with_vcreg(row), column, dataset)
        for column, (metric, dataset) in columns.items()
    ])  # fmt: skip


def _table_2(network: str) -> tuple[Line, ...]:
    return _pair(network, f"hmdb51_{network}", "top1", _with_vcreg(network), "HMDB51")


def _collapse(network: str, experiment: str, told: str) -> tuple[Line, ...]:
    """told: the experiment that measures how much the features tell of the images."""
    metrics = {"CDNV": ("cdnv", experiment), "NCC": ("ncc_top1", experiment), "MI": ("block_mutual_information", told)}
    return _joined([
        _pair(f"{network}, {column}", of, metric, _with_vcreg("ConvNeXt"), column)
        for column, (metric, of) in metrics.items()
    ])  # fmt: skip


def _noise(title: str, networks: Sequence[str]) -> Target:
    levels = ("0", "1", "1.5", "2")

    def lines(experiment: str, what: str) -> tuple[Line, ...]:
        return _joined([
            _pair(f"{what}, sigma {s}", experiment, "top1", runs=(f"plain,noise={s}", f"vcreg,noise={s}"))
            for s in levels
        ])  # fmt: skip

    return Target(
        title,
        small=lines("noise_action_shapes_finetuned", "tiny VideoMAE, pretrained on other motions"),
        full=_joined([lines(f"noise_{network}", network) for network in networks]),
        note="A tiny VideoMAE on action_shapes, clips made on the spot, pretrained on other motions.",
    )


def _moons(title: str, runs: Sequence[str]) -> Target:
    lines = tuple(Line("accuracy on overlapping moons", "moons", run, "overlap_top1") for run in runs)
    note = "The paper's own setting, small as it is; runs/moons/final/boundary.png draws the boundaries."
    return Target(title, small=lines, full=lines, note=note)


def _long_tail(what: str, experiment: str, column: str, runs: Sequence[str]) -> tuple[Line, ...]:
    cells = {run: (row, column) for run, row in zip(("plain", "vcreg"), _with_vcreg("ResNet-32"), strict=True)}
    return tuple(Line(what, experiment, run, "top1", cells.get(run)) for run in runs)


_FASHION = "Fashion-MNIST"
_CONVNEXT = _with_vcreg("ConvNeXt")

TARGETS: dict[str, Target] = {
    "table1": Target(
        PAPER_TABLES["table1"].title,
        small=_joined([
            _pair(f"ConvNeXt on {labels} of {_FASHION}, probed on {named}", experiment, "logreg_top1")
            for labels, named, experiment in (
                ("4 superclasses", "digits", "transfer_hierarchy"),
                ("10 classes", "digits", "transfer_classes"),
                ("4 superclasses", f"{_FASHION}'s 10 classes", "hierarchy_convnext"),
            )
        ]),
        full=_joined([_table_1(arch) for arch in ("resnet50", "convnext_tiny", "vit_base_patch32_224")]),
        note=f"timm's smallest ConvNeXt trained on {_FASHION}, probed on digits and on {_FASHION}.",
        paper="table1",
    ),
    "table2": Target(
        PAPER_TABLES["table2"].title,
        small=_pair("tiny VideoMAE, pretrained on other motions", "action_shapes_finetuned", "top1"),
        full=_joined([_table_2(n) for n in PAPER_TABLES["table2"].rows if not n.endswith(" (VCReg)")]),
        note="A tiny VideoMAE on action_shapes, clips made on the spot, pretrained on other motions.",
        paper="table2",
    ),
    "table3": Target(
        PAPER_TABLES["table3"].title,
        small=_joined([
            _long_tail(f"{network} on long-tailed {_FASHION}, ratio 100", f"long_tail_{network.lower()}", "CIFAR10-LT",
                       ("plain", "vcreg", "ldam"))
            for network in ("ResNet", "ConvNeXt")
        ]),
        full=_joined([
            _long_tail(f"ResNet-32, {column}", experiment, column, ("plain", "vcreg"))
            for column, experiment in (("CIFAR10-LT", "long_tail_cifar10"), ("CIFAR100-LT", "long_tail_cifar100"))
        ]),
        note=f"timm's smallest networks on about 2,200 images of {_FASHION}, LDAM-DRW beside VCReg.",
        paper="table3",
    ),
    "table4": Target(
        PAPER_TABLES["table4"].title,
        small=_joined([
            _pair(f"{row}, ResNet on {_FASHION}", f"self_supervised_{method}", "logreg_top1", _with_vcreg(row),
                  "average")
            for method, row in (("simclr", "SimCLR"), ("vicreg", "VICReg"))
        ]),
        full=_table_4("simclr", "SimCLR") + _table_4("vicreg", "VICReg"),
        note=f"timm's smallest ResNet on 6,000 images of {_FASHION} without their labels, probed for the 10 classes.",
        paper="table4",
    ),
    "table5": Target(
        PAPER_TABLES["table5"].title,
        small=_joined([
            _pair(f"{network}, {labels} of {_FASHION}, probed for 10 classes", experiment, "logreg_top1", _CONVNEXT,
                  "CIFAR100")
            for network, labels, experiment in (
                ("ConvNeXt", "4 superclasses", "hierarchy_convnext"),
                ("ResNet", "4 superclasses", "hierarchy_resnet"),
                ("ConvNeXt", "2 superclasses", "hierarchy_footwear_convnext"),
                ("ResNet", "2 superclasses", "hierarchy_footwear_resnet"),
            )
        ]),
        full=_joined([
            _pair(f"ConvNeXt-Atto, {column}", f"superclass_{column.lower()}", "probe_top1", _CONVNEXT, column)
            for column in PAPER_TABLES["table5"].columns
        ]),
        note=f"timm's smallest networks on superclasses of {_FASHION}, trained until their features collapse.",
        paper="table5",
    ),
    "table6": Target(
        PAPER_TABLES["table6"].title,
        small=_joined([
            _collapse(network, f"hierarchy_ablation_{network.lower()}", f"hierarchy_information_{network.lower()}")
            for network in ("ConvNeXt", "ResNet")
        ]),
        full=_collapse("convnext_tiny", *["imagenet_convnext_tiny"] * 2),
        note=f"The networks of table5, trained on 4 superclasses of {_FASHION}.",
        paper="table6",
    ),
    "table7": Target(
        PAPER_TABLES["table7"].title,
        small=tuple(
            Line(f"ConvNeXt on 4 superclasses of {_FASHION}, VCReg at {where}", "hierarchy_placement_convnext", run,
                 "logreg_top1")
            for run, where in {"plain": "no place", "final": "final", "vcreg": "blocks", "downsample": "downsample",
                               "both": "blocks+downsample"}.items()
        ),
        full=tuple(
            Line(f"{where}, {column}", "placement_imagenet", run, metric, (where, column), dataset)
            for run, where in {"final": "final", "vcreg": "blocks", "downsample": "downsample",
                               "both": "blocks+downsample"}.items()
            for column, (metric, dataset) in PROBES.items() if column in PAPER_TABLES["table7"].columns
        ),
        note=f"timm's smallest ConvNeXt on 4 superclasses of {_FASHION}, probed for the 10 classes.",
        paper="table7",
    ),
    "table8": Target(
        PAPER_TABLES["table8"].title, (), (),
        note="The same networks in small batches on this machine's CPU.",
        paper="table8",
        bench=True,
    ),
    "fig2": _moons("Figure 2: two moons, without and with VCReg", ("plain", "vcreg")),
    "fig3": _noise("Figure 3: noisy HMDB51, small networks", ("videomae_small", "videomaev2_small")),
    "fig4": _noise("Figure 4: noisy HMDB51, base networks", ("videomae_base", "videomaev2_base")),
    "fig5": _moons("Figure 5: two moons, under every regularizer", [v.name for v in EXPERIMENTS["moons"].variants]),
}  # fmt: skip
