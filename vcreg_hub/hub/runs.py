"""The run folders behind a record: read, checked, and told apart from runs of another recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..config import to_dict
from ..errors import RunFolderError, UsageError
from ..rundir import RunDir
from .privacy import without_paths
from .scores import row_key

# Where the data lay and how many workers read it do not change what was trained.
_INCIDENTAL = ("data.root", "data.workers", "eval.batch_size")
_BETWEEN_SEEDS = (*_INCIDENTAL, "name", "train.seed", "video.split")
_BETWEEN_TWINS = (*_BETWEEN_SEEDS, "vcreg", "where", "assumed")


def read_run(path: Path) -> dict[str, Any]:
    """path, recipe, results and env of a run or export folder, as JSON values, without this machine's paths: an export
    has none, and is still the run it was made of.

    Errors: RunFolderError for a file that is absent or broken.
    """
    run = RunDir(path)
    recipe, results = to_dict(run.recipe()), run.results()
    results["metrics"] = _metrics(results, path)
    for field in ("training", "data"):
        if not isinstance(results.setdefault(field, {}), dict):
            raise RunFolderError(f"{path / 'results.json'}: {field!r} is an object, got {results[field]!r}")
    # JSON values only: tuples of the dataclasses become lists, as they are in the file.
    return {"path": path, "recipe": without_paths(json.loads(json.dumps(recipe))), "results": results, "env": run.env()}


def _metrics(results: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The rows of results.json, checked, values as float; a noise level or a fold becomes part of config or split."""
    where = path / "results.json"
    rows = results.get("metrics")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunFolderError(f"{where}: 'metrics' is a list of objects, got {type(rows).__name__}")
    checked = []
    for row in rows:
        try:
            value = float(row["value"])
            row = {
                "metric": str(row["metric"]),
                "value": value,
                "unit": str(row.get("unit") or ""),
                "higher_is_better": bool(row["higher_is_better"]),
                "dataset": str(row["dataset"]),
                "dataset_config": _joined(row.get("dataset_config"), "sigma", row.get("sigma")),
                "split": _joined(row.get("split") or "test", "fold", row.get("fold")),
                "protocol": str(row.get("protocol") or ""),
                **({} if row.get("fold") is None else {"fold": int(row["fold"])}),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{where}: a metric needs metric, value, higher_is_better, dataset: {error!r}"
            ) from None
        if not math.isfinite(value):
            raise RunFolderError(f"{where}: {row['metric']} on {row['dataset']} is {value}: not a finite number")
        checked.append(row)
    keys = [row_key(row) for row in checked]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        raise RunFolderError(f"{where}: two rows are both {' / '.join(filter(None, repeated[0]))}")
    return checked


def _joined(text: Any, word: str, value: Any) -> str:
    text = str(text or "")
    return text if value is None else f"{text}, {word} {value}".lstrip(", ")


def with_siblings(own: dict[str, Any], paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """`own` and the runs at `paths`, which differ from it in their seed or train/test split; `own` itself may be among
    them.

    Errors: UsageError for a run that differs in more, or a seed that is there twice for one split.
    """
    elsewhere = [path for path in map(Path, paths) if path.resolve() != own["path"].resolve()]
    others = _read_others(own, elsewhere, _BETWEEN_SEEDS, "a run with another seed or split")
    runs = [own, *(run for run in others if not _same_run(own, run))]
    _check_distinct_seeds(runs, "the runs")
    return runs


def plain_twins(own: dict[str, Any], paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The runs at `paths`, of the recipe of `own` without VCReg.

    Errors: UsageError for a run that differs in more than VCReg and its seed or has VCReg, or a seed twice.
    """
    twins = _read_others(own, map(Path, paths), _BETWEEN_TWINS, "a plain twin")
    if with_vcreg := [run["path"] for run in twins if run["recipe"]["vcreg"] is not None]:
        raise UsageError(f"{with_vcreg[0]} was trained with VCReg: a plain twin has vcreg null in its recipe")
    _check_distinct_seeds(twins, "the plain twins")
    return twins


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of a run besides the one it is of."""
    return {
        "seed": run["recipe"]["train"]["seed"],
        "fold": _fold(run),
        "metrics": run["results"]["metrics"],
        "commit": run["env"].get("commit"),
        "dirty": run["env"].get("dirty"),
    }


def _read_others(own: dict[str, Any], paths: Iterable[Path], ignored: Sequence[str], kind: str) -> list[dict[str, Any]]:
    found = [read_run(path) for path in paths]
    for run in found:
        if different := sorted(_differences(own["recipe"], run["recipe"], ignored)):
            raise UsageError(f"{run['path']} is not {kind}: its recipe differs in {', '.join(different)}")
    return found


def _same_run(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the second folder is the run that the first (its export) was made of: same seed, hour and numbers."""
    return (
        one["recipe"]["train"]["seed"] == other["recipe"]["train"]["seed"]
        and _fold(one) == _fold(other)
        and one["env"].get("date") == other["env"].get("date")
        and one["results"]["metrics"] == other["results"]["metrics"]
    )


def _differences(one: dict[str, Any], other: dict[str, Any], ignored: Sequence[str], at: str = "") -> Iterable[str]:
    for name in one.keys() | other.keys():
        path, left, right = at + name, one.get(name), other.get(name)
        if path in ignored or left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, ignored, path + ".")
        else:
            yield path


def _check_distinct_seeds(runs: Sequence[dict[str, Any]], what: str) -> None:
    found = [(run["recipe"]["train"]["seed"], _fold(run)) for run in runs]
    if len(set(found)) < len(found):
        named = (f"{seed}" if fold is None else f"{seed} on split {fold}" for seed, fold in found)
        raise UsageError(f"{what} have seeds {', '.join(named)}: each seed counts once")


def _fold(run: dict[str, Any]) -> int | None:
    video = run["recipe"].get("video")
    return None if video is None else video["split"]
