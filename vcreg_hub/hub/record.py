"""The facts of a release: the one source of its card, its index line and its metadata.

`runs.collect` gathers a record from run folders. Everything that is rendered is rendered from the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoints.client import check_repo_id
from ..errors import RunFolderError
from ..files import JSON
from ..results.aggregate import Difference, Group, Summary, over_seeds, over_splits
from ..results.rows import Quantity, Result
from .markdown import one_line

# A JSON document that another file defines: recipe.json, results.json, env.json.
Document = Mapping[str, Any]
FORMAT = 1
# What the record of weights outside this package lacks.
_PACKAGED = ("packaged", "experiment")


@dataclass(frozen=True)
class RunNumbers:
    """A record's facts of one run. fold: its train/test split, None for images."""

    seed: int
    fold: int | None
    results: tuple[Result, ...]
    commit: str | None
    dirty: bool | None

    def to_json(self) -> JSON:
        rows = [_row(result) for result in self.results]
        return {"seed": self.seed, "fold": self.fold, "metrics": rows, "commit": self.commit, "dirty": self.dirty}

    @classmethod
    def from_json(cls, values: Document, where: Path) -> RunNumbers:
        """Errors: KeyError; RunFolderError for a broken row of numbers."""
        results = tuple(_result(row, where) for row in values["metrics"])
        return cls(values["seed"], values["fold"], results, values["commit"], values["dirty"])


@dataclass(frozen=True)
class Weights:
    """values: how many numbers the file holds."""

    file: str
    sha256: str
    bytes: int
    values: int


@dataclass(frozen=True)
class Score:
    """One line of a card's results. value: of the weights on the card; None for a mean over splits.
    baseline: the same quantity without VCReg; None where that has not been run."""

    summary: Summary
    value: float | None
    baseline: Summary | None

    @property
    def quantity(self) -> Quantity:
        return self.summary.quantity

    @property
    def difference(self) -> Difference | None:
        """To the baseline, seed by seed; None without a common seed."""
        return None if self.baseline is None else self.summary.minus(self.baseline)

    @property
    def split(self) -> str:
        """In words: "test, fold 1", or "test, mean of 3 splits"."""
        folds = self.summary.folds
        return f"{self.quantity.split}, mean of {len(folds)} splits" if folds else self.quantity.full_split


@dataclass(frozen=True, kw_only=True)
class Record:
    """A release. runs: the weights' own run first, then those of other seeds. packaged: the recipe's address, of
    weights inside this package. experiment: their study."""

    name: str
    repo_id: str | None
    tag: str | None
    licence: str
    licence_name: str | None
    licence_link: str | None
    library: str
    loader: str
    architecture: str
    task: str
    recipe: Document
    results: Document
    env: Document
    runs: tuple[RunNumbers, ...]
    baselines: tuple[RunNumbers, ...]
    weights: Weights | None
    plots: tuple[str, ...]
    processor: bool
    packaged: str | None = None
    experiment: str | None = None

    @property
    def scores(self) -> list[Score]:
        """A score for each metric of a release, in the order of its results.json. Where it was measured on several
        train/test splits, the means over those come first."""
        own = {result.identity: result.value for result in self.runs[0].results}
        beside = {(len(one.folds), one.quantity.identity): one for one in self._summaries(self.baselines, False)}
        return [
            Score(
                one,
                None if one.folds else own.get(one.quantity.identity),
                beside.get((len(one.folds), one.quantity.identity)),
            )
            for one in self._summaries(self.runs, self.recipe["vcreg"] is not None)
        ]

    def pictured(self) -> list[Summary]:
        """The summaries of the results' picture, the baseline first: of several train/test splits their mean."""
        shown = []
        for runs, with_vcreg in ((self.baselines, False), (self.runs, self.recipe["vcreg"] is not None)):
            found = self._summaries(runs, with_vcreg)
            shown += [one for one in found if one.folds] or [_told_apart(one) for one in found]
        return shown

    def _summaries(self, runs: Sequence[RunNumbers], with_vcreg: bool) -> list[Summary]:
        """Over seeds, and before those over splits where the runs have several."""
        video = self.recipe.get("video")
        group = Group(
            label="VCReg" if with_vcreg else "plain",
            id=f"{self.name}, {'VCReg' if with_vcreg else 'plain'}",
            baseline=f"{self.name}, plain" if with_vcreg else None,
            vcreg="VCReg" if with_vcreg else None,
            noise=None if video is None else video["noise"],
        )
        singly = over_seeds((group, run.seed, run.results) for run in runs)
        return [*(over_splits(singly) if len({run.fold for run in runs}) > 1 else ()), *singly]

    def to_json(self) -> JSON:
        """The record as its file holds it."""
        values: JSON = {"format": FORMAT}
        for field in fields(self):
            values["twins" if field.name == "baselines" else field.name] = getattr(self, field.name)
        for kind in ("runs", "twins"):
            values[kind] = [run.to_json() for run in values[kind]]
        values["weights"] = None if self.weights is None else asdict(self.weights)
        values["plots"] = list(self.plots)
        return {name: value for name, value in values.items() if name not in _PACKAGED or value is not None}

    @classmethod
    def from_json(cls, values: Document, where: Path) -> Record:
        """The record of `to_json`'s values. Errors: RunFolderError, naming the file, for anything else."""
        try:
            made = {name: value for name, value in values.items() if name not in ("format", "twins")}
            for name, kept in (("runs", "runs"), ("baselines", "twins")):
                made[name] = tuple(RunNumbers.from_json(run, where) for run in values[kept])
            made["weights"] = None if values["weights"] is None else Weights(**values["weights"])
            made["plots"] = tuple(values["plots"])
            return cls(**made)
        except (LookupError, TypeError) as error:
            raise RunFolderError(f"{where} is not a release's record of format {FORMAT}: {error!r}") from None


def addressed(record: Record, repo_id: str | None) -> Record:
    """The record under its name in another repo, or in none. Errors: UsageError."""
    check_repo_id(repo_id)
    name = one_line((repo_id or "").rpartition("/")[2] or record.recipe["name"].rpartition(":")[2])
    return replace(record, repo_id=repo_id, name=name or "model")


def is_smoke_test(recipe: Document) -> bool:
    """Whether a recipe is `vcreg train --smoke`'s, or trains on made-up images: its numbers mean nothing."""
    data = str(recipe["data"]["name"])
    # A recipe of one's own may be about smoke: only generated clips make a video recipe of that name a test.
    return data.startswith("synthetic") or (str(recipe["name"]).endswith("_smoke") and data.startswith("action_shapes"))


def _row(result: Result) -> JSON:
    """A result as a record's file has it: the noise is part of dataset_config and the fold of split."""
    row = {
        "metric": result.metric,
        "value": result.value,
        "unit": result.unit,
        "higher_is_better": result.higher_is_better,
        "dataset": result.dataset,
        "dataset_config": result.full_config,
        "split": result.full_split,
        "protocol": result.protocol,
    }
    return row if result.fold is None else row | {"fold": result.fold}


def _result(row: Document, where: Path) -> Result:
    """The result of a `_row`."""
    found = Result.from_json(row, where)
    if found.fold is not None:
        found = replace(found, split=found.split.removesuffix(f", fold {found.fold}"))
    noisy = re.fullmatch(r"(?:(.*), )?sigma ((?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?)", found.dataset_config)
    if noisy is None:
        return found
    config, sigma = noisy[1] or "", json.loads(noisy[2])
    split_up = replace(found, dataset_config=config, sigma=sigma)
    return split_up if split_up.full_config == found.dataset_config else found


def _told_apart(one: Summary) -> Summary:
    """A summary of one split, with the split in its label."""
    fold = one.quantity.fold
    return one if fold is None else replace(one, group=replace(one.group, label=f"{one.group.label}, fold {fold}"))
