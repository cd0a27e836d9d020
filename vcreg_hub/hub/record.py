"""What is known of a release, gathered from run folders: the one source of its card, its index line and its metadata.

`collect` reads a folder with recipe.json, results.json and env.json, the runs of the same recipe with other seeds,
and the plain twins, and returns plain JSON values. Everything that is rendered is rendered from those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import RunFolderError, UsageError
from ..rundir import sha256
from .library import what_loads_it
from .licence import check_licence, config_licence, stated_licence
from .markdown import one_line
from .repo_id import check_repo_id
from .runs import plain_twins, read_run, summary, with_siblings

FORMAT = 1


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

    folder: a run folder, or the folder `export` made of one. licence: of the weights; None for what the folder itself
    states, its card first, which then says the other two as well. siblings: run folders of the same recipe with other
    seeds (`folder` itself may be among them). twins: run folders of the same recipe without VCReg.

    Errors: RunFolderError for a file that is absent or broken; UsageError when no licence is given or stated, or
    another one than config.json states, a sibling differs in more than its seed, a twin in more than VCReg and its
    seed, or one seed is given twice.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    own = read_run(folder)
    runs, plain = with_siblings(own, siblings), plain_twins(own, twins)
    config = _config(folder)
    if licence is None:
        licence, licence_name, licence_link = stated_licence(folder, config)
    _check_agreement(folder, config, licence)
    return {
        "format": FORMAT,
        "name": one_line(name or (repo_id or "").rpartition("/")[2] or own["recipe"]["name"].rpartition(":")[2])
        or "model",
        "repo_id": repo_id,
        "tag": tag,
        "licence": check_licence(licence, licence_name, licence_link),
        "licence_name": licence_name,
        "licence_link": licence_link,
        **what_loads_it(config, own["recipe"]),
        "recipe": own["recipe"],
        "results": own["results"],
        "env": own["env"],
        "runs": [summary(run) for run in runs],
        "twins": [summary(run) for run in plain],
        "weights": _weights(folder),
        "plots": sorted(path.name for path in folder.glob("*.png")),
        "processor": any(folder.glob("*preprocessor_config.json")),
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


def _check_agreement(folder: Path, config: dict[str, Any] | None, licence: str | None) -> None:
    stated = config_licence(config)
    if licence and stated and licence != stated:
        raise UsageError(
            f"{folder / 'config.json'} states licence {stated!r}, the card would say {licence!r}: export the run again "
            f"with --licence {licence}"
        )


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
