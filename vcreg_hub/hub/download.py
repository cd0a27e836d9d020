"""Fetching a release: every file checked against the hub's own hashes, the weights against the table of releases.

Nothing is loaded here, nothing is deleted, and only files of the kinds that `publish` sends are taken. Finished files
stay in the cache and unfinished large ones beside it, so a download that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..checkpoints.copies import copy_to, refuse_file
from ..checkpoints.exported import check_exported
from ..checkpoints.find import candidates, check_release, nobody_published, release_hashes
from ..checkpoints.load import PICKLES, refuse_pickle
from ..checkpoints.locations import PATIENCE, HubPlace, Place, hub_silence, is_offline, places, remember_silence
from ..checkpoints.recorded import cached_hash, git_hash
from ..checkpoints.repo_id import check_repo_id
from ..checkpoints.retry import Patience, attempt, is_silence
from ..errors import HubError, IntegrityError, UnknownNameError, UsageError, WeightsNotFoundError, unknown_name
from ..files import sha256
from ..releases import RELEASES
from .bundle import is_allowed
from .index import cards_folder
from .plan import hub_client
from .resume import bring_blob

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = "model.safetensors"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Downloaded:
    """Files on this machine. source: where they came from. commit: of the repo, None for a folder.

    offline: whether they are from the cache because the hub was not asked or did not answer. card: where that lies
    when it is not in the folder.
    """

    folder: Path
    source: str
    commit: str | None = None
    offline: bool = False
    card: Path | None = None


def download(
    name: str,
    *,
    revision: str | None = None,
    to: str | Path | None = None,
    force: bool = False,
    api: HfApi | None = None,
    say: Say = lambda _: None,
    patience: Patience = Patience(),  # noqa: B008
) -> Downloaded:
    """The files of `<name>`, `<name>.<tag>` or `owner/name`, checked; in the cache, and in the folder `to` if given.

    A release is looked for in VCREG_HUB_DIR, in VCREG_HUB_NAMESPACE on the hub, and in this package. revision: a
    branch, tag or commit of the repo. force: fetch again what is there already. say: is told what happens.

    Errors: WeightsNotFoundError when no place has it; UnknownNameError for a revision; IntegrityError when a file is
    not what the hub or the table of releases says it is (both hashes are named, nothing is deleted) or when the repo
    names a file outside of its folder; UsageError for pickled weights or a folder `to` that holds other files of
    those names; HubError.
    """
    refuse_file(to)
    found = _find(name, revision, force, api or hub_client(), say, patience)
    say(f"{name}: {found.source}" + (f" at {found.commit[:12]}" if found.commit else ""))
    if to is None:
        return found
    copy_to(found.folder, Path(to), force, found.card)
    say(f"copied to {to}")
    return Downloaded(Path(to), found.source, found.commit, found.offline)


def _find(name: str, revision: str | None, force: bool, api: HfApi, say: Say, patience: Patience) -> Downloaded:
    if "/" in name:
        repo, _, at = name.removeprefix("hf-hub:").partition("@")
        check_repo_id(repo)
        found = fetch(repo, revision or at or None, force=force, api=api, say=say, patience=patience)
        if found is None and is_offline():
            raise WeightsNotFoundError(
                f"{repo} is not in the local cache, and offline mode is on, so no hub was asked: unset HF_HUB_OFFLINE "
                "to fetch it"
            )
        if found is None:
            raise WeightsNotFoundError(f"there is no repo {repo} on {api.endpoint}, or this login may not see it")
        return found
    asked = places()
    for place in asked:
        for full_name in candidates(place, name):
            if found := _from_place(place, full_name, revision, force, api, say, patience):
                return found
    known = [row.full_name for row in RELEASES] + [row.name for row in RELEASES]
    if not name.partition(".")[0].endswith("_vcreg"):
        raise unknown_name("release", name, known, "A repo is given as owner/name.")
    raise WeightsNotFoundError(nobody_published(name, asked))


def _from_place(
    place: Place, full_name: str, revision: str | None, force: bool, api: HfApi, say: Say, patience: Patience
) -> Downloaded | None:
    if isinstance(place, HubPlace):
        repo = f"{place.namespace}/{full_name}"
        if not place.answers() and place.troubles:
            return _cached(repo, revision, say, place.troubles[-1])
        return fetch(repo, revision, force=force, api=api, say=say, patience=patience)
    folder = place.folder(full_name)
    if folder is None:
        return None
    if revision is not None:
        raise UsageError(f"{full_name} is a folder in {place}, which has no revisions: leave --revision out")
    _require_weights({path.name for path in folder.iterdir()}, str(folder))
    check_release(folder, full_name, place.cure)
    check_exported(folder, place.cure)
    return Downloaded(folder, str(place), card=_card_elsewhere(folder, full_name))


def _card_elsewhere(folder: Path, full_name: str) -> Path | None:
    """The card of a release whose folder has none: those in the package have theirs with the other cards."""
    cards = cards_folder()
    if cards is None or (folder / "README.md").is_file() or not release_hashes(full_name):
        return None
    card = cards / f"{full_name}.md"
    return card if card.is_file() else None


def fetch(
    repo: str,
    revision: str | None = None,
    *,
    force: bool = False,
    api: HfApi,
    say: Say = lambda _: None,
    patience: Patience = Patience(),  # noqa: B008
) -> Downloaded | None:
    """The published files of a repo in the cache, checked; None when there is no such repo. Errors: see `download`."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if is_offline():
        return _cached(repo, revision, say, "offline mode (HF_HUB_OFFLINE)")
    try:
        info = _look(repo, revision, api, patience)
    except RepositoryNotFoundError:
        return None
    except RevisionNotFoundError:
        raise _unknown_revision(repo, str(revision), api, patience) from None
    except HubError as error:
        why = str(error) if is_silence(error.__cause__) else f"the hub does not answer ({error})"
        if cached := _cached(repo, revision, say, why):
            return cached
        raise
    files = {file.rfilename: file for file in info.siblings or []}
    for path in files:
        _refuse_escape(path, repo)
    _require_weights(set(files), repo)
    folder = Path()
    for path in filter(is_allowed, files):
        listed = files[path]
        if listed.lfs is not None and not force:
            bring_blob(api, repo, path, str(info.sha), listed.lfs.sha256, listed.lfs.size, Path(_cache()), patience)
        there = _one(repo, path, str(info.sha), force, api, patience)
        _check(there, listed, repo)
        folder = there.parents[len(PurePosixPath(path).parts) - 1]
    if revision in (None, "main"):
        check_release(folder, repo.partition("/")[2], HubPlace.cure)
    check_exported(folder, f"publish the run again: {repo} itself holds what was not exported so")
    if not _remembered(repo, revision, str(info.sha), api, patience):
        say(f"{repo} has moved on meanwhile: once more")
        return fetch(repo, revision, force=force, api=api, say=say, patience=patience)
    return Downloaded(folder, f"{repo} on {api.endpoint}", str(info.sha))


def _look(repo: str, revision: str | None, api: HfApi, patience: Patience) -> Any:
    """What the hub says of a repo and its files. A silent one is given up after 20 seconds, and remembered as such."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if silence := hub_silence(api.endpoint):
        raise HubError(silence) from TimeoutError(silence)
    quick = replace(patience, timeout=min(patience.timeout, PATIENCE), in_all=2 * PATIENCE, silences=2)

    def look() -> Any:
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=quick.timeout)

    try:
        return attempt(f"looking at {repo}", look, quick, (RepositoryNotFoundError, RevisionNotFoundError))
    except HubError as error:
        if (cause := error.__cause__) is not None and is_silence(cause):
            raise HubError(remember_silence(api.endpoint, cause)) from cause
        raise


def _one(repo: str, path: str, commit: str, force: bool, api: HfApi, patience: Patience) -> Path:
    def call() -> str:
        # The cache of now: huggingface_hub reads its default once, at import.
        return api.hf_hub_download(
            repo, path, revision=commit, force_download=force, cache_dir=_cache(), etag_timeout=patience.timeout
        )

    return Path(attempt(f"downloading {path} of {repo}", call, patience))


def _remembered(repo: str, revision: str | None, commit: str, api: HfApi, patience: Patience) -> bool:
    """Let the cache know which commit the branch or tag is, so that offline mode finds it by that name.

    False when it is another commit by now.
    """
    return revision == commit or _one(repo, WEIGHTS, revision or "main", False, api, patience).parent.name == commit


def _cached(repo: str, revision: str | None, say: Say, why: str) -> Downloaded | None:
    """What the cache has of a repo, checked against the names under which it keeps its content."""
    from huggingface_hub import try_to_load_from_cache

    there = try_to_load_from_cache(repo, WEIGHTS, revision=revision, cache_dir=_cache())
    if not isinstance(there, str):
        say(f"{repo}: {why}, and the cache does not have it")
        return None
    folder = Path(there).parent
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if (expected := cached_hash(path)) and expected not in (sha256(path), git_hash(path)):
            raise _mismatch(path, sha256(path), expected, f"the cache of {repo}")
    if revision in (None, "main"):
        check_release(folder, repo.partition("/")[2], HubPlace.cure)
    check_exported(folder, HubPlace.cure)
    say(f"{repo}: {why}, so this is the copy in the cache")
    return Downloaded(folder, f"{repo}, from the cache", folder.name, offline=True)


def _check(path: Path, listed: Any, repo: str) -> None:
    """IntegrityError unless a downloaded file has the hash that the hub lists for it."""
    if listed.lfs is not None:
        if (found := sha256(path)) != listed.lfs.sha256:
            raise _mismatch(path, found, listed.lfs.sha256, repo)
    elif listed.blob_id is not None and (found := git_hash(path)) != listed.blob_id:
        raise _mismatch(path, found, listed.blob_id, repo)


def _mismatch(path: Path, found: str, expected: str, repo: str) -> IntegrityError:
    return IntegrityError(
        f"{path} has hash {found}, but {repo} lists {expected} for it: it was damaged on the way or since. Nothing was "
        "loaded or deleted; download it again with --force"
    )


def _refuse_escape(path: str, repo: str) -> None:
    """IntegrityError for a file name that would leave the folder it is put in."""
    parts = path.replace("\\", "/").split("/")
    if not path or "\0" in path or path.startswith(("/", "~")) or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise IntegrityError(f"{repo} names a file {path!r}, outside of its folder: nothing of it was taken")


def _require_weights(names: set[str], origin: str) -> None:
    """UsageError that says how to convert where there are only pickles, WeightsNotFoundError where there is neither."""
    if WEIGHTS in names:
        return
    if pickles := sorted(name for name in names if PurePosixPath(name).suffix.lower() in PICKLES):
        refuse_pickle(pickles[0])
    raise WeightsNotFoundError(f"{origin} has no {WEIGHTS}")


def _unknown_revision(repo: str, revision: str, api: HfApi, patience: Patience) -> UnknownNameError:
    refs = attempt(f"looking at {repo}", lambda: api.list_repo_refs(repo), patience)
    return unknown_name(f"revision of {repo}", revision, [ref.name for ref in (*refs.branches, *refs.tags)])


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
