"""Linear probes of one, five and ten training samples a class, averaged over draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, Evaluation, Metric, number
from .accuracy import accuracies
from .samples import check_classes, check_rows

if TYPE_CHECKING:
    import numpy as np

    from ..data.module import DataModule
    from .context import Context, Rows

_SHOTS = (1, 5, 10)


@dataclass(frozen=True)
class FewShot(Evaluation):
    """Logistic regression on the frozen features of few training samples, scored on the whole test part.

    labels: `class`, also where training saw `superclass`. draws: how often the samples are drawn; the accuracy is the
    mean over the draws, each of which is in results.json. penalty: lambda of `linear_probe`; it is given, because so
    few samples leave none to choose it by.
    """

    tag = "few_shot"
    metrics: ClassVar[Mapping[str, Metric]] = {
        f"few_shot{shots}_top1": Metric(
            "%", True, f"top-1 accuracy of a linear probe on frozen features of {shots} training samples a class"
        )
        for shots in _SHOTS
    }

    labels: str | None = "class"
    draws: int = number(5, at_least=1, at_most=10_000)
    penalty: float = number(1.0, above=0, at_most=COUNT)

    def check(self, data: DataModule) -> None:
        check_classes(data, each=max(_SHOTS))

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        found = self.score(context.features(self, "train"), context.features(self))
        context.note(self, draws={str(shots): values for shots, values in found.items()})
        for shots, values in found.items():
            yield f"few_shot{shots}_top1", sum(values) / len(values)

    def score(self, train: Rows, test: Rows) -> dict[int, list[float]]:
        """The top-1 accuracy in percent of every draw, by the number of samples a class.

        train, test: features (n, d) and labels (n,). The samples of a draw depend on its number and the labels alone,
        and those of fewer shots are among those of more.
        Errors: those of `check_rows`; DataError for a class with fewer samples than shots.
        """
        import numpy as np
        import torch

        from .logistic_regression import fit_logistic

        check_rows({"training": train, "test": test})
        truth, shown = torch.from_numpy(test[1]), torch.from_numpy(test[0])
        classes = 1 + int(train[1].max())
        found: dict[int, list[float]] = {shots: [] for shots in _SHOTS}
        for draw in range(self.draws):
            order = _drawn(train[1], draw)
            for shots in _SHOTS:
                rows = np.sort(order[:, :shots].ravel())
                fit = fit_logistic(
                    torch.from_numpy(train[0][rows]), torch.from_numpy(train[1][rows]), [self.penalty], classes=classes
                )
                found[shots].append(accuracies(fit.predict(shown)[0][:, None], truth, classes)["top1"])
        return found


def _drawn(labels: np.ndarray, draw: int) -> np.ndarray:
    """Row numbers (classes, most shots), a row a class that occurs."""
    import numpy as np

    from ..errors import DataError

    random = np.random.RandomState(draw)
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    if counts.min() < max(_SHOTS):
        raise DataError(f"class {known[counts.argmin()]} has {counts.min()} readable samples, not {max(_SHOTS)}")
    return np.stack([random.permutation(np.flatnonzero(labels == c))[: max(_SHOTS)] for c in known])
