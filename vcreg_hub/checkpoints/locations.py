"""The places where releases are kept: a folder, a Hub namespace, this package. Each gives a local folder of one.

A release is a folder or repo called `<name>.<tag>` that holds config.json and model.safetensors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError
from .exported import RESULTS
from .silence import silence_limited

FOLDER_VARIABLE = "VCREG_HUB_DIR"
NAMESPACE_VARIABLE = "VCREG_HUB_NAMESPACE"
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Seconds that a silent hub is waited for while the names of a namespace are asked.
PATIENCE = 10.0
# Seconds for which it is remembered whether a hub answers.
MEMORY = 60.0
# Address of a hub -> when it was asked, and what kept it from answering, None when it did.
_answers: dict[str, tuple[float, str | None]] = {}

_logger = logging.getLogger("vcreg_hub")


class Place(Protocol):
    """Somewhere that releases are kept. troubles: what went wrong while looking, one line each.

    cure: what to do about a file of it that was altered.
    """

    troubles: list[str]

    @property
    def cure(self) -> str: ...

    def folder(self, full_name: str) -> Path | None:
        """The local folder of `<name>.<tag>`, brought here if need be; None when the place has none."""

    def tags(self, name: str) -> list[str]:
        """Every `<name>.<tag>` here, sorted."""


@dataclass
class FolderPlace:
    """Releases in the subfolders of one folder."""

    path: Path
    label: str
    cure: str
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
    """Releases in the model repos of one Hub user or organisation. cache_only: the hub is not asked."""

    namespace: str
    cache_only: bool = False
    troubles: list[str] = field(default_factory=list)
    cure = "`vcreg download --force` fetches it again"

    def __str__(self) -> str:
        from huggingface_hub import constants

        where = f"{NAMESPACE_VARIABLE}={self.namespace} on {constants.ENDPOINT}"
        return f"the local cache of {where} (offline mode)" if is_offline() else where

    def folder(self, full_name: str) -> Path | None:
        repo = f"{self.namespace}/{full_name}"
        return hub_folder(repo, self.troubles) if is_offline() or self.answers() else cached_folder(repo)

    def tags(self, name: str) -> list[str]:
        prefix = f"{self.namespace}/{name}."
        ids = self._listed(name) if self.answers() else cached_repos()
        return sorted(repo.partition("/")[2] for repo in ids if repo.startswith(prefix))

    def answers(self) -> bool:
        """Whether the hub is to be asked; what keeps it from answering is noted in `troubles`."""
        if self.cache_only or is_offline():
            return False
        if silence := hub_silence():
            note = f"{NAMESPACE_VARIABLE}={self.namespace}: {silence}"
            self.troubles += [note] if note not in self.troubles else []
        return silence is None

    def _listed(self, name: str) -> list[str]:
        try:
            with silence_limited(PATIENCE, in_all=2 * PATIENCE):
                return [info.id for info in hub_api().list_models(author=self.namespace, search=name)]
        except (_http_error(), OSError) as error:
            self.troubles.append(f"the list of {self.namespace} could not be read: {_first_line(error)}")
            return []


def places(*, cache_only: bool = False) -> list[Place]:
    """Where weights are looked for, in order, as the environment says now. cache_only: no hub is asked."""
    found: list[Place] = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        path = Path(folder).expanduser()
        cure = f"restore the file, or unset {FOLDER_VARIABLE} so that the other places are looked at"
        place = FolderPlace(path, f"{FOLDER_VARIABLE}={path}", cure)
        if not path.is_dir():
            place.troubles.append(f"{FOLDER_VARIABLE}={folder} is not a folder")
        found.append(place)
    if namespace := os.environ.get(NAMESPACE_VARIABLE):
        found.append(HubPlace(namespace, cache_only))
    return [*found, FolderPlace(PACKAGED, "this package", "install vcreg_hub again")]


def hub_api() -> Any:
    """The one door to the Hub: HF_ENDPOINT, HF_HUB_OFFLINE, the login and the cache are huggingface_hub's own."""
    from huggingface_hub import HfApi

    return HfApi()


def hub_silence(endpoint: str | None = None) -> str | None:
    """What keeps the hub (that of this environment) from answering, None when it answers. It is asked once a minute,
    without huggingface_hub's retries: those cost 23 seconds for every file of a hub that cannot be reached."""
    from huggingface_hub.utils import get_session, httpx

    endpoint = endpoint or hub_api().endpoint
    asked, trouble = _answers.get(endpoint, (-MEMORY, None))
    if time.monotonic() - asked < MEMORY:
        return trouble
    try:
        get_session().head(endpoint, timeout=PATIENCE)
        trouble = None
    except httpx.TransportError as error:
        trouble = f"{endpoint} does not answer ({_first_line(error)})"
    _answers[endpoint] = (time.monotonic(), trouble)
    return trouble


def remember_silence(endpoint: str, error: BaseException) -> str:
    """Note that a hub fell silent after it had answered, so that it is not waited for again; returns what to say."""
    silence = f"{endpoint} does not answer ({_first_line(error)})"
    _answers[endpoint] = (time.monotonic(), silence)
    return silence


def cached_folder(repo: str, revision: str | None = None) -> Path | None:
    """What the Hub's cache has of a repo with its weights; None for nothing."""
    from huggingface_hub import constants, try_to_load_from_cache

    there = try_to_load_from_cache(repo, WEIGHTS, revision=revision, cache_dir=constants.HF_HUB_CACHE)
    return Path(there).parent if isinstance(there, str) else None


def hub_folder(repo: str, troubles: list[str]) -> Path | None:
    """A repo's config.json, model.safetensors and (for its hashes) results.json, downloaded to the Hub's cache; None
    when the Hub has no such repo.

    repo: `owner/name`, or `owner/name@revision`. Whatever else keeps it away is added to `troubles`.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = repo.partition("@")
    silence = None if is_offline() else hub_silence()
    try:
        if is_offline() or silence:
            there = cached_folder(repo, revision or None)
            if there is not None:
                _logger.warning("%s: %s comes from the local cache", silence or "offline mode", repo)
            elif silence:
                troubles.append(f"{silence}, and the local cache does not have {repo}")
            return there
        with silence_limited(PATIENCE, in_all=2 * PATIENCE):
            api, at = hub_api(), revision or None
            config = Path(api.hf_hub_download(repo, CONFIG, revision=at, etag_timeout=PATIENCE))
            # The commit that config.json came from: a push in between cannot mix two versions.
            with contextlib.suppress(RemoteEntryNotFoundError):  # then there are no hashes to compare with
                api.hf_hub_download(repo, RESULTS, revision=config.parent.name, etag_timeout=PATIENCE)
        api.hf_hub_download(repo, WEIGHTS, revision=config.parent.name)
        return config.parent
    except LocalEntryNotFoundError as error:
        troubles.append(f"{repo} could not be reached: {_first_line(error)}")
    except TimeoutError as error:  # it fell silent after it had answered
        troubles.append(remember_silence(hub_api().endpoint, error))
        return cached_folder(repo, revision or None)
    except RepositoryNotFoundError:
        return None
    except EntryNotFoundError:
        troubles.append(f"{repo} lacks {CONFIG} or {WEIGHTS} (pickled weights are not loaded)")
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is not a Hub id: {_first_line(error)}") from None
    except (_http_error(), OSError) as error:
        troubles.append(f"{repo}: {_first_line(error)}")
    return None


def is_offline() -> bool:
    """Whether huggingface_hub is told to ask no hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_repos() -> list[str]:
    """The model repos in the Hub's cache."""
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
