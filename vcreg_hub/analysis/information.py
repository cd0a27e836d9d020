"""Mutual information of two sets of vectors, by MINE: a small network learns to tell true pairs from shuffled ones.

The estimate is a lower bound, in nats, that no number of samples n lifts much above log n. What it finds between images
and deterministic features depends on the network and the sample as well, so such values are compared with one another
and never with those of another protocol.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import DataError

# Belghazi et al. 2018, section 3.2: the denominator of the gradient is a moving average over batches.
_AVERAGE_RATE = 0.01


def mutual_information(
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 3000,
    batch_size: int = 512,
    hidden: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> float:
    """A lower bound on I(x; y) in nats: E_joint[T] - log E_product[exp T], after T was trained on half of the rows.

    x: (n, d), y: (n, e), row by row the pairs. Columns are standardised; T is two hidden ReLU layers of `hidden` units,
    trained by Adam for `steps` batches and scored on the other half, which keeps a memorised sample out of the number.
    The result depends on the arguments and the seed alone; torch's own random stream stays where it was.
    Source: Belghazi et al. 2018 (MINE), with its bias-corrected gradient. Errors: DataError.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 4:
        raise DataError(f"expected pairs of vectors (n, d) and (n, e), got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = _standardised(x), _standardised(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        order = torch.randperm(len(x))
        train, test = order[: len(x) // 2], order[len(x) // 2 :]
        score = nn.Sequential(
            nn.Linear(x.shape[1] + y.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        optimizer = torch.optim.Adam(score.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        average: Tensor | None = None
        for _ in range(steps):
            batch = train[torch.randint(len(train), (min(batch_size, len(train)),))]
            joint = score(torch.cat([x[batch], y[batch]], 1)).mean()
            product = score(torch.cat([x[batch], y[batch[torch.randperm(len(batch))]]], 1)).exp().mean()
            now = product.detach()
            average = now if average is None else torch.lerp(average, now, _AVERAGE_RATE)
            loss = product / average - joint
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(score.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            return _bound(score, x[test], y[test])


def _bound(score: nn.Module, x: Tensor, y: Tensor, shifts: int = 20) -> float:
    """E_joint[T] - log E_product[exp T]; the product is every row of x with the rows of y that lie 1 to `shifts` on."""
    joint = float(score(torch.cat([x, y], 1)).double().mean())
    products = [score(torch.cat([x, y.roll(k, 0)], 1)).double() for k in range(1, min(shifts, len(x) - 1) + 1)]
    everything = torch.cat(products)
    return joint - (float(torch.logsumexp(everything, 0)) - math.log(len(everything)))


def _standardised(rows: Tensor) -> Tensor:
    rows = rows.detach().float().cpu()
    if not torch.isfinite(rows).all():
        raise DataError("the vectors hold values that are not finite")
    return (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-6)
