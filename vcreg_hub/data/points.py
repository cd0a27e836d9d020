"""Points in the plane: the two moons of Pezeshki et al. (2021), drawn anew for each seed.

scikit-learn's moons are shifted along one axis until a straight line may part them. Class y, -1 or 1, then lies on the
side -y of the line x = 0 and is `margin` or more away from it; under a negative margin the two overlap, and only their
curves tell them apart:

    moons           no gap and no overlap
    moons:0.1       a gap of 0.2, their training data
    moons:-0.4      an overlap of 0.8
    moons:0.1@45    the first turned by 45 degrees
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ..config import Data, Train
from ..errors import ConfigError
from .batches import TrainLoader, in_order, part_of
from .module import DataModule
from .randomness import derive_seed

# Their number of training points, spread of the noise, and how many steps this package calls an epoch.
_TRAIN, _NOISE, _STEPS = 300, 0.1, 1000
_HELD_OUT = {"val": 2000, "test": 10_000}


def two_moons(count: int, seed: int, margin: float = 0.1, degrees: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) float32 and labels (count,) int64 of 0 and 1.

    seed: scikit-learn's random state. Source: `Figure_3/moon_fig_3.py` of mohammadpz/Gradient_Starvation.
    """
    from sklearn.datasets import make_moons

    points, labels = make_moons(count, noise=_NOISE, random_state=seed)
    sign = 2 * labels - 1
    along, across = points[:, 0] - 0.5, points[:, 1] - 0.3 * sign
    across = -sign * (np.abs(across - across.mean()) + margin)
    turn = math.radians(degrees)
    x, y = math.cos(turn) * across - math.sin(turn) * along, math.sin(turn) * across + math.cos(turn) * along
    return np.stack([x, y], axis=1).astype(np.float32), labels.astype(np.int64)


@dataclass(frozen=True)
class _Part:
    """points: (n, 2) float32. labels: (n,) int64."""

    points: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PointData:
    """The three splits, each a draw of its own."""

    train: _Part
    val: _Part
    test: _Part
    class_names: tuple[str, ...] = ("left", "right")
    num_classes: int = 2
    in_chans: int = 2
    mean: tuple[float, ...] = (0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0)


@dataclass(frozen=True)
class PointModule(DataModule):
    """Points under the face of every data set. Every step of the training sees all training points.

    `data.split_seed` draws them; a recipe gives its own seed there. `data.train_images` is their number.
    """

    sets: PointData
    single_view = "as they are"
    noun = "points"

    @classmethod
    def load(cls, cfg: Data) -> PointModule:
        """Errors: ConfigError for a name that is none of the above, and for settings that points do not have."""
        margin, degrees = parse_moons(cfg.name)
        if cfg.labels != "class" or cfg.val_fraction:
            raise ConfigError(
                f"{cfg.name} has the labels 'class' and draws validation points of its own, got data.labels="
                f"{cfg.labels} and data.val_fraction={cfg.val_fraction}"
            )
        counts = {"train": cfg.train_images or _TRAIN, **_HELD_OUT}
        # The training points are those of the original code for that seed.
        seeds = {"train": cfg.split_seed}
        seeds |= {split: derive_seed(cfg.split_seed, i) % 2**32 for i, split in enumerate(_HELD_OUT, 1)}
        train, val, test = (_Part(*two_moons(counts[split], seeds[split], margin, degrees)) for split in counts)
        return cls(cfg, PointData(train, val, test))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2,)

    def labels(self, split: str) -> np.ndarray:
        return part_of(self._parts, split).labels

    def moved(self, margin: float) -> Data:
        """The settings of the same draw under another margin."""
        _, degrees = parse_moons(self.cfg.name)
        return replace(self.cfg, name=f"moons:{margin:g}" + (f"@{degrees:g}" if degrees else ""))

    def train_batches(self, train: Train, rank: int, world: int, views: int = 1) -> TrainLoader:
        part = self.sets.train
        if (train.batch_size, train.accumulation, world, views) != (len(part), 1, 1, 1) or train.mixup or train.cutmix:
            raise ConfigError(
                f"{self.cfg.name}: a step sees all {len(part)} points, in one view, on one process; set "
                f"train.batch_size={len(part)}, and neither train.accumulation, train.mixup nor train.cutmix"
            )
        steps = _Steps(torch.from_numpy(part.points), torch.from_numpy(part.labels))
        return TrainLoader(DataLoader(steps, batch_size=None, generator=torch.Generator()), _STEPS, train.seed, steps)

    def eval_batches(self, split: str, batch_size: int) -> DataLoader:
        part = part_of(self._parts, split)
        numbers = torch.arange(len(part))
        points = TensorDataset(torch.from_numpy(part.points), torch.from_numpy(part.labels), numbers)
        return in_order(points, batch_size, workers=0)

    @property
    def _parts(self) -> dict[str, _Part]:
        return {"train": self.sets.train, "val": self.sets.val, "test": self.sets.test}


class _Steps(Dataset):
    """The same batch at every step."""

    def __init__(self, points: Tensor, labels: Tensor) -> None:
        self.batch = points, labels

    def __len__(self) -> int:
        return _STEPS

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.batch

    def set_epoch(self, epoch: int) -> None:
        """Nothing is shuffled."""


def parse_moons(name: str) -> tuple[float, float]:
    """(margin, degrees) in a data set's name. Errors: ConfigError.

    >>> parse_moons("moons:-0.4@45")
    (-0.4, 45.0)
    """
    _, _, rest = name.partition(":")
    margin, _, degrees = rest.partition("@")
    try:
        found = float(margin or 0), float(degrees or 0)
    except ValueError:
        found = math.nan, math.nan
    if not all(map(math.isfinite, found)):
        raise ConfigError(f"{name}: expected moons:<margin>@<degrees>, such as moons:0.1 or moons:-0.4@45")
    return found
