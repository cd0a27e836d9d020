"""What is known of a release, gathered from run folders: the one source of its card, its index line and its metadata.

`collect` reads a folder with recipe.json, results.json and env.json, the runs of the same recipe with other seeds,
and the plain twins, and returns plain JSON values. Everything that is rendered is rendered from those.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import to_dict
from ..errors import RunFolderError, UsageError
from ..rundir import RunDir, sha256
from .licence import check_licence
from .markdown import one_line

FORMAT = 1
# Where the data lay and how many workers read it do not change what was trained.
_INCIDENTAL = ("data.root", "data.workers", "eval.batch_size")
_BETWEEN_SEEDS = (*_INCIDENTAL, "name", "train.seed")
_BETWEEN_TWINS = (*_BETWEEN_SEEDS, "vcreg", "where")


@dataclass(frozen=True)
class Score:
    """One metric over the seeds it was measured with.

    value: that of the weights on the card (None for a twin). mean, std: over `n` seeds; std is the sample standard
    deviation, None for one seed.
    """

    metric: str
    unit: str
    higher_is_better: bool
    dataset: str
    config: str
    split: str
    protocol: str
    value: float | None
    mean: float
    std: float | None
    n: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.metric, self.dataset, self.config, self.split, self.protocol)


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
) -> dict[str, Any]:
    """Everything a card says, as JSON values.

    folder: a run folder, or the folder `export` made of one. siblings: run folders of the same recipe with other
    seeds (`folder` itself may be among them). twins: run folders of the same recipe without VCReg.

    Errors: RunFolderError for a file that is absent or broken; UsageError when no licence is given, a sibling differs
    in more than its seed, a twin in more than VCReg and its seed, or one seed is given twice.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    own = _read_run(folder)
    runs = [own, *_others(own, siblings, _BETWEEN_SEEDS, "a run with another seed", skip=folder)]
    plain = _others(own, twins, _BETWEEN_TWINS, "a plain twin", skip=None)
    if with_vcreg := [run["path"] for run in plain if run["recipe"]["vcreg"] is not None]:
        raise UsageError(f"{with_vcreg[0]} was trained with VCReg: a plain twin has vcreg null in its recipe")
    _distinct_seeds(runs, "the runs")
    _distinct_seeds(plain, "the plain twins")
    config = _config(folder)
    return {
        "format": FORMAT,
        "name": one_line(name or (repo_id or "").rpartition("/")[2] or own["recipe"]["name"].rpartition(":")[2])
        or "model",
        "repo_id": repo_id,
        "tag": tag,
        "licence": check_licence(licence, licence_name, licence_link),
        "licence_name": licence_name,
        "licence_link": licence_link,
        **_what_loads_it(config, own["recipe"]),
        "recipe": _without_paths(own["recipe"]),
        "results": own["results"],
        "env": own["env"],
        "runs": [_summary(run) for run in runs],
        "twins": [_summary(run) for run in plain],
        "weights": _weights(folder),
        "plots": sorted(path.name for path in folder.glob("*.png")),
        "processor": any(folder.glob("*preprocessor_config.json")),
    }


def check_repo_id(repo_id: str | None) -> None:
    """UsageError unless `repo_id` is None or `owner/name` as a Hub takes it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if repo_id is None:
        return
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is not a repo: {error}") from None
    if repo_id.count("/") != 1:
        raise UsageError(f"{repo_id!r} is not a repo: give owner/name")


def scores(record: dict[str, Any]) -> list[Score]:
    """The metrics of a release, in the order of its results.json; mean and std are over its seeds."""
    return _scores(record["runs"], own=record["runs"][0])


def twin_scores(record: dict[str, Any]) -> dict[tuple[str, ...], Score]:
    """The plain twin's metrics by `Score.key`; empty when no twin has been run."""
    return {score.key: score for score in _scores(record["twins"], own=None)}


def _scores(runs: Sequence[dict[str, Any]], own: dict[str, Any] | None) -> list[Score]:
    tables = [{_key(row): row for row in run["metrics"]} for run in runs]
    found = []
    for key in dict.fromkeys(key for table in tables for key in table):
        rows = [table[key] for table in tables if key in table]
        values = [row["value"] for row in rows]
        mine = None if own is None else tables[0].get(key)
        found.append(
            Score(
                metric=rows[0]["metric"],
                unit=rows[0]["unit"],
                higher_is_better=rows[0]["higher_is_better"],
                dataset=rows[0]["dataset"],
                config=rows[0]["dataset_config"],
                split=rows[0]["split"],
                protocol=rows[0]["protocol"],
                value=None if mine is None else mine["value"],
                mean=statistics.fmean(values),
                std=statistics.stdev(values) if len(values) > 1 else None,
                n=len(values),
            )
        )
    return found


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[field] for field in ("metric", "dataset", "dataset_config", "split", "protocol"))


def _read_run(path: Path) -> dict[str, Any]:
    run = RunDir(path)
    recipe, results = to_dict(run.recipe()), run.results()
    results["metrics"] = _metrics(results, path)
    for field in ("training", "data"):
        if not isinstance(results.setdefault(field, {}), dict):
            raise RunFolderError(f"{path / 'results.json'}: {field!r} is an object, got {results[field]!r}")
    # JSON values only: tuples of the dataclasses become lists, as they are in the file.
    return {"path": path, "recipe": json.loads(json.dumps(recipe)), "results": results, "env": run.env()}


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
            }
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{where}: a metric needs metric, value, higher_is_better, dataset: {error!r}"
            ) from None
        if not math.isfinite(value):
            raise RunFolderError(f"{where}: {row['metric']} on {row['dataset']} is {value}: not a finite number")
        checked.append(row)
    keys = [_key(row) for row in checked]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        raise RunFolderError(f"{where}: two rows are both {' / '.join(filter(None, repeated[0]))}")
    return checked


def _joined(text: Any, word: str, value: Any) -> str:
    text = str(text or "")
    return text if value is None else f"{text}, {word} {value}".lstrip(", ")


def _others(
    own: dict[str, Any], paths: Iterable[str | Path], ignored: Sequence[str], kind: str, skip: Path | None
) -> list[dict[str, Any]]:
    found = []
    for path in map(Path, paths):
        if skip is not None and path.resolve() == skip.resolve():
            continue
        run = _read_run(path)
        if different := sorted(_differences(own["recipe"], run["recipe"], ignored)):
            raise UsageError(f"{path} is not {kind}: its recipe differs in {', '.join(different)}")
        if skip is not None and _same_run(own, run):
            continue
        found.append(run)
    return found


def _same_run(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the second folder is the run that the first (its export) was made of: same seed, hour and numbers."""
    return (
        one["recipe"]["train"]["seed"] == other["recipe"]["train"]["seed"]
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


def _distinct_seeds(runs: Sequence[dict[str, Any]], what: str) -> None:
    seeds = [run["recipe"]["train"]["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{what} have seeds {', '.join(map(str, seeds))}: each seed counts once")


def _summary(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": run["recipe"]["train"]["seed"],
        "metrics": run["results"]["metrics"],
        "commit": run["env"].get("commit"),
        "dirty": run["env"].get("dirty"),
    }


def _config(folder: Path) -> dict[str, Any] | None:
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


def _what_loads_it(config: dict[str, Any] | None, recipe: dict[str, Any]) -> dict[str, str]:
    """library (timm, transformers, torchvision, or vcreg_hub for our own architecture), class, architecture, task.

    config: of an export; a run folder has none, and its recipe says what the export will be.
    """
    from ..models.factory import kind_of

    config = config or {}
    kind, name = kind_of(recipe["model"]["name"])
    video = kind == "video" or recipe["task"].startswith("video")
    task = "video-classification" if video else "image-classification"
    if config.get("library") == "torchvision":
        return {"library": "torchvision", "loader": "", "architecture": name, "task": task}
    if "model_type" in config or (not config and kind in ("hf", "video")):
        loader = "AutoModelForVideoClassification" if video else "AutoModelForImageClassification"
        architecture = name if kind == "video" else str(config.get("model_type") or name)
        return {"library": "transformers", "loader": loader, "architecture": architecture, "task": task}
    architecture = str(config.get("architecture") or name).partition(".")[0].removesuffix("_vcreg")
    library = "vcreg_hub" if _is_our_own(architecture) else "timm"
    return {"library": library, "loader": "", "architecture": architecture, "task": task}


def _without_paths(value: Any) -> Any:
    """A recipe with each folder of this machine cut to its last name."""
    if isinstance(value, dict):
        return {name: None if name == "root" else _without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    if isinstance(value, str):
        prefix, path = ("hf:", value[3:]) if value.startswith("hf:") else ("", value)
        return prefix + Path(path).name if os.path.isabs(os.path.expanduser(path)) else value
    return value


def _is_our_own(architecture: str) -> bool:
    from timm.models import is_model, model_entrypoint

    return is_model(architecture) and model_entrypoint(architecture).__module__.startswith("vcreg_hub.")


def _weights(folder: Path) -> dict[str, Any] | None:
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            sizes = [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]
    except SafetensorError as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from None
    return {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "values": sum(sizes)}
