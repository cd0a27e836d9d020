"""Classifiers side by side on a frozen network, one a learning rate, trained in one pass of the data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Train
from ..models.outputs import features
from .accuracy import score_answers

if TYPE_CHECKING:
    from ..data.module import DataModule
    from .context import Context
    from .linear import Linear

_PER_IMAGES = 256  # a rate is that of a batch of so many
_MOMENTUM, _STEP = 0.9, 0.1


class Heads(nn.Module):
    """`count` classifiers of features (n, width), all alike at the start: weights of N(0, 0.01), no bias.

    Called, it gives (count, n, classes). batchnorm: each normalises the features first, with a scale and shift of its
    own.
    """

    def __init__(self, count: int, width: int, classes: int, *, batchnorm: bool, seed: int) -> None:
        super().__init__()
        start = torch.empty(classes, width).normal_(0, 0.01, generator=torch.Generator().manual_seed(seed))
        self.norms, self.linears = nn.ModuleList(), nn.ModuleList()
        for _ in range(count):
            linear = nn.Linear(width, classes)
            with torch.no_grad():
                linear.weight.copy_(start)
                linear.bias.zero_()
            self.norms.append(nn.BatchNorm1d(width) if batchnorm else nn.Identity())
            self.linears.append(linear)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.stack([linear(norm(rows)) for norm, linear in zip(self.norms, self.linears, strict=True)])


def train_heads(settings: Linear, context: Context) -> tuple[Heads, list[list[float | None]]]:
    """Heads trained on every process's share of the batches, and the mean loss of each in every epoch.

    The network stays as it is, in evaluation mode. A head that diverges loses the choice.
    Errors: ConfigError for batches that do not divide among the processes.
    """
    network, accelerator, data = context.network, context.accelerator, context.data(settings)
    train = Train(epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    batches = data.train_batches(train, accelerator.process_index, accelerator.num_processes)
    was_training = network.training
    network.eval()
    heads: Heads | None = None
    wrapped: Any = None
    optimizer: Any = None
    losses: list[list[float | None]] = []
    for epoch in range(settings.epochs):
        batches.set_epoch(epoch)
        sums = torch.zeros(len(settings.rates), device=accelerator.device)
        for samples, labels, *_ in batches:
            samples, labels = samples.to(accelerator.device), labels.to(accelerator.device)
            with torch.no_grad(), accelerator.autocast():
                rows = features(network, samples).float()
            if heads is None:
                heads = Heads(
                    len(settings.rates),
                    rows.shape[1],
                    data.num_classes,
                    batchnorm=settings.batchnorm,
                    seed=settings.seed,
                ).to(accelerator.device)
                wrapped, optimizer = accelerator.prepare(heads, _optimizer(settings, heads))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _STEP ** sum(epoch >= milestone for milestone in settings.milestones)
            every = torch.stack([F.cross_entropy(scores.float(), labels) for scores in wrapped(rows)])
            accelerator.backward(every.sum())  # no head sees another one's gradient
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            sums += every.detach()
        means: list[float] = (accelerator.reduce(sums, "mean") / len(batches)).tolist()
        losses.append([mean if math.isfinite(mean) else None for mean in means])  # JSON knows no NaN
    network.train(was_training)
    assert heads is not None  # an epoch without a batch is refused where the batches are made
    return heads.eval(), losses


def _optimizer(settings: Linear, heads: Heads) -> Any:
    """SGD with a group a head, and one for its normalisation, which is not decayed."""
    groups: list[dict[str, Any]] = []
    for rate, norm, linear in zip(settings.rates, heads.norms, heads.linears, strict=True):
        peak = rate * settings.batch_size / _PER_IMAGES
        groups.append({"params": list(linear.parameters()), "weight_decay": settings.weight_decay, "peak": peak})
        if scale := list(norm.parameters()):
            groups.append({"params": scale, "weight_decay": 0.0, "peak": peak})
    return torch.optim.SGD(groups, lr=0.0, momentum=_MOMENTUM, nesterov=True)


def score_heads(heads: Heads, context: Context, data: DataModule, split: str) -> list[dict[str, float]]:
    """`accuracies` of each head on a split, the same on every process."""
    network = context.network
    was_training = network.training
    network.eval()
    batches = context.batches(data, split)
    found = score_answers(
        lambda samples: heads(features(network, samples).float()).argmax(2).T,
        batches,
        context.accelerator,
        data.num_classes,
    )
    network.train(was_training)
    return found
