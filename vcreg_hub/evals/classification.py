"""Top-1 and top-5 accuracy, single view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import DataError
from ..models.outputs import logits


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Any], accelerator: Any, classes: int) -> Iterator[tuple[str, float]]:
    """Yields ("top1", percent), ("top5", percent) where there are more than five classes, and ("loss", nats).

    batches: (images (b, c, h, w), labels (b,), ...), prepared by `accelerator`, so that each process sees its share;
    the samples that padding repeats are dropped before anything is counted. One whose label is negative could not be
    read: it is wrong, and has no loss. Errors: DataError when there is nothing to evaluate on.
    """
    was_training = model.training
    model.eval()
    hits1, hits5, losses = [], [], []
    for images, labels, *_ in batches:
        with accelerator.autocast():
            scores = logits(model(images)).float()
        scores, labels = accelerator.gather_for_metrics((scores, labels))
        ranked = scores.topk(min(5, scores.shape[-1]), dim=1).indices
        hits = ranked == labels[:, None]
        hits1.append(hits[:, 0])
        hits5.append(hits.any(1))
        read = labels >= 0
        losses.append(F.cross_entropy(scores[read], labels[read], reduction="none"))
    model.train(was_training)
    if not hits1:
        raise DataError("there is no image to evaluate on: the split is empty")
    loss = torch.cat(losses).double()
    if not len(loss):
        raise DataError("none of the samples to evaluate on could be read")
    yield "top1", 100 * torch.cat(hits1).double().mean().item()
    if classes > 5:
        yield "top5", 100 * torch.cat(hits5).double().mean().item()
    yield "loss", loss.mean().item()
