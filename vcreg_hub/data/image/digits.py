"""scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 grey levels; no download.

The data set has one part. The 500 test images are drawn once and for all, stratified by digit with seed 0; the other
1,297 are for training.
"""

from __future__ import annotations

import numpy as np

from ...config import Data
from ..splits import stratified
from .source import ArrayReader, LabelSet, Source, Split, label_set

TEST_IMAGES = 500
LABELS = {
    "class": LabelSet(tuple("0123456789"), tuple(range(10))),
    "superclass": LabelSet(("even", "odd"), (0, 1) * 5),
}
# Over the 1,297 training images.
MEAN, STD = (0.3061,), (0.3764,)


def load(cfg: Data) -> Source:
    from sklearn.datasets import load_digits

    labels = label_set(LABELS, cfg.labels, "digits")
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    classes = bunch.target.astype(np.int64)
    test = stratified(classes, TEST_IMAGES, seed=0)
    train = np.setdiff1d(np.arange(len(classes)), test)

    def split(indices: np.ndarray, name: str) -> Split:
        chosen = classes[indices]
        return Split(ArrayReader(pixels[indices], f"digits/{name}"), chosen, np.array(labels.of_class)[chosen])

    return Source(
        split(train, "train"),
        None,
        split(test, "test"),
        labels.names,
        MEAN,
        STD,
        "scikit-learn's load_digits",
    )
