"""The paper's own numbers for the models of this package (arXiv 2306.13292). Never measured here.

`PAPER_TABLES` holds the tables as they are printed, `PAPER_NUMBERS` those of them that cards and reports show.

Accuracies in percent, higher is better. `data`, `labels` and `imbalance` are those of the training data in a recipe;
`architecture` the one a recipe's model delegates to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARXIV = "2306.13292"
TITLE = "Variance-Covariance Regularization Improves Representation Learning"


@dataclass(frozen=True)
class PaperNumber:
    """One cell of the paper's tables, with and without VCReg."""

    table: str
    architecture: str
    data: str
    measured: str
    plain: float
    vcreg: float
    labels: str = "class"
    imbalance: int | None = None


_PROBED = ("iNat18", "Places", "Food", "Cars", "Aircraft", "Pets", "Flowers", "DTD", "average of the eight")
_TABLE_1 = {
    "resnet50": (
        (42.8, 50.6, 69.1, 43.6, 54.8, 91.9, 77.1, 68.7, 62.33),
        (45.3, 51.2, 71.7, 54.1, 70.5, 92.1, 88.0, 70.8, 67.96),
    ),
    "convnext_tiny": (
        (51.6, 53.8, 78.4, 62.9, 74.7, 93.9, 91.3, 72.9, 72.44),
        (52.3, 54.7, 79.6, 64.2, 76.3, 94.1, 92.7, 73.3, 73.40),
    ),
    "vit_base_patch32_224": (
        (39.1, 47.9, 70.6, 51.2, 63.8, 90.3, 84.6, 66.1, 64.20),
        (40.6, 48.1, 70.9, 52.0, 65.8, 91.0, 86.6, 66.5, 65.19),
    ),
}
_TABLE_2 = {
    "videomae_small": (79.9, 80.6),
    "videomae_base": (82.2, 83.0),
    "videomaev2_small": (83.6, 83.9),
    "videomaev2_base": (86.5, 86.9),
    "vivit_base": (70.9, 71.6),
}
_TABLE_3 = {"cifar10": (69.6, 71.2), "cifar100": (37.4, 40.4)}

PAPER_NUMBERS: tuple[PaperNumber, ...] = (
    *(
        PaperNumber("Table 1", architecture, "imagenet", f"linear probe on {name}", plain, vcreg)
        for architecture, rows in _TABLE_1.items()
        for name, plain, vcreg in zip(_PROBED, *rows, strict=True)
    ),
    *(
        PaperNumber("Table 2", name, "hmdb51", "fine-tuned on HMDB51, mean of 3 splits", *pair)
        for name, pair in _TABLE_2.items()
    ),
    *(
        PaperNumber("Table 3", "resnet32_cifar", name, "test accuracy, imbalance 100", *pair, imbalance=100)
        for name, pair in _TABLE_3.items()
    ),
    PaperNumber(
        "Table 5", "convnext_atto", "cifar100", "linear probe of the 100 subclasses", 60.7, 72.9, labels="superclass"
    ),
)


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper. rows: label -> a value for each column; None is a cell without a number, or one that the
    text of the paper at hand lost. unit, digits: of all its numbers, and how many the paper prints after the point."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    unit: str = "%"
    digits: int = 1

    def shown(self, row: str, column: str) -> str:
        """A cell as text: `72.9 %`, or a dash for one without a number."""
        value = self.rows[row][self.columns.index(column)]
        return "-" if value is None else f"{value:.{self.digits}f} {self.unit}".rstrip()


def _in_pairs(named: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]) -> dict[str, tuple[float, ...]]:
    """Rows without and with VCReg, each architecture's one after the other."""
    pairs = {label: {label: plain, f"{label} (VCReg)": vcreg} for label, (plain, vcreg) in named.items()}
    return {label: row for pair in pairs.values() for label, row in pair.items()}


# Table 4's columns. In the text at hand only three of its columns kept their numbers, and those not in every row.
_PRETRAINED = ("ImageNet", *_PROBED[:-1], "average")
_SUBCLASSES = ("CIFAR100", "living_9", "mixed_10", "mixed_13", "geirhos_16", "big_12")

PAPER_TABLES: dict[str, PaperTable] = {
    "table1": PaperTable("Transfer learning with ImageNet supervised pretraining", _PROBED, _in_pairs(_TABLE_1)),
    "table2": PaperTable(
        "Transfer learning with Kinetics-400 and Kinetics-710 pretrained models, to HMDB51",
        ("HMDB51",),
        _in_pairs({name: ((plain,), (vcreg,)) for name, (plain, vcreg) in _TABLE_2.items()}),
    ),
    "table3": PaperTable(
        "Long-tail learning with ResNet-32",
        ("CIFAR10-LT", "CIFAR100-LT"),
        _in_pairs({"ResNet-32": tuple(zip(*_TABLE_3.values(), strict=True))}),  # type: ignore[dict-item]
    ),
    "table4": PaperTable(
        "Self-supervised learning of ResNet-50 with VCReg on the intermediate blocks",
        _PRETRAINED,
        {
            "SimCLR": (*[None] * 7, 82.6, None, None),
            "SimCLR (VCReg)": (*[None] * 7, 83.6, None, None),
            "VICReg": (65.2, *[None] * 6, 74.3, None, None),
            "VICReg (VCReg)": (66.3, *[None] * 6, 74.5, None, None),
        },
    ),
    "table5": PaperTable(
        "Hierarchical classification: trained on superclasses, probed for subclasses",
        _SUBCLASSES,
        {
            "ConvNeXt": (60.7, 53.4, 60.3, 61.1, 60.5, 51.8),
            "ConvNeXt (VCReg)": (72.9, 62.2, 67.7, 66.0, 70.1, 61.5),
        },
    ),
    "table6": PaperTable(
        "Neural collapse and mutual information of ConvNeXt trained on ImageNet",
        ("CDNV", "NCC", "MI"),
        {"ConvNeXt": (0.28, 0.99, 2.8), "ConvNeXt (VCReg)": (0.56, 0.81, 4.6)},
        unit="",
        digits=2,
    ),
    "table7": PaperTable(
        "Where VCReg is placed in ConvNeXt-Atto",
        _PROBED[2:-1],
        {
            "final": (63.2, 39.6, 55.9, 89.1, 85.3, 65.1),
            "blocks": (66.8, 48.1, 60.4, 91.1, 86.4, 66.4),
            "downsample": (64.0, 40.9, 56.5, 89.4, 85.9, 65.1),
            "blocks+downsample": (66.7, 48.3, 59.6, 90.6, 85.6, 66.1),
        },
    ),
    "table8": PaperTable(
        "Time of one forward and backward pass on an A100, batch 128",
        ("identity", "naive", "algorithm1", "batchnorm"),
        {"vit_base_patch32_224": (0.223, 1.427, 0.245, 0.247), "convnext_tiny": (0.442, 2.951, 0.471, 0.468)},
        unit="s",
        digits=3,
    ),
}


def paper_numbers(architecture: str, data: Mapping[str, Any]) -> tuple[PaperNumber, ...]:
    """The paper's numbers for that architecture trained on that data, the `data` of a recipe's JSON; empty for none."""
    trained_on = (data["name"], data["labels"], data.get("imbalance"))
    return tuple(
        row
        for row in PAPER_NUMBERS
        if row.architecture == architecture and (row.data, row.labels, row.imbalance) == trained_on
    )
