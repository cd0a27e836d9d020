"""Pictures made up from a seed, of separable classes: for trying things out, never for a result.

`synthetic` is 10 classes and 3 channels, `synthetic:<classes>x<channels>` what it says, and `synthetic:<data set>`
stands in for another one: its classes, label sets and channels, few images, nothing read from disk. Where those are
not known without reading (a folder, `hf:`), it is 10 classes and 3 channels. An image is its class's own coarse pattern
with noise over it.
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from ...config import Data
from . import digits, fashion_mnist
from .source import LabelSet, Source, Split, label_set

PATTERN = 4  # cells a side


def _numbered(classes: int, coarse: int) -> dict[str, LabelSet]:
    return {
        "class": LabelSet(tuple(f"class {i}" for i in range(classes)), tuple(range(classes))),
        "superclass": LabelSet(
            tuple(f"superclass {i}" for i in range(coarse)), tuple(i % coarse for i in range(classes))
        ),
    }


# Label sets and channels of the data sets that can be stood in for.
STAND_INS = {
    "cifar10": (_numbered(10, 2), 3),
    "cifar100": (_numbered(100, 20), 3),
    "digits": (digits.LABELS, 1),
    "fashion_mnist": (fashion_mnist.LABELS, 1),
    "imagenet": (_numbered(1000, 10), 3),
}


class _PatternReader:
    """Image i: the pattern of its class plus noise drawn from (seed, i), `side` pixels a side."""

    def __init__(self, classes: np.ndarray, channels: int, side: int, seed: int) -> None:
        self.classes, self.channels, self.side, self.seed = classes, channels, side, seed

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, index: int) -> Image.Image:
        shape = (PATTERN, PATTERN, self.channels)
        pattern = np.random.RandomState(int(self.classes[index])).randint(32, 224, shape)
        noise = np.random.RandomState((self.seed * 1_000_003 + index) % 2**32).randint(-31, 32, shape)
        pixels = (pattern + noise).astype(np.uint8)
        image = Image.fromarray(pixels[:, :, 0] if self.channels == 1 else pixels)
        return image.resize((self.side, self.side), Image.Resampling.BILINEAR)

    def where(self, index: int) -> str:
        return f"synthetic image {index}"

    def fingerprint(self) -> str:
        return f"synthetic {self.classes.tolist()} {self.channels} {self.side} {self.seed}"


def load(cfg: Data) -> Source:
    """Errors: UnknownNameError for a label set absent from the imitated data set."""
    asked = cfg.name.partition(":")[2]
    shape = re.fullmatch(r"([1-9]\d*)x([13])", asked)
    train_images, test_images = (64, 32) if asked and not shape else (512, 128)
    sets, channels = STAND_INS.get(asked, (_numbered(10, 3), 3))
    if shape is not None:
        classes = int(shape[1])
        sets, channels = _numbered(classes, min(classes, max(2, classes // 3))), int(shape[2])
    # A folder or an `hf:` data set may be asked for any column.
    known = asked in STAND_INS or shape is not None or not asked
    labels = label_set(sets, cfg.labels if known or cfg.labels in sets else "class", cfg.name)

    def split(count: int, seed: int) -> Split:
        ids = np.arange(count) % len(labels.of_class)
        return Split(_PatternReader(ids, channels, cfg.image_size, seed), ids, np.array(labels.of_class)[ids])

    wanted = round((cfg.train_images or 0) / (1 - cfg.val_fraction))
    return Source(split(max(train_images, wanted), 1), None, split(test_images, 2), labels.names,
                  (0.5,) * channels, (0.25,) * channels, "made up")  # fmt: skip
