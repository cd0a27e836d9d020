"""Linear classifiers trained by SGD on a frozen network: the probe of iNaturalist 2018 and Places205.

The protocol of VISSL and PIRL (Misra and van der Maaten, 2020), which the paper's C.1 follows: random crops and flips,
batches of 256, SGD with Nesterov momentum 0.9, and before the classifier a batch normalisation of the features, without
which these two data sets stay far below the published numbers. Several learning rates are trained in one pass: they see
the same features, which are most of the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, LARGEST_SEED, Evaluation, Metric, number
from ..errors import ConfigError
from .samples import check_classes

if TYPE_CHECKING:
    from ..data.module import DataModule
    from .context import Context


@dataclass(frozen=True)
class Linear(Evaluation):
    """Linear classifiers on a frozen network, trained by SGD at several rates; the best on validation data is tested.

    labels: `class`, also where training saw `superclass`. rates: learning rates of 256 samples, scaled with the batch.
    epochs, milestones: a rate is divided by ten after so many epochs. The defaults are VISSL's for iNaturalist 2018;
    for Places205 they are 14 and 4, 8, 12. batchnorm: normalise the features as VISSL does; each process by its own
    share of the batch. weight_decay: of weights and biases, not of the normalisation.
    batch_size, seed: of the training.
    With one rate nothing is chosen, and no validation data are needed. On `eval.split=val` the score is that of
    the rate that was chosen there.
    """

    tag = "linear"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "linear_top1": Metric("%", True, "top-1 accuracy of a linear classifier trained by SGD on the frozen network"),
        "linear_mean_per_class": Metric(
            "%", True, "mean per-class accuracy of a linear classifier trained by SGD on the frozen network"
        ),
    }

    labels: str | None = "class"
    rates: tuple[float, ...] = number((0.003, 0.01, 0.03, 0.1), above=0, at_most=1_000_000)
    epochs: int = number(84, at_least=1, at_most=1_000_000)
    milestones: tuple[int, ...] = number((24, 48, 72), at_least=0, at_most=1_000_000)
    batch_size: int = number(256, at_least=1, at_most=COUNT)
    weight_decay: float = number(5e-4, at_least=0, at_most=1000)
    batchnorm: bool = True
    seed: int = number(0, at_least=0, at_most=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rates:
            raise ConfigError("rates is one number or more, got none")

    def check(self, data: DataModule) -> None:
        check_classes(data)
        if data.size("train") < self.batch_size:
            raise ConfigError(
                f"linear takes batches of {self.batch_size}, but {data} has {data.size('train')} training samples: "
                "lower it, such as --set evals.linear.batch_size=32"
            )
        if len(self.rates) > 1 and not data.size("val"):
            raise ConfigError(
                f"linear has {len(self.rates)} rates to choose from and {data} no validation samples: give one, such "
                "as --set evals.linear.rates=[0.01], or hold some out: --set evals.linear.data.val_fraction=0.05"
            )

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        from .heads import score_heads, train_heads

        data = context.data(self)
        heads, losses = train_heads(self, context)
        judge = data.metric
        held_out = [found[judge] for found in score_heads(heads, context, data, "val")] if len(self.rates) > 1 else None
        best = 0 if held_out is None else max(range(len(self.rates)), key=held_out.__getitem__)
        found = score_heads(heads, context, data, context.settings.split)[best]
        search = {
            "rate": self.rates[best],
            "judged_by": judge,
            "rates": list(self.rates),
            "held_out": held_out,
            "losses": losses,
        }
        context.note(self, search, rate=self.rates[best])
        for name in ("top1", "mean_per_class"):
            yield f"linear_{name}", found[name]
