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

from ..checkpoints.client import check_repo_id
from ..errors import RunFolderError, UsageError
from ..files import sha256
from .library import what_loads_it
from .licence import check_licence, config_licence, stated_licence
from .markdown import one_line
from .runs import plain_twins, read_run, summary, with_siblings

FORMAT = 1
# Beside an export's card: the numbers of the other seeds and of the twins, so that it can be rendered again without
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
) -> dict[str, Any]:
    """Everything a card says, as JSON values.

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
    own = read_run(folder)
    runs, plain = _behind_the_means(own, tuple(siblings), tuple(twins))
    config = _config(folder)
    if licence is None:
        licence, licence_name, licence_link = stated_licence(folder, config)
    licence = check_licence(licence, licence_name, licence_link)
    _check_agreement(folder, config, licence)
    return {
        "format": FORMAT,
        "name": _name(own["recipe"], name, repo_id),
        "repo_id": repo_id,
        "tag": tag,
        "licence": licence,
        "licence_name": licence_name,
        "licence_link": licence_link,
        **what_loads_it(config, own["recipe"]),
        "recipe": own["recipe"],
        "results": own["results"],
        "env": own["env"],
        "runs": runs,
        "twins": plain,
        "weights": _weights(folder),
        "plots": sorted(path.name for path in folder.glob("*.png")),
        "processor": any(folder.glob("*preprocessor_config.json")),
    }


def addressed(record: dict[str, Any], repo_id: str | None) -> dict[str, Any]:
    """The record as `collect` gathers it for another repo, or for none. Errors: UsageError."""
    check_repo_id(repo_id)
    return record | {"repo_id": repo_id, "name": _name(record["recipe"], None, repo_id)}


def _name(recipe: dict[str, Any], name: str | None, repo_id: str | None) -> str:
    return one_line(name or (repo_id or "").rpartition("/")[2] or recipe["name"].rpartition(":")[2]) or "model"


def is_smoke_test(recipe: dict[str, Any]) -> bool:
    """Whether a recipe is `vcreg train --smoke`'s, or trains on made-up images: its numbers mean nothing."""
    data = str(recipe["data"]["name"])
    # A recipe of one's own may be about smoke: only generated clips make a video recipe of that name a test.
    return data.startswith("synthetic") or (str(recipe["name"]).endswith("_smoke") and data.startswith("action_shapes"))


def _behind_the_means(
    own: dict[str, Any], siblings: tuple[str | Path, ...], twins: tuple[str | Path, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The summaries of the runs and of the plain twins, `own` first."""
    kept = own["path"] / SEEDS
    if siblings or twins or not kept.is_file():
        return [summary(run) for run in with_siblings(own, siblings)], [summary(run) for run in plain_twins(own, twins)]
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        runs, plain = found["runs"], found["twins"]
        current = runs[0] == summary(own)
    except (ValueError, LookupError, TypeError) as error:
        raise RunFolderError(f"{kept} cannot be read: {error!r}") from None
    if not current:
        raise RunFolderError(f"{kept} is of other numbers than results.json: give the --sibling and --twin runs again")
    return runs, plain


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
    if licence and stated and licence != stated.lower():
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
