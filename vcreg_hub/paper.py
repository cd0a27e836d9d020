"""The paper's own numbers for the models of this package (arXiv 2306.13292). Never measured here.

Accuracies in percent, higher is better. `data` is the name of the training data in a recipe; `architecture` the one
a recipe's model delegates to.
"""

from __future__ import annotations

from dataclasses import dataclass

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
_TABLE_3 = {"cifar10_lt": (69.6, 71.2), "cifar100_lt": (37.4, 40.4)}

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
        PaperNumber("Table 3", "resnet32_cifar", name, "test accuracy, imbalance 100", *pair)
        for name, pair in _TABLE_3.items()
    ),
    PaperNumber("Table 5", "convnext_atto", "cifar100", "linear probe of the 100 subclasses", 60.7, 72.9),
)


def paper_numbers(architecture: str, data: str) -> tuple[PaperNumber, ...]:
    """The paper's numbers for that architecture trained on that data; empty for none."""
    return tuple(row for row in PAPER_NUMBERS if row.architecture == architecture and row.data == data)
