"""Where published weights are: a folder, a Hub namespace, or this package. One code path for the three.

A release is a folder or repo called `<name>.<tag>` that holds config.json and model.safetensors, as `vcreg export` and
`vcreg publish` write it. Places, in the order they are asked:

    VCREG_HUB_DIR         a folder of such folders (a network mount will do)
    VCREG_HUB_NAMESPACE   a Hub user or organisation (HF_ENDPOINT, HF_HUB_OFFLINE and the Hub's cache apply)
    this package          `vcreg_hub/weights`

Whatever the place, what comes out is a local folder, checked before anything of it is loaded.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import IntegrityError, UsageError, WeightsNotFoundError
from ..releases import find_release, releases_of
from ..rundir import sha256
from .checkpoint import PICKLES, refuse_pickle, tensor_shapes

FOLDER_VARIABLE = "VCREG_HUB_DIR"
NAMESPACE_VARIABLE = "VCREG_HUB_NAMESPACE"
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

_logger = logging.getLogger("vcreg_hub")


@dataclass(frozen=True)
class Weights:
    """Weights on this machine. origin: where they came from, for messages. config: config.json, None without one."""

    file: Path
    origin: str
    config: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def library(self) -> str:
        """Whose format config.json is in: "transformers" or "timm"."""
        return "transformers" if "model_type" in (self.config or {}) else "timm"


class Place(Protocol):
    """Somewhere that releases are kept. troubles: what went wrong while looking, one line each."""

    troubles: list[str]

    def folder(self, full_name: str) -> Path | None:
        """The local folder of `<name>.<tag>`, brought here if need be; None when the place has none."""

    def tags(self, name: str) -> list[str]:
        """Every `<name>.<tag>` here, sorted."""


@dataclass
class FolderPlace:
    """Releases in the subfolders of one folder."""

    path: Path
    label: str
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.label

    def folder(self, full_name: str) -> Path | None:
        found = self.path / full_name
        return found if (found / CONFIG).is_file() else None

    def tags(self, name: str) -> list[str]:
        return sorted(path.parent.name for path in self.path.glob(f"{name}.*/{CONFIG}"))


@dataclass
class HubPlace:
    """Releases in the model repos of one Hub user or organisation."""

    namespace: str
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        from huggingface_hub import constants

        where = f"{NAMESPACE_VARIABLE}={self.namespace} on {constants.ENDPOINT}"
        return f"the local cache of {where} (offline mode)" if _offline() else where

    def folder(self, full_name: str) -> Path | None:
        return hub_folder(f"{self.namespace}/{full_name}", self.troubles)

    def tags(self, name: str) -> list[str]:
        prefix = f"{self.namespace}/{name}."
        ids = _cached_repos() if _offline() else self._listed(name)
        return sorted(repo.partition("/")[2] for repo in ids if repo.startswith(prefix))

    def _listed(self, name: str) -> list[str]:
        from huggingface_hub import HfApi

        try:
            return [info.id for info in HfApi().list_models(author=self.namespace, search=name)]
        except (_http_error(), OSError) as error:
            self.troubles.append(f"the list of {self.namespace} could not be read: {_first_line(error)}")
            return []


def places() -> list[Place]:
    """Where weights are looked for, in order, as the environment says now."""
    found: list[Place] = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        path = Path(folder).expanduser()
        place = FolderPlace(path, f"{FOLDER_VARIABLE}={path}")
        if not path.is_dir():
            place.troubles.append(f"{FOLDER_VARIABLE}={folder} is not a folder")
        found.append(place)
    if namespace := os.environ.get(NAMESPACE_VARIABLE):
        found.append(HubPlace(namespace))
    return [*found, FolderPlace(PACKAGED, "this package")]


def find_weights(name: str) -> Weights:
    """The weights of `<name>` or `<name>.<tag>` from the first place that has them, checked.

    A bare name means its default tag in `releases.py`; where a place lacks that tag and holds exactly one `<name>.*`,
    that one. The SHA-256 is compared with the release's, where one is recorded, before anything is loaded.
    Errors: UsageError when several tags fit; WeightsNotFoundError when no place has any; IntegrityError for a file
    that differs from its release; UsageError for pickled weights.
    """
    asked = places()
    for place in asked:
        for full_name in _candidates(place, name):
            folder = place.folder(full_name)
            if folder is not None:
                weights = read_folder(folder, f"{full_name} from {place}")
                _check_hash(weights.file, full_name)
                return weights
    raise WeightsNotFoundError(_nobody_published(name, asked))


def resolve(source: str) -> Weights:
    """What a `pretrained=` string means: a safetensors file, a folder (export or run), a release, or a Hub id.

    Errors: WeightsNotFoundError, UsageError for pickles, IntegrityError.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, str(path))
    if path.is_file():
        refuse_pickle(path)
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
    troubles: list[str] = []
    folder = hub_folder(repo, troubles)
    if folder is None:
        reason = "; ".join(troubles) or "there is no such repo, or it has no config.json, or it is private"
        raise WeightsNotFoundError(f"no weights at {repo} on the Hub: {reason}")
    return read_folder(folder, repo)


def read_folder(folder: Path, origin: str) -> Weights:
    """A folder's model.safetensors and config.json. Errors: UsageError for pickles, WeightsNotFoundError for none."""
    file = folder / WEIGHTS
    if not file.is_file():
        pickles = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICKLES)
        if pickles:
            refuse_pickle(pickles[0])
        raise WeightsNotFoundError(f"{origin} has no {WEIGHTS}")
    config = _read_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return Weights(file, origin, config)


def check_class_count(weights: Weights) -> int:
    """The class count of a timm release, which config.json and classifier must agree on: IntegrityError if not.

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


def hub_folder(repo: str, troubles: list[str]) -> Path | None:
    """A repo's config.json and model.safetensors, downloaded to the Hub's cache; None when the Hub has no such repo.

    repo: `owner/name`, or `owner/name@revision`. Whatever else keeps it away is added to `troubles`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = repo.partition("@")
    try:
        config = Path(hf_hub_download(repo, CONFIG, revision=revision or None))
        if _offline():
            _logger.warning("offline mode: %s comes from the local cache", repo)
        # The commit that config.json came from: a push in between cannot mix two versions.
        hf_hub_download(repo, WEIGHTS, revision=config.parent.name)
        return config.parent
    except LocalEntryNotFoundError as error:
        if not _offline():
            troubles.append(f"{repo} could not be reached: {_first_line(error)}")
    except RepositoryNotFoundError:
        return None
    except EntryNotFoundError:
        troubles.append(f"{repo} lacks {CONFIG} or {WEIGHTS} (pickled weights are not loaded)")
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is not a Hub id: {_first_line(error)}") from None
    except (_http_error(), OSError) as error:
        troubles.append(f"{repo}: {_first_line(error)}")
    return None


def _candidates(place: Place, name: str) -> Iterator[str]:
    """The full names that `name` may mean at one place, the likeliest first, each found out when it is asked for.

    Errors: UsageError when a bare name fits several tags and none is the default.
    """
    bare, _, tag = name.partition(".")
    if tag:
        yield name
        return
    for row in releases_of(bare)[:1]:
        yield row.full_name
    tags = place.tags(bare)
    if len(tags) > 1:
        raise UsageError(f"{place} holds {', '.join(tags)}: say which, as in {tags[0]!r}")
    yield from tags


def _nobody_published(name: str, asked: list[Place]) -> str:
    lines = [f"there are no weights for {name!r} in " + ", nor in ".join(str(place) for place in asked) + "."]
    lines += [f"({trouble})" for place in asked for trouble in place.troubles]
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


def _check_hash(file: Path, full_name: str) -> None:
    row = find_release(full_name)
    if row is None or row.sha256 is None or full_name != row.full_name:
        return
    found = sha256(file)
    if found != row.sha256:
        raise IntegrityError(
            f"{file} has SHA-256 {found}, but release {full_name} has {row.sha256}; nothing was loaded or deleted. "
            "Download it again, or give weights of your own another tag"
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise IntegrityError(f"{path} holds a {type(config).__name__}, expected an object")
    return config


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cached_repos() -> list[str]:
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
        return [repo.repo_id for repo in cache.repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []


def _http_error() -> type[Exception]:
    """Base of the HTTP client's errors: httpx in huggingface_hub 1.x, httpx2 from 2.0 on."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
