"""Fine-tuning of the whole network on another data set, its rate and layer-wise decay chosen on validation samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, LARGEST_SEED, Evaluation, Metric, Optim, Train, number
from ..errors import ConfigError, DivergedError
from .accuracy import score_answers
from .samples import check_classes

if TYPE_CHECKING:
    from torch import nn

    from ..data.module import DataModule
    from .context import Context


@dataclass(frozen=True)
class Finetune(Evaluation):
    """Trains a copy of the network with a fresh classifier by AdamW, at every rate and layer-wise decay given, and
    tests the best one on validation samples.

    labels: `class`, also where training saw `superclass`. rates: learning rates at the peak of a cosine. layer_decays:
    of a layer, times its power of the layers above it; 1 trains all layers alike. epochs, batch_size, weight_decay,
    seed: of each training. With one rate and decay nothing is chosen, and no validation samples are needed. On
    `eval.split=val` the score is that of the choice.
    """

    tag = "finetune"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "finetune_top1": Metric("%", True, "top-1 accuracy after fine-tuning the whole network, {views}"),
        "finetune_mean_per_class": Metric(
            "%", True, "mean per-class accuracy after fine-tuning the whole network, {views}"
        ),
    }

    labels: str | None = "class"
    rates: tuple[float, ...] = number((1e-4, 3e-4, 1e-3), above=0, at_most=1_000_000)
    layer_decays: tuple[float, ...] = number((1.0, 0.75), above=0, at_most=1)
    epochs: int = number(20, at_least=1, at_most=1_000_000)
    batch_size: int = number(64, at_least=1, at_most=COUNT)
    weight_decay: float = number(0.05, at_least=0, at_most=1000)
    seed: int = number(0, at_least=0, at_most=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rates", "layer_decays"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is one number or more, got none")

    def check(self, data: DataModule) -> None:
        check_classes(data)
        choices = len(self.rates) * len(self.layer_decays)
        if data.size("train") < self.batch_size:
            raise ConfigError(
                f"finetune takes batches of {self.batch_size}, but {data} has {data.size('train')} training samples: "
                "lower it, such as --set evals.finetune.batch_size=16"
            )
        if choices > 1 and not data.size("val"):
            raise ConfigError(
                f"finetune has {choices} settings to choose from and {data} no validation samples: give one rate and "
                "decay, or hold some out: --set evals.finetune.data.val_fraction=0.2"
            )

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        data = context.data(self)
        assert context.tune is not None  # whoever evaluates a network can train a copy of it
        judge, path = data.metric, []
        best: tuple[float, float, float, nn.Module] | None = None
        for decay in self.layer_decays:
            for rate in self.rates:
                try:
                    network = context.tune(context.network, data, self._optim(rate, decay), self._train())
                except DivergedError:  # too high a rate, which is not the one to take
                    path.append({"rate": rate, "layer_decay": decay, "held_out": None})
                    continue
                alone = len(self.rates) * len(self.layer_decays) == 1
                score = 0.0 if alone else _measured(context, network, data, "val")[judge]
                path.append({"rate": rate, "layer_decay": decay, "held_out": None if alone else score})
                if best is None or score > best[0]:
                    best = score, rate, decay, network
        if best is None:
            raise DivergedError(f"fine-tuning on {data} diverged at every rate: {self.rates}. Give lower ones")
        _, rate, decay, network = best
        chosen = {"rate": rate, "layer_decay": decay}
        context.note(self, {**chosen, "judged_by": judge, "path": path}, **chosen)
        found = _measured(context, network, data, context.settings.split)
        for name in ("top1", "mean_per_class"):
            yield f"finetune_{name}", found[name]

    def _optim(self, rate: float, decay: float) -> Optim:
        return Optim(
            lr=rate, weight_decay=self.weight_decay, layer_decay=None if decay == 1 else decay, schedule_per="step",
            warmup_epochs=self.epochs // 10,
        )  # fmt: skip

    def _train(self) -> Train:
        return Train(epochs=self.epochs, batch_size=self.batch_size, seed=self.seed)


def _measured(context: Context, network: nn.Module, data: DataModule, split: str) -> dict[str, float]:
    """`accuracies` of a trained copy on a split."""
    from ..models.outputs import logits

    batches = context.batches(data, split)
    return score_answers(
        lambda samples: logits(network(samples)).argmax(1, keepdim=True), batches, context.accelerator, data.num_classes
    )[0]
