"""Embeddings: their projector, and those of every process as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def projector(width: int, widths: Sequence[int], norm: str) -> nn.Sequential:
    """Linear layers from features of `width` to embeddings of the last of `widths`, with ReLU between them.

    norm: batch normalisation after every layer (`all`), after every layer but the last (`hidden`), or `none`.
    """
    layers: list[nn.Module] = []
    for i, out in enumerate(widths):
        last = i == len(widths) - 1
        normalised = norm == "all" or (norm == "hidden" and not last)
        # What a normalisation subtracts again needs no bias.
        layers.append(nn.Linear(width, out, bias=not normalised))
        layers += [nn.BatchNorm1d(out)] * normalised + [nn.ReLU()] * (not last)
        width = out
    return nn.Sequential(*layers)


def gathered(z: Tensor) -> tuple[Tensor, int]:
    """The rows (n, e) of every process, (processes * n, e), and where this process's begin among them.

    Gradients go back to the process that a row comes from, summed over the losses of all: with the mean that
    DistributedDataParallel takes, processes that average a loss over their own rows do as one with the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return z, 0
    every: Tensor = _Gather.apply(z)
    return every, dist.get_rank() * z.shape[0]


class _Gather(torch.autograd.Function):
    """An all_gather with a gradient: torch deprecates its own, and what follows it is private yet."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.rows = z.shape[0]
        every = [torch.empty_like(z) for _ in range(dist.get_world_size())]
        dist.all_gather(every, z.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)
