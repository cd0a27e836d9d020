"""Checks a probe's training and test samples before anything long begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import DataError, counted, some

if TYPE_CHECKING:
    from ..data.module import DataModule
    from .context import Rows


def check_classes(data: DataModule, each: int = 1) -> None:
    """Whether a probe can learn the classes of a data set: two or more, each with `each` training samples.

    A stream is not read for it.
    Errors: DataError naming the classes.
    """
    import numpy as np

    parts = [data.labels(part) for part in ("train", "val", "test")]
    train = parts[0]
    if train is None:
        return
    counts = np.bincount(train, minlength=data.num_classes)
    seen = np.unique(np.concatenate([part for part in parts if part is not None]))
    names = data.class_names
    if len(seen) < 2:
        raise DataError(f"{data}: a probe tells classes apart, but there is only {names[int(seen[0])]!r}")
    if len(train) < len(seen):
        raise DataError(
            f"{data}: {counted(len(train), 'training sample')} for {len(seen)} classes: a probe needs one of each or "
            "more; raise data.train_images, or lower data.val_fraction"
        )
    if lacking := [names[i] for i in seen if counts[i] < each]:
        few = "no training sample" if each == 1 else f"fewer than {each} training samples"
        raise DataError(
            f"{data}: {few} of {counted(len(lacking), 'class', 'classes')}, which a probe is to tell apart: "
            f"{some(lacking)}. Give more of them, raise data.train_images or lower data.val_fraction"
        )


def check_rows(parts: Mapping[str, Rows]) -> None:
    """Whether features and labels fit one another.

    parts: name -> features (n, d) and labels (n,), "training" first; negative labels are of samples that could not be
    read, whose features count for nothing.
    Errors: DataError for other shapes or widths, values that are not finite, fewer than two classes in the training
    labels, and labels that they do not have.
    """
    import numpy as np

    width = parts["training"][0].shape[-1]
    known = np.unique(parts["training"][1][parts["training"][1] >= 0])
    for name, (rows, labels) in parts.items():
        if rows.ndim != 2 or labels.shape != rows.shape[:1]:
            raise DataError(f"expected {name} features (n, d) and labels (n,), got {rows.shape} and {labels.shape}")
        if rows.shape[1] != width:
            raise DataError(f"the {name} features are {rows.shape[1]} wide, those of the training {width}")
        if not np.isfinite(rows[labels >= 0]).all():
            raise DataError(f"the {name} features hold values that are not finite: has the training diverged?")
    if len(known) < 2:
        raise DataError("a linear probe needs two classes or more in its training labels")
    for name, (_, labels) in parts.items():
        true = np.where(labels < 0, -1 - labels, labels)
        foreign = np.setdiff1d(true, known)
        if len(foreign):
            raise DataError(
                f"the {name} labels hold {foreign.max()}, but training has {len(known)} classes up to {known.max()}: "
                "are they of another label set?"
            )
