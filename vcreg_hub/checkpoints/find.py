"""Finds published weights in a folder, a Hub namespace or this package. One code path for the three.

A release is a folder or repo called `<name>.<tag>` that holds config.json and model.safetensors, as `vcreg export` and
`vcreg publish` write it. Places, in the order they are asked:

    VCREG_HUB_DIR         a folder of such folders (a network mount will do)
    VCREG_HUB_NAMESPACE   a Hub user or organisation (HF_ENDPOINT, HF_HUB_OFFLINE and the Hub's cache apply)
    this package          `vcreg_hub/weights`

Whatever the place, what comes out is a local folder, checked before anything of it is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HubError, IntegrityError, UsageError, WeightsNotFoundError
from ..files import JSON, parse_json
from ..releases import CONFIG, INDEX, WEIGHTS, find_release, releases_of
from .checksums import check_exported, check_release
from .client import check_repo_id, is_offline
from .fetch import AGAIN as FETCH_AGAIN
from .fetch import Part, fetch
from .load import PICKLES, refuse_other_sources, refuse_pickle, tensor_shapes
from .locations import FOLDER_VARIABLE, NAMESPACE_VARIABLE, WeightSource, sources

# What to do about a folder of one's own in which a file was altered.
AGAIN = "restore the file, or export the run again (`vcreg export`)"
_logger = logging.getLogger("vcreg_hub")


@dataclass(frozen=True)
class Weights:
    """Weights on this machine. file: of the tensors, or the index of several. origin: their source, for messages.
    config: config.json, None without one."""

    file: Path
    origin: str
    config: JSON | None = None

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def library(self) -> str:
        """The library of config.json's format."""
        return library_of_config(self.config or {})


def library_of_config(config: Mapping[str, Any]) -> str:
    """The library of a config.json: the stated one, else transformers with a model type, timm without."""
    return str(config.get("library") or ("transformers" if "model_type" in config else "timm"))


class Lookup:
    """The possible meanings of a release's name: (source, full name) of each candidate, the likeliest first. Each is
    looked up on demand.

    A bare name means its default tag in `releases.py`; where a source lacks that tag and holds exactly one `<name>.*`,
    that one. Errors: UsageError when a bare name fits several tags of one source and none is the default.
    """

    def __init__(self, name: str, *, cache_only: bool = False) -> None:
        self.name = name
        self.sources = sources(cache_only=cache_only)

    def __iter__(self) -> Iterator[tuple[WeightSource, str]]:
        bare, _, tag = self.name.partition(".")
        for source in self.sources:
            if tag:
                yield source, self.name
                continue
            for row in releases_of(bare)[:1]:
                yield source, row.full_name
            tags = source.tags(bare)
            if len(tags) > 1:
                raise UsageError(f"{source} holds {', '.join(tags)}: say which, as in {tags[0]!r}")
            yield from ((source, full_name) for full_name in tags)

    @property
    def warnings(self) -> list[str]:
        """The sources' troubles so far."""
        return [warning for source in self.sources for warning in source.warnings]

    def failed(self) -> WeightsNotFoundError:
        """The error of a name without a source: the places, the recipe for the weights, the variables to set."""
        lines = [f"there are no weights for {self.name!r} in " + ", nor in ".join(map(str, self.sources)) + "."]
        return WeightsNotFoundError(" ".join([*lines, *(f"({line})" for line in self.warnings), how_to_get(self.name)]))


def find_weights(name: str, *, cache_only: bool = False) -> Weights:
    """The weights of `<name>` or `<name>.<tag>` from the first place with them, checked.

    A bare name means its default tag in `releases.py`; where a place lacks that tag and holds exactly one `<name>.*`,
    that one. The SHA-256 of both files is compared with the release's and with that in the export's results.json,
    where one is recorded, before anything is loaded. cache_only: of a hub, only what was downloaded before.
    Errors: UsageError when several tags fit; WeightsNotFoundError when no place has any; IntegrityError for a file
    that differs from its release or export; UsageError for pickled weights.
    """
    lookup = Lookup(name, cache_only=cache_only)
    for source, full_name in lookup:
        folder = source.folder(full_name)
        if folder is not None:
            weights = _read_folder(folder, f"{full_name} from {source}", source.hint)
            check_release(folder, full_name, source.hint)
            for warning in lookup.warnings:
                _logger.warning("%s; taking %s", warning, weights.origin)
            return weights
    raise lookup.failed()


def resolve(source: str) -> Weights:
    """The meaning of a `pretrained=` string: a safetensors file, a folder (export or run), a release, or a Hub id.

    Errors: WeightsNotFoundError, UsageError for pickles, IntegrityError.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, str(path))
    if path.is_file():
        refuse_pickle(path)
        check_exported(path.parent, AGAIN)
        config = path.parent / CONFIG
        return Weights(path, str(path), _read_config(config) if config.is_file() else None)
    if "/" not in source and ":" not in source and source.partition(".")[0].endswith("_vcreg"):
        return find_weights(source)
    repo = source.removeprefix("hf-hub:")
    if path.suffix in (".safetensors", *PICKLES) or repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise WeightsNotFoundError(
            f"pretrained={source!r} is no folder and no file here, and no Hub id: those look like owner/name, with @ "
            "and a revision if need be"
        )
    return _read_folder(hub_folder(repo), repo, FETCH_AGAIN)


def hub_folder(source: str, part: Part = "weights") -> Path:
    """The folder in the cache with the files of a Hub id (`owner/name`, with `@revision` if need be), checked.

    part: as in `fetch.fetch`. Errors: WeightsNotFoundError, IntegrityError, UsageError for what is no Hub id.
    """
    repo, _, revision = source.partition("@")
    what = "configuration" if part == "config" else "weights"
    check_repo_id(repo)
    said: list[str] = []
    try:
        found = fetch(repo, revision or None, part=part, log=said.append)
    except (HubError, UsageError, WeightsNotFoundError) as error:
        raise WeightsNotFoundError(f"no {what} at {source} on the Hub: {error}") from error
    if found is None:
        reason = "there is no such repo, or it is private"
        if is_offline():
            reason = "it is not in the local cache, and offline mode is on: unset HF_HUB_OFFLINE to ask the hub"
        raise WeightsNotFoundError(f"no {what} at {source} on the Hub: {reason}")
    for line in said:
        _logger.warning("%s", line)
    return found.folder


def refuse_only_pickles(folder: Path) -> None:
    """UsageError, with the way to convert, for a folder with pickles as its only weights."""
    if folder.is_dir() and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        for path in sorted(folder.iterdir()):
            refuse_pickle(path)


def check_class_count(weights: Weights) -> int:
    """The class count of a timm release. IntegrityError if config.json and the classifier disagree on it.

    timm compares config.json with the model it builds and, where they differ, drops the classifier without a word: a
    wrong count would leave a random head.
    """
    config = weights.config or {}
    about = config.get("pretrained_cfg") or {}
    classes = config.get("num_classes", about.get("num_classes"))
    if not isinstance(classes, int):
        raise IntegrityError(f"config.json of {weights.origin} does not say num_classes")
    names = about.get("classifier") or ()
    shapes = tensor_shapes(weights.file)
    for name in (names,) if isinstance(names, str) else names:
        rows = shapes.get(f"{name}.weight", (classes,))[0]
        if rows != classes and classes:
            raise IntegrityError(
                f"config.json of {weights.origin} says {classes} classes, but {name}.weight has {rows} rows"
            )
    return classes


def how_to_get(name: str) -> str:
    """Says whether weights of that name are published, names their recipe, and how to point at some."""
    lines = []
    bare = name.partition(".")[0]
    if row := find_release(name) or find_release(bare):
        if not row.published:
            lines.append(f"None have been published yet for {row.full_name}.")
        lines.append(f"The recipe that makes them is `vcreg train {row.recipe}`; `vcreg export` writes the folder.")
    elif bare.endswith("_vcreg"):
        lines.append("Train them, and `vcreg export` writes the folder.")
    lines.append(
        f"Set {FOLDER_VARIABLE} to a folder that holds a folder `{bare}.<tag>`, or {NAMESPACE_VARIABLE} to a Hub user "
        "or organisation that has such a repo."
    )
    return " ".join(lines)


def _read_folder(folder: Path, origin: str, hint: str = AGAIN) -> Weights:
    """A folder's model.safetensors and config.json. hint: what to do about a file that was altered.

    Errors: UsageError for pickles, WeightsNotFoundError for no weights, IntegrityError for a file whose hash is not
    the one that the folder's results.json records.
    """
    file = next((folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), None)
    if file is None:
        refuse_only_pickles(folder)
        raise WeightsNotFoundError(f"{origin} has no {WEIGHTS}")
    check_exported(folder, hint)
    config = _read_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return Weights(file, origin, config)


def _read_config(path: Path) -> JSON:
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise IntegrityError(f"{path} holds a {type(config).__name__}, expected an object")
    refuse_other_sources(config.get("model_args"), f"{path}: model_args")
    return config
