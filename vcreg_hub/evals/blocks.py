"""Measures each block's rank, collapse and separation of classes by class means, on training and test
samples, by one or more label sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, Evaluation, Metric, Place, number
from ..data.module import DataModule

if TYPE_CHECKING:
    import numpy as np

    from .context import BlockRows, Context


@dataclass(frozen=True)
class Blocks(Evaluation):
    """The features of each block of `where`, positions averaged, and those that enter the classifier.

    where: the blocks, as for the regularizer. label_sets: those that classes are told apart by, such as ("superclass",
    "class"); none is the data's own. samples: how many of each split, a fair share of every class.

    The class means of nearest-class-mean rows are those of the
    training samples. "block_ncc_agreement" is with the network's own answer, where it was trained on these labels.
    """

    tag = "blocks"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "block_effective_rank": Metric("", True, "participation ratio of the covariance of a block's features"),
        "block_collapsed": Metric("%", False, "share of a block's channels with a deviation below 0.01"),
        "block_cdnv": Metric("", True, "class-distance normalised variance of a block's features"),
        "block_ncc_top1": Metric("%", True, "accuracy of the nearest class mean in a block's features"),
        "block_ncc_agreement": Metric("%", False, "nearest class mean in a block's features agrees with the network"),
    }

    where: str = "blocks"
    label_sets: tuple[str, ...] = ()
    samples: int = number(2000, at_least=2, at_most=COUNT)

    def run(self, context: Context) -> Iterator[tuple[str, float, Place]]:
        data = context.data(self)
        tested = context.settings.split
        seen = {split: context.at_blocks(self, split, self.where, self.samples) for split in ("train", tested)}
        for split, rows in seen.items():
            yield from _spectra(rows, split)
        for labels in self.label_sets or (data.cfg.labels,):
            of = context.data(replace(self, labels=labels))
            ids = {split: _read(of, split, rows) for split, rows in seen.items()}
            own = of is context.trained_on
            for split, rows in seen.items():
                yield from _classes(seen["train"], ids["train"], rows, ids[split], own, Place("", labels, split))


def _read(data: DataModule, split: str, rows: BlockRows) -> np.ndarray:
    labels = data.labels(split)
    assert labels is not None, "samples were chosen by labels"
    own: np.ndarray = labels[rows.places]
    return own


def _spectra(rows: BlockRows, split: str) -> Iterator[tuple[str, float, Place]]:
    """What no label is needed for."""
    from ..analysis.spectrum import collapsed_share, effective_rank

    for block, features in rows.features.items():
        yield "block_effective_rank", effective_rank(features), Place(block, None, split)
        yield "block_collapsed", 100 * collapsed_share(features), Place(block, None, split)


def _classes(
    train: BlockRows, train_labels: np.ndarray, rows: BlockRows, labels: np.ndarray, own: bool, at: Place
) -> Iterator[tuple[str, float, Place]]:
    """What is told of classes. own: whether the network was trained on these labels, so that its answer is of them."""
    import torch

    from ..analysis.collapse import ClassMoments, cdnv_of

    targets = torch.from_numpy(labels)
    for block, features in rows.features.items():
        here = at._replace(block=block)
        learnt = ClassMoments.of([(train.features[block], torch.from_numpy(train_labels))])
        nearest = learnt.nearest(features)
        yield "block_cdnv", cdnv_of(ClassMoments.of([(features, targets)])), here
        yield "block_ncc_top1", 100 * float((nearest == targets).double().mean()), here
        if own:
            yield "block_ncc_agreement", 100 * float((nearest == rows.scores.argmax(1)).double().mean()), here
