"""The places where releases are kept: a folder, a Hub namespace, this package. Each gives a local folder of one.

A release is a folder or repo called `<name>.<tag>` that holds config.json and model.safetensors.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError
from .silence import silence_limited

FOLDER_VARIABLE = "VCREG_HUB_DIR"
NAMESPACE_VARIABLE = "VCREG_HUB_NAMESPACE"
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Seconds that a silent hub is waited for while the names of a namespace are asked.
PATIENCE = 10.0

_logger = logging.getLogger("vcreg_hub")


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
        try:
            with silence_limited(PATIENCE, in_all=2 * PATIENCE):
                return [info.id for info in hub_api().list_models(author=self.namespace, search=name)]
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


def hub_api() -> Any:
    """The one door to the Hub: HF_ENDPOINT, HF_HUB_OFFLINE, the login and the cache are huggingface_hub's own."""
    from huggingface_hub import HfApi

    return HfApi()


def hub_folder(repo: str, troubles: list[str]) -> Path | None:
    """A repo's config.json and model.safetensors, downloaded to the Hub's cache; None when the Hub has no such repo.

    repo: `owner/name`, or `owner/name@revision`. Whatever else keeps it away is added to `troubles`.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = repo.partition("@")
    try:
        config = Path(hub_api().hf_hub_download(repo, CONFIG, revision=revision or None))
        if _offline():
            _logger.warning("offline mode: %s comes from the local cache", repo)
        # The commit that config.json came from: a push in between cannot mix two versions.
        hub_api().hf_hub_download(repo, WEIGHTS, revision=config.parent.name)
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
