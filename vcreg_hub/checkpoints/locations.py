"""The places to look for weights: a folder, a Hub namespace, this package. Each gives a local folder of one.

A release is a folder or repo called `<name>.<tag>` that holds config.json and model.safetensors.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import HubError, UsageError, WeightsNotFoundError
from ..releases import CARD, CONFIG, PACKAGE, cards_folder, find_release
from .checksums import check_exported, check_release
from .client import RetryPolicy, SilentHubError, attempt, hub_client, hub_unreachable, is_offline, is_repo_id
from .fetch import AGAIN, Downloaded, Log, Part, cached_folder, cached_repos, fetch, require_weights

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FOLDER_VARIABLE = "VCREG_HUB_DIR"
NAMESPACE_VARIABLE = "VCREG_HUB_NAMESPACE"
PACKAGED = PACKAGE / "weights"

_logger = logging.getLogger("vcreg_hub")


class WeightSource(Protocol):
    """A place for releases. warnings: troubles while looking, one line each.

    hint: what to do about a file of it that was altered.
    """

    warnings: list[str]

    @property
    def hint(self) -> str: ...

    def folder(self, full_name: str, revision: str | None = None) -> Path | None:
        """The local folder of `<name>.<tag>`, downloaded if need be; None for a release the source does not have."""

    def fetch(
        self,
        full_name: str,
        revision: str | None = None,
        *,
        force: bool = False,
        api: HfApi | None = None,
        log: Log = ...,
        retries: RetryPolicy = ...,
    ) -> Downloaded | None:
        """Every published file of `<name>.<tag>`, checked; None when the source has none. Errors: see `fetch.fetch`."""

    def tags(self, name: str) -> list[str]:
        """Every `<name>.<tag>` here, sorted."""


@dataclass
class FolderSource:
    """Releases in the subfolders of one folder."""

    path: Path
    label: str
    hint: str
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.label

    def folder(self, full_name: str, revision: str | None = None) -> Path | None:
        found = self.path / full_name
        return found if (found / CONFIG).is_file() else None

    def fetch(
        self,
        full_name: str,
        revision: str | None = None,
        *,
        force: bool = False,
        api: HfApi | None = None,
        log: Log = lambda _: None,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> Downloaded | None:
        folder = self.folder(full_name)
        if folder is None:
            return None
        if revision is not None:
            raise UsageError(f"{full_name} is a folder in {self}, which has no revisions: leave --revision out")
        require_weights({path.name for path in folder.iterdir()}, str(folder))
        check_release(folder, full_name, self.hint)
        check_exported(folder, self.hint)
        return Downloaded(folder, str(self), card=_card_elsewhere(folder, full_name))

    def tags(self, name: str) -> list[str]:
        return sorted(path.parent.name for path in self.path.glob(f"{name}.*/{CONFIG}"))


@dataclass
class HubSource:
    """Releases in the model repos of one Hub user or organisation. cache_only: the hub is not asked."""

    namespace: str
    cache_only: bool = False
    warnings: list[str] = field(default_factory=list)
    hint = AGAIN

    def __str__(self) -> str:
        from huggingface_hub import constants

        where = f"{NAMESPACE_VARIABLE}={self.namespace} on {constants.ENDPOINT}"
        return f"the local cache of {where} (offline mode)" if is_offline() else where

    def folder(self, full_name: str, revision: str | None = None) -> Path | None:
        said: list[str] = []
        if self.cache_only:
            return cached_folder(f"{self.namespace}/{full_name}", revision)
        try:
            found = self.fetch(full_name, revision, part="weights", log=said.append)
        except (HubError, UsageError, WeightsNotFoundError) as error:
            self.warnings.append(str(error))
            return None
        for line in said if found is not None else ():
            _logger.warning("%s", line)
        return None if found is None else found.folder

    def fetch(
        self,
        full_name: str,
        revision: str | None = None,
        *,
        part: Part = "whole",
        force: bool = False,
        api: HfApi | None = None,
        log: Log = lambda _: None,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> Downloaded | None:
        repo = f"{self.namespace}/{full_name}"
        try:
            return fetch(repo, revision, part=part, force=force, api=api, log=log, retries=retries)
        except SilentHubError as error:
            log(self._note(str(error.__cause__ or error)))
            return None

    def tags(self, name: str) -> list[str]:
        prefix = f"{self.namespace}/{name}."
        ids = self._listed(name) if self.answers() else cached_repos()
        return sorted(repo.partition("/")[2] for repo in ids if repo.startswith(prefix))

    def answers(self) -> bool:
        """Whether the hub is to be asked; `warnings` notes the obstacle to its answers."""
        if self.cache_only or is_offline():
            return False
        if why := hub_unreachable(hub_client().endpoint):
            self._note(why)
        return why is None

    def _note(self, why: str) -> str:
        note = f"{NAMESPACE_VARIABLE}={self.namespace}: {why}"
        self.warnings += [note] if note not in self.warnings else []
        return note

    def _listed(self, name: str) -> list[str]:
        def ask() -> list[str]:
            infos = hub_client().list_models(author=self.namespace, search=name)
            return [info.id for info in infos if is_repo_id(info.id)]

        try:
            return attempt(f"the list of {self.namespace} could not be read", ask, RetryPolicy(attempts=1).impatient)
        except HubError as error:
            self.warnings.append(str(error))
            return []


def sources(*, cache_only: bool = False) -> list[WeightSource]:
    """The places to look for weights, in order, as the environment says now. cache_only: no hub is asked."""
    found: list[WeightSource] = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        path = Path(folder).expanduser()
        hint = f"restore the file, or unset {FOLDER_VARIABLE} so that the other places are looked at"
        source = FolderSource(path, f"{FOLDER_VARIABLE}={path}", hint)
        if not path.is_dir():
            source.warnings.append(f"{FOLDER_VARIABLE}={folder} is not a folder")
        found.append(source)
    if namespace := os.environ.get(NAMESPACE_VARIABLE):
        found.append(HubSource(namespace, cache_only))
    return [*found, FolderSource(PACKAGED, "this package", "install vcreg_hub again")]


def _card_elsewhere(folder: Path, full_name: str) -> Path | None:
    """The card of a release whose folder has none: those in the package have theirs with the other cards."""
    cards, row = cards_folder(), find_release(full_name)
    if cards is None or (folder / CARD).is_file() or row is None or not row.published or row.full_name != full_name:
        return None
    card = cards / f"{full_name}.md"
    return card if card.is_file() else None
