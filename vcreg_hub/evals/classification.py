"""Top-1 and top-5 accuracy under one view of each sample, of images and of clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any, ClassVar

from ..config import Evaluation, Metric
from ..errors import DataError
from .accuracy import GROUPED, TOP1, TOP5, accuracies, accuracies_by_frequency

if TYPE_CHECKING:
    from torch import nn

    from .context import Context


@dataclass(frozen=True)
class Classification(Evaluation):
    """The network's own classifier under one view: an image's centre, a clip from a video's middle.

    Where the training set is long-tailed, also by how many training samples a class has.
    """

    tag = "classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "top1": TOP1,
        "top5": TOP5,
        "loss": Metric("nats", False, "mean cross-entropy"),
        **GROUPED,
    }
    uses_classifier = True

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        data = context.data(self)
        counts = context.trained_on.class_counts
        return evaluate(context.network, context.batches(data), context.accelerator, data.num_classes, counts)


def evaluate(
    network: nn.Module, batches: Iterable[Any], accelerator: Any, classes: int, counts: Sequence[int] | None = None
) -> Iterator[tuple[str, float]]:
    """Yields ("top1", percent), ("top5", percent) for more than five classes, and ("loss", nats).

    batches: (samples (b, ...), labels (b,), ...), prepared by `accelerator`, so that each process sees its share; the
    samples that padding repeats are dropped before anything is counted. One whose label is negative could not be read:
    it is wrong, and has no loss. With `counts`, the training samples of each class, it also yields the accuracies of
    `GROUPED` where those are long-tailed. Errors: DataError when there is nothing to evaluate on.
    """
    import torch
    from torch.nn import functional as F

    from ..models.outputs import logits
    from .extraction import progress_bar

    was_training = network.training
    network.eval()
    ranked, targets, losses = [], [], []
    with torch.no_grad(), progress_bar(length_hint(batches) or None, accelerator, "testing", "batch") as bar:
        for samples, labels, *_ in batches:
            with accelerator.autocast():
                scores = logits(network(samples)).float()
            scores, labels = accelerator.gather_for_metrics((scores, labels))
            ranked.append(scores.topk(min(5, scores.shape[-1]), dim=1).indices)
            targets.append(labels)
            read = labels >= 0
            losses.append(F.cross_entropy(scores[read], labels[read], reduction="none"))
            bar.update()
    network.train(was_training)
    if not ranked:
        raise DataError("there is no image to evaluate on: the split is empty")
    loss = torch.cat(losses).double()
    if not len(loss):
        raise DataError("none of the samples to evaluate on could be read")
    found = accuracies(torch.cat(ranked), torch.cat(targets), classes)
    yield from ((name, found[name]) for name in ("top1", "top5") if name in found)
    yield from accuracies_by_frequency(torch.cat(ranked), torch.cat(targets), counts).items()
    yield "loss", loss.mean().item()
