"""Accuracy over many views of each video: 10 clips x 3 crops in the paper, softmax averaged over them.

The steps are pure functions on tensors; `_evaluate` only walks a loader and gathers. Scores are kept by the
clip's number in its index, never by name or order, so that shares of several processes and repeated samples
merge to the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any, ClassVar

from ..config import Evaluation, Metric
from ..errors import ConfigError, DataError
from .accuracy import MEAN_PER_CLASS, TOP1, TOP5, accuracies

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.module import DataModule
    from ..data.video.batches import TestItem
    from ..data.video.module import VideoModule
    from .context import Context


@dataclass(frozen=True)
class MultiView(Evaluation):
    """The network's own classifier on `video.clips` x `video.crops` views of each file, averaged as `video.merge` says.
    A file that does not decode is wrong, and counted."""

    tag = "multi_view"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "top1": TOP1,
        "top5": TOP5,
        "mean_per_class": MEAN_PER_CLASS,
        "undecodable": Metric("clips", False, "test clips that do not decode; they count as wrong"),
    }
    uses_classifier = True

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        data, accelerator = _clips(context.data(self)), context.accelerator
        split = context.settings.split
        # Not prepared: a file's views stay together, and their scores are merged by the file's number.
        items = data.test_items(split, accelerator.process_index, accelerator.num_processes)
        return _evaluate(context.network, items, accelerator, data, split, context.settings.batch_size)

    def check(self, data: DataModule) -> None:
        _clips(data)

    def views(self, data: DataModule) -> str:
        video = _clips(data).video
        return f"{video.clips} clips x {video.crops} crops, mean {video.merge}{_clips(data).noise_note}"


def _clips(data: DataModule) -> VideoModule:
    from ..data.video.module import VideoModule

    if not isinstance(data, VideoModule):
        raise ConfigError("multi_view is of clips, but the recipe has images: --set evals=classification")
    return data


def _views(item: TestItem, data: VideoModule, batch_size: int, device: Any = None) -> Iterator[Tensor]:
    """The distinct views of one file in the order of `item.weights`, (b, t, c, size, size) float32 with b
    at most `batch_size`, on `device`. Frames that are bytes are normalised here, others were before."""
    import torch

    from ..data.video.noise import normalise
    from ..data.video.transforms import crop_at

    size, mean, std = data.cfg.image_size, data.mean, data.std
    frames = item.frames.to(device)
    pairs = [(clip, int(crop)) for clip in item.positions.to(device) for crop in item.crops]
    for start in range(0, len(pairs), batch_size):
        shown = [crop_at(frames[clip], crop, size) for clip, crop in pairs[start : start + batch_size]]
        if frames.dtype == torch.uint8:
            yield normalise(torch.cat(shown), mean, std).unflatten(0, (len(shown), -1))
        else:
            yield torch.stack(shown)


def _average(scores: Tensor, weights: Tensor, merge: str = "probability") -> Tensor:
    """Scores (v, classes) of one file's views to one row (classes,), float64.

    weights: (v,), the share of each view, summing to 1. merge: `probability` averages softmaxes, `score`
    raw scores.
    """
    scores = scores.double()
    return weights.to(scores) @ (scores.softmax(1) if merge == "probability" else scores)


def _merge_by_number(numbers: Tensor, rows: Tensor, wanted: Sequence[int]) -> Tensor:
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


def _metrics(rows: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    """Yields what `accuracies` finds and ("undecodable", count), from rows (n, classes) and labels (n,). A row of NaN
    is a file that did not decode: it is wrong, and counted."""
    lost = rows.isnan().any(1)
    ranked = rows.nan_to_num(0.0).topk(min(5, rows.shape[1]), dim=1).indices
    yield from accuracies(ranked, labels.where(~lost, -1 - labels), rows.shape[1]).items()
    yield "undecodable", float(lost.sum())


def _evaluate(
    network: nn.Module, items: Iterable[TestItem], accelerator: Any, data: VideoModule, split: str, batch_size: int
) -> Iterator[tuple[str, float]]:
    """Yields what `_metrics` does for the files of a split.

    items: this process's share, from `data.test_items`. batch_size: views at a time. Errors: DataError when the shares
    together do not cover the split.
    """
    import torch

    from ..models.outputs import logits
    from .extraction import progress_bar

    clips = data.part(split)
    if not len(clips):
        raise DataError("there is no video to evaluate on: the split is empty")
    classes = data.num_classes
    was_training = network.training
    network.eval()
    device = accelerator.device
    numbers, rows = [], []
    with torch.no_grad(), progress_bar(length_hint(items) or None, accelerator, "testing", "clip") as bar:
        for item in items:
            numbers.append(item.number)
            scores = []
            for shown in _views(item, data, batch_size, device):
                with accelerator.autocast():
                    scores.append(logits(network(shown)).float().cpu())
                if scores[-1].shape[1] != classes:
                    raise DataError(f"the network has {scores[-1].shape[1]} classes, {clips.index.name} has {classes}")
            rows.append(_average(torch.cat(scores), item.weights, data.video.merge) if scores else None)
            bar.update()
    network.train(was_training)
    nothing = torch.full((classes,), torch.nan)
    # In float32 for the exchange: not every device has float64.
    table = torch.stack([nothing, *(nothing if row is None else row.float() for row in rows)])[1:].to(device)
    keys = torch.tensor(numbers, dtype=torch.long, device=device)
    # Shares differ in length by one: they are padded for the exchange, with -1 for a number.
    keys, table = (accelerator.pad_across_processes(part, dim=0, pad_index=-1) for part in (keys, table))
    keys, table = accelerator.gather((keys, table))
    merged = _merge_by_number(keys.cpu(), table.cpu(), clips.numbers.tolist())
    yield from _metrics(merged, torch.from_numpy(clips.labels))
