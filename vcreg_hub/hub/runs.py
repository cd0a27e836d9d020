"""The run folders behind a card: the weights' own run, those of other seeds, the baseline's.

`collect` reads a folder with recipe.json, results.json and env.json and gathers all of them into a record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoints.client import check_repo_id
from ..config import to_dict
from ..errors import RunFolderError, UsageError
from ..files import JSON, parse_json, sha256, weight_files
from ..releases import INDEX, WEIGHTS
from ..results.aggregate import BETWEEN_BASELINES, BETWEEN_SEEDS
from ..results.rows import read_results
from ..rundir import RunDir
from .licence import check_licence, config_licence, stated_licence
from .markdown import one_line
from .privacy import without_paths
from .record import Document, Record, RunNumbers, Weights, addressed

# Beside an export's card: the numbers of the other seeds and of the baseline, so that it can be rendered again without
# their folders.
SEEDS = "seeds.json"


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
    record = Record(
        name=one_line(name or ""),
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
    return record if record.name else addressed(record, repo_id)


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
    fold = None if recipe.get("video") is None else recipe["video"]["split"]
    numbers = RunNumbers(recipe["train"]["seed"], fold, results, env.get("commit"), env.get("dirty"))
    document["metrics"] = numbers.to_json()["metrics"]
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
        found = parse_json(kept.read_text(encoding="utf-8"))
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


def _config(folder: Path) -> JSON | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
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
    path = next((folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), None)
    if path is None:
        return None
    from safetensors import SafetensorError, safe_open

    parts, values = weight_files(path), 0
    for part in parts:
        try:
            with safe_open(part, framework="numpy") as file:
                values += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())
        except (SafetensorError, OSError) as error:
            raise RunFolderError(f"{part} is not a whole safetensors file: {error}") from None
    return Weights(path.name, sha256(path), sum(part.stat().st_size for part in parts), values)
