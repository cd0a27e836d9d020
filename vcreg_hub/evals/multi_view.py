"""Video classification over many views of each file: 10 clips x 3 crops in the paper, softmax averaged over
them.

The steps are pure functions on tensors; `evaluate` only walks a loader and gathers. Scores are kept by the
clip's number in its index, never by name or order, so that shares of several processes and repeated samples
merge to the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.video.loader import TestItem
from ..data.video.noise import normalise
from ..data.video.transforms import crop_at
from ..data.video.videos import ClipList
from ..errors import DataError
from ..models.outputs import logits


def views(
    item: TestItem, size: int, mean: Sequence[float], std: Sequence[float], batch_size: int, device: Any = None
) -> Iterator[Tensor]:
    """The distinct views of one file in the order of `item.weights`, (b, t, c, size, size) float32 with b
    at most `batch_size`, on `device`. Frames that are bytes are normalised here, others were before."""
    frames = item.frames.to(device)
    pairs = [(clip, int(crop)) for clip in item.positions.to(device) for crop in item.crops]
    for start in range(0, len(pairs), batch_size):
        shown = [crop_at(frames[clip], crop, size) for clip, crop in pairs[start : start + batch_size]]
        if frames.dtype == torch.uint8:
            yield normalise(torch.cat(shown), mean, std).unflatten(0, (len(shown), -1))
        else:
            yield torch.stack(shown)


def average(scores: Tensor, weights: Tensor, merge: str = "probability") -> Tensor:
    """Scores (v, classes) of one file's views to one row (classes,), float64.

    weights: (v,), the share of each view, summing to 1. merge: `probability` averages softmaxes, `score`
    raw scores.
    """
    scores = scores.double()
    return weights.to(scores) @ (scores.softmax(1) if merge == "probability" else scores)


def merge_by_number(numbers: Tensor, rows: Tensor, wanted: Sequence[int]) -> Tensor:
    """The row of each of `wanted` (n, classes), from rows (m, classes) that `numbers` (m,) name in any order.

    Of a number that occurs several times the first row is taken; negative numbers are padding. Errors:
    DataError when one of `wanted` is missing.
    """
    place: dict[int, int] = {}
    for i, number in enumerate(numbers.tolist()):
        if number >= 0:
            place.setdefault(number, i)
    missing = [number for number in wanted if number not in place]
    if missing:
        raise DataError(f"{len(missing)} of {len(wanted)} clips were never evaluated, such as clip {missing[0]}")
    return rows[[place[int(number)] for number in wanted]]


def accuracies(rows: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    """Yields ("top1", percent), ("top5", percent) where there are more than five classes,
    ("mean_per_class", percent) and ("undecodable", count), from rows (n, classes) and labels (n,). A row of
    NaN is a file that did not decode: it is wrong, and counted."""
    lost = rows.isnan().any(1)
    ranked = rows.nan_to_num(0.0).topk(min(5, rows.shape[1]), dim=1).indices
    hits = (ranked == labels[:, None]) & ~lost[:, None]
    first = hits[:, 0].double()
    yield "top1", 100 * first.mean().item()
    if rows.shape[1] > 5:
        yield "top5", 100 * hits.any(1).double().mean().item()
    yield "mean_per_class", 100 * torch.stack([first[labels == c].mean() for c in labels.unique()]).mean().item()
    yield "undecodable", float(lost.sum())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    items: Iterable[TestItem],
    accelerator: Any,
    clips: ClipList,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    merge: str = "probability",
) -> Iterator[tuple[str, float]]:
    """Yields what `accuracies` does for the files of `clips`.

    items: this process's share, from `video_test_loader`. size: of the square view. batch_size: views at a
    time. Errors: DataError when the shares together do not cover `clips`.
    """
    if not len(clips):
        raise DataError("there is no video to evaluate on: the split is empty")
    classes = len(clips.index.class_names)
    was_training = model.training
    model.eval()
    device = accelerator.device
    numbers, rows = [], []
    for item in items:
        numbers.append(item.number)
        scores = []
        for shown in views(item, size, mean, std, batch_size, device):
            with accelerator.autocast():
                scores.append(logits(model(shown)).float().cpu())
            if scores[-1].shape[1] != classes:
                raise DataError(f"the network has {scores[-1].shape[1]} classes, {clips.index.name} has {classes}")
        rows.append(average(torch.cat(scores), item.weights, merge) if scores else None)
    model.train(was_training)
    nothing = torch.full((classes,), torch.nan)
    # In float32 for the exchange: not every device has float64.
    table = torch.stack([nothing, *(nothing if row is None else row.float() for row in rows)])[1:].to(device)
    keys = torch.tensor(numbers, dtype=torch.long, device=device)
    # Shares differ in length by one: they are padded for the exchange, with -1 for a number.
    keys, table = (accelerator.pad_across_processes(part, dim=0, pad_index=-1) for part in (keys, table))
    keys, table = accelerator.gather((keys, table))
    merged = merge_by_number(keys.cpu(), table.cpu(), clips.numbers.tolist())
    yield from accuracies(merged, torch.from_numpy(clips.labels))
