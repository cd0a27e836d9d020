"""The rows of results.json: the quantity, its value, and the identity of a row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from ..files import JSON

_IDENTITY = ("metric", "dataset", "dataset_config", "settings", "split", "fold", "sigma", "block")


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The identity of a row of results.json; rows with the same one replace one another.

    The protocol is no part of it: it also says which epoch's weights were kept, and that differs from seed to seed.
    """
    return tuple(row.get(name) for name in _IDENTITY)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """The measured quantity. fold: a train/test split, of a data set with several. sigma: standard deviation of the
    noise on the test clips, if any. protocol: how it was measured, in words. settings: those of the evaluation that
    are not its defaults, such as "penalty 10". block: a site of the network, where each has a value."""

    metric: str
    unit: str
    higher_is_better: bool
    dataset: str
    dataset_config: str
    split: str
    protocol: str = ""
    fold: int | None = None
    sigma: float | None = None
    settings: str | None = None
    block: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        return identity(vars(self))

    @property
    def full_config(self) -> str:
        """The label set, the settings and the noise: "class, penalty 10, sigma 1.5"."""
        return _joined(", ".join(filter(None, (self.dataset_config, self.settings))), "sigma", self.sigma)

    @property
    def full_split(self) -> str:
        """The split and its fold: "test, fold 2"."""
        return _joined(self.split, "fold", self.fold)


@dataclass(frozen=True, kw_only=True)
class Result(Quantity):
    """One row of results.json. extra: its further keys, kept as they are."""

    value: float
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str | Path) -> Result:
        """A row as it stands in the file `where`. Errors: RunFolderError, naming the file and the fault."""
        try:
            found = cls(
                metric=str(row["metric"]),
                value=float(row["value"]),
                unit=str(row.get("unit") or ""),
                higher_is_better=bool(row["higher_is_better"]),
                dataset=str(row["dataset"]),
                dataset_config=str(row.get("dataset_config") or ""),
                split=str(row.get("split") or "test"),
                protocol=str(row.get("protocol") or ""),
                seed=None if row.get("seed") is None else int(row["seed"]),
                fold=None if row.get("fold") is None else int(row["fold"]),
                # As it stands there: "sigma 1" and "sigma 1.0" are told apart in texts that exist.
                sigma=None if row.get("sigma") is None else row["sigma"] + 0,
                settings=None if row.get("settings") is None else str(row["settings"]),
                block=row.get("block"),
                extra={name: value for name, value in row.items() if name not in _FIELDS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{where}: a metric needs metric, value, higher_is_better, dataset: {error!r}"
            ) from None
        if not math.isfinite(found.value):
            raise RunFolderError(f"{where}: {found.metric} on {found.dataset} is {found.value}: not a finite number")
        return found

    def to_json(self) -> JSON:
        """The row for results.json, without fields not given."""
        row = {
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "dataset": self.dataset,
            "dataset_config": self.dataset_config,
            "split": self.split,
            **({"protocol": self.protocol} if self.protocol else {}),
            **{name: value for name in _WHERE_GIVEN if (value := getattr(self, name)) is not None},
        }
        return row | dict(self.extra)

    @property
    def quantity(self) -> Quantity:
        return Quantity(**{name: getattr(self, name) for name in _MEASURED})


_WHERE_GIVEN = ("seed", "fold", "sigma", "settings", "block")
_MEASURED = tuple(one.name for one in dataclasses.fields(Quantity))
_FIELDS = {one.name for one in dataclasses.fields(Result)} - {"extra"}


def read_results(results: Mapping[str, Any], where: str | Path) -> tuple[Result, ...]:
    """The rows of the results.json at `where`, checked.

    Errors: RunFolderError for what is no list of rows, for a broken row, and for two that are the same number.
    """
    rows = results.get("metrics")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunFolderError(f"{where}: 'metrics' is a list of objects, got {type(rows).__name__}")
    found = tuple(Result.from_json(row, where) for row in rows)
    seen: set[tuple[Any, ...]] = set()
    for result in found:
        if result.identity in seen:
            told = (result.metric, result.dataset, result.full_config, result.full_split)
            raise RunFolderError(f"{where}: two rows are both {' / '.join(filter(None, told))}")
        seen.add(result.identity)
    return found


def _joined(text: str, word: str, value: float | None) -> str:
    return text if value is None else f"{text}, {word} {value}".lstrip(", ")
