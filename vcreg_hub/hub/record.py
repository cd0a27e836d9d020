"""The facts of a release, gathered from run folders: the one source of its card, its index line and its metadata.

`collect` reads a folder with recipe.json, results.json and env.json, the runs of the same recipe with other seeds, and
the baseline's runs. Everything that is rendered is rendered from the record that it returns.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoints.client import check_repo_id
from ..config import to_dict
from ..errors import RunFolderError, UsageError
from ..files import JSON, sha256
from ..results.aggregate import (
    BETWEEN_BASELINES,
    BETWEEN_SEEDS,
    Difference,
    Group,
    Summary,
    over_seeds,
    over_splits,
)
from ..results.rows import Quantity, Result, read_results
from ..rundir import RunDir
from .licence import check_licence, config_licence, stated_licence
from .privacy import without_paths

# A JSON document that another file defines: recipe.json, results.json, env.json.
Document = Mapping[str, Any]
FORMAT = 1
# Beside an export's card: the numbers of the other seeds and of the baseline, so that it can be rendered again without
# their folders.
SEEDS = "seeds.json"


# What the record of weights outside this package lacks.
_PACKAGED = ("packaged", "experiment")
_LONGEST = 400


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


def collect(
    folder: str | Path,
    *,
    licence: str | None,
    licence_name: str | None = None,
    licence_link: str | None = None,
    name: str | None = None,
    repo_id: str | None = None,
    tag: str | None = None,
    siblings: Iterable[str | Path] = (),
    twins: Iterable[str | Path] = (),
) -> Record:
    """Everything a card says.

    folder: a run folder, or the folder `export` made of one. licence: of the weights; None for what the folder itself
    states, its card first, which then says the other two as well. siblings: run folders of the same recipe with other
    seeds (`folder` itself may be among them). twins: run folders of the same recipe without VCReg. Without either,
    those that the folder's card was made with before.

    Errors: RunFolderError for a file that is absent or broken; UsageError when no licence is given or stated, or
    another one than config.json states, a sibling differs in more than its seed, a twin in more than VCReg and its
    seed, or one seed is given twice.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    own = _read_run(folder)
    runs, baselines = _behind_the_means(own, tuple(siblings), tuple(twins))
    config = _config(folder)
    if licence is None:
        licence, licence_name, licence_link = stated_licence(folder, config)
    licence = check_licence(licence, licence_name, licence_link)
    _check_agreement(folder, config, licence)
    from ..models.build import loader_of  # whoever only lists releases needs no torch

    found = loader_of(config, own.recipe["model"]["name"], video=own.recipe.get("video") is not None)
    return Record(
        name=_name(own.recipe, name, repo_id),
        repo_id=repo_id,
        tag=tag,
        licence=licence,
        licence_name=licence_name,
        licence_link=licence_link,
        library=found.library,
        loader=found.auto_class,
        architecture=found.architecture,
        task=f"{'video' if found.video else 'image'}-classification",
        recipe=own.recipe,
        results=own.results,
        env=own.env,
        runs=runs,
        baselines=baselines,
        weights=_weights(folder),
        plots=tuple(sorted(path.name for path in folder.glob("*.png"))),
        processor=any(folder.glob("*preprocessor_config.json")),
    )


def addressed(record: Record, repo_id: str | None) -> Record:
    """The record as `collect` gathers it for another repo, or for none. Errors: UsageError."""
    check_repo_id(repo_id)
    return replace(record, repo_id=repo_id, name=_name(record.recipe, None, repo_id))


def _name(recipe: Document, name: str | None, repo_id: str | None) -> str:
    return one_line(name or (repo_id or "").rpartition("/")[2] or recipe["name"].rpartition(":")[2]) or "model"


def is_smoke_test(recipe: Document) -> bool:
    """Whether a recipe is `vcreg train --smoke`'s, or trains on made-up images: its numbers mean nothing."""
    data = str(recipe["data"]["name"])
    # A recipe of one's own may be about smoke: only generated clips make a video recipe of that name a test.
    return data.startswith("synthetic") or (str(recipe["name"]).endswith("_smoke") and data.startswith("action_shapes"))


def one_line(value: object) -> str:
    """`value` as one line of printable text, at most 400 characters.

    Names of models, data sets and metrics come from files that anybody may have written. A line break in one could end
    the card's YAML block or a table row.
    """
    text = "".join(
        " " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Zs"} else c
        for c in str(value)
        if unicodedata.category(c) not in {"Cf", "Cs", "Co", "Cn"}
    )
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


@dataclass(frozen=True)
class _Run:
    """A run or export folder as JSON values, without this machine's paths: an export has none, and is still the run it
    was made of."""

    path: Path
    recipe: Document
    results: Document
    env: Document
    numbers: RunNumbers


def _read_run(path: Path) -> _Run:
    """Errors: RunFolderError for a file that is absent or broken."""
    run, where = RunDir(path), path / "results.json"
    # JSON values only: tuples of the dataclasses become lists, as they are in the file.
    recipe = without_paths(json.loads(json.dumps(to_dict(run.recipe()))))
    document, env = run.results(), run.env()
    for field in ("training", "data"):
        if not isinstance(document.setdefault(field, {}), dict):
            raise RunFolderError(f"{where}: {field!r} is an object, got {document[field]!r}")
    given, named = recipe["data"]["name"], _without_place(recipe["data"]["name"], document["data"])
    recipe["data"]["name"] = named
    # What is told of blocks one by one stays with the run: a card has the numbers of the whole network.
    results = tuple(
        replace(result, dataset=named) if result.dataset == given else result
        for result in read_results(document, where)
        if result.block is None
    )
    document["metrics"] = [_row(result) for result in results]
    fold = None if recipe.get("video") is None else recipe["video"]["split"]
    numbers = RunNumbers(recipe["train"]["seed"], fold, results, env.get("commit"), env.get("dirty"))
    return _Run(path, recipe, document, env, numbers)


def _without_place(name: str, about: Document) -> str:
    """A data set's name, of a local one without its folders. about: results.json's word on the data; `hub` is None in
    it where they were not read from the Hub."""
    local = name.startswith("hf:") and "hub" in about and about["hub"] is None
    return f"hf:{Path(name[3:]).name}" if local else name


def _behind_the_means(
    own: _Run, siblings: tuple[str | Path, ...], twins: tuple[str | Path, ...]
) -> tuple[tuple[RunNumbers, ...], tuple[RunNumbers, ...]]:
    """The numbers of the runs, `own` first, and of the baseline's."""
    kept = own.path / SEEDS
    if siblings or twins or not kept.is_file():
        return _with_siblings(own, siblings), _baselines(own, twins)
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        runs, baselines = (tuple(RunNumbers.from_json(run, kept) for run in found[kind]) for kind in ("runs", "twins"))
        current = found["runs"][0] == own.numbers.to_json()
    except (ValueError, LookupError, TypeError) as error:
        raise RunFolderError(f"{kept} cannot be read: {error!r}") from None
    if not current:
        raise RunFolderError(f"{kept} is of other numbers than results.json: give the --sibling and --twin runs again")
    return runs, baselines


def _with_siblings(own: _Run, paths: Iterable[str | Path]) -> tuple[RunNumbers, ...]:
    """Of `own` and the runs at `paths`, which differ from it in their seed or train/test split; `own` itself may be
    among them.

    Errors: UsageError for a run that differs in more, or a seed that is there twice for one split.
    """
    elsewhere = [path for path in map(Path, paths) if path.resolve() != own.path.resolve()]
    others = _read_others(own, elsewhere, BETWEEN_SEEDS, "a run with another seed or split")
    runs = (own.numbers, *(run.numbers for run in others if not _same_run(own, run)))
    _check_distinct_seeds(runs, "the runs")
    return runs


def _baselines(own: _Run, paths: Iterable[str | Path]) -> tuple[RunNumbers, ...]:
    """Of the runs at `paths`, of the recipe of `own` without VCReg.

    Errors: UsageError for a run that differs in more than VCReg and its seed or has VCReg, or a seed twice.
    """
    found = _read_others(own, map(Path, paths), BETWEEN_BASELINES, "a baseline")
    if with_vcreg := [run.path for run in found if run.recipe["vcreg"] is not None]:
        raise UsageError(f"{with_vcreg[0]} was trained with VCReg: a baseline has vcreg null in its recipe")
    runs = tuple(run.numbers for run in found)
    _check_distinct_seeds(runs, "the baselines")
    return runs


def _read_others(own: _Run, paths: Iterable[Path], ignored: Sequence[str], kind: str) -> list[_Run]:
    found = [_read_run(path) for path in paths]
    for run in found:
        if different := sorted(_differences(own.recipe, run.recipe, ignored)):
            raise UsageError(f"{run.path} is not {kind}: its recipe differs in {', '.join(different)}")
    return found


def _same_run(one: _Run, other: _Run) -> bool:
    """Whether the second folder is the run that the first (its export) was made of: same seed, hour and numbers."""
    return (
        (one.numbers.seed, one.numbers.fold) == (other.numbers.seed, other.numbers.fold)
        and one.env.get("date") == other.env.get("date")
        and one.results["metrics"] == other.results["metrics"]
    )


def _differences(one: Document, other: Document, ignored: Sequence[str], at: str = "") -> Iterable[str]:
    for name in one.keys() | other.keys():
        path, left, right = at + name, one.get(name), other.get(name)
        if path in ignored or left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, ignored, path + ".")
        else:
            yield path


def _check_distinct_seeds(runs: Sequence[RunNumbers], what: str) -> None:
    found = [(run.seed, run.fold) for run in runs]
    if len(set(found)) < len(found):
        named = (f"{seed}" if fold is None else f"{seed} on split {fold}" for seed, fold in found)
        raise UsageError(f"{what} have seeds {', '.join(named)}: each seed counts once")


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


def _config(folder: Path) -> JSON | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} holds a {type(config).__name__}, expected an object")
    return config


def _check_agreement(folder: Path, config: JSON | None, licence: str | None) -> None:
    stated = config_licence(config)
    if licence and stated and licence != stated.lower():
        raise UsageError(
            f"{folder / 'config.json'} states licence {stated!r}, the card would say {licence!r}: export the run again "
            f"with --licence {licence}"
        )


def _weights(folder: Path) -> Weights | None:
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            sizes = [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]
    except SafetensorError as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from None
    return Weights(path.name, sha256(path), path.stat().st_size, sum(sizes))
