"""How collapsed the frozen features are: the paper's Table 6, and how many directions they use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import Evaluation, Metric

if TYPE_CHECKING:
    import numpy as np

    from .context import Context, Rows


@dataclass(frozen=True)
class Collapse(Evaluation):
    """Class-distance normalised variance, nearest-class-mean accuracy, ranks and correlation of the classifier's
    input. labels: the classes suspected of collapse, those of the training by default.

    Less collapse is what transfers, so a metric is called better where it says so: CDNV and ranks high, the accuracy of
    nearest class means low.
    """

    tag = "collapse"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "cdnv": Metric("", True, "class-distance normalised variance of frozen features, mean over pairs of classes"),
        "directional_cdnv": Metric("", True, "the same, of the variance along the line between two class means"),
        "ncc_top1": Metric("%", False, "accuracy of the nearest class mean of the training features"),
        "ncc_agreement": Metric("%", False, "how often the nearest class mean is what the network answers"),
        "rankme": Metric("", True, "RankMe of frozen features"),
        "effective_rank": Metric("", True, "participation ratio of the covariance of frozen features"),
        "mean_correlation": Metric("", False, "mean absolute correlation of two channels of frozen features"),
        "collapsed": Metric("%", False, "share of the channels of frozen features with a deviation below 0.01"),
    }

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        train, test = context.features(self, "train"), context.features(self)
        yield from self.score(train, test)
        if context.data(self) is context.trained_on:  # else its answers are of other classes
            yield "ncc_agreement", self.agreement(train, test, context.predictions(self))

    @staticmethod
    def agreement(train: Rows, test: Rows, predictions: np.ndarray) -> float:
        """Percent of the test samples whose nearest class mean, of the training features, is what the network answers.

        predictions: (n,) of the test samples. Samples that could not be read are left out. 100 is collapsed.
        """
        import torch

        from ..analysis.collapse import ncc_agreement

        (rows, labels), (seen, read) = train, (test[0], test[1] >= 0)
        learnt = torch.from_numpy(rows[labels >= 0]), torch.from_numpy(labels[labels >= 0])
        return ncc_agreement(learnt, torch.from_numpy(seen[read]), torch.from_numpy(predictions[read]))

    def score(self, train: Rows, test: Rows) -> Iterator[tuple[str, float]]:
        """Yields every metric but the agreement.

        train, test: features (n, d) and labels (n,); the class means of "ncc_top1" are those of train, all else is of
        test. Samples that could not be read, with a negative label, are left out.
        Errors: DataError where features are not finite or all of one class.
        """
        import torch

        from ..analysis.collapse import cdnv, directional_cdnv, ncc_accuracy
        from ..analysis.spectrum import collapsed_share, effective_rank, mean_correlation, rankme

        learnt, seen = (
            (torch.from_numpy(rows[labels >= 0]), torch.from_numpy(labels[labels >= 0]))
            for rows, labels in (train, test)
        )
        yield "cdnv", cdnv(*seen)
        yield "directional_cdnv", directional_cdnv(*seen)
        yield "ncc_top1", ncc_accuracy(learnt, seen)
        yield "rankme", rankme(seen[0])
        yield "effective_rank", effective_rank(seen[0])
        yield "mean_correlation", mean_correlation(seen[0])
        yield "collapsed", 100 * collapsed_share(seen[0])
