"""Frozen features: what enters the classifier, for every image of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import DataError
from ..models.outputs import features


@torch.no_grad()
def extract(model: nn.Module, batches: Iterable[Any], accelerator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) as float32 and labels (n,) as int64, the same on every process.

    batches: (images, labels, ...), prepared by `accelerator`. The model is put into evaluation mode and back.
    """
    was_training = model.training
    model.eval()
    rows, targets = [], []
    for images, labels, *_ in batches:
        with accelerator.autocast():
            found = features(model, images).float()
        found, labels = accelerator.gather_for_metrics((found, labels))
        rows.append(found.cpu().numpy())
        targets.append(labels.cpu().numpy())
    model.train(was_training)
    if not rows:
        raise DataError("there is no image to extract features from: the split is empty")
    return np.concatenate(rows), np.concatenate(targets).astype(np.int64)
