"""The one download: a repo's files into the Hub's cache, each compared with its hash in the Hub's list.

Nothing is loaded here, and only files of the kinds that `publish` sends are taken. Finished files stay in the cache.
One that is not what the hub lists is fetched once more. One that broke off starts over, unless huggingface_hub goes on
with it within the same call. What the hub says is looked at first: huggingface_hub makes paths of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from ..errors import HubError, IntegrityError, UnknownNameError, WeightsNotFoundError, unknown_name
from ..releases import CONFIG, INDEX, RESULTS, WEIGHTS, is_release_file
from .checksums import (
    HASH,
    cache_checksum,
    cache_checksums,
    check_exported,
    check_listed,
    check_release,
    wrong_checksum,
)
from .client import RetryPolicy, SilentHubError, attempt, check_ref_name, hub_client, is_offline
from .load import PICKLES, refuse_pickle

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import GitRefs, ModelInfo, RepoSibling

# What to do about a file of the cache that was altered.
AGAIN = "`vcreg download --force` fetches it again"
Log = Callable[[str], None]
Part = Literal["whole", "weights", "config"]
_TO_LOAD = (CONFIG, RESULTS, "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Downloaded:
    """Files on this machine. source: their origin. commit: of the repo, None for a folder.

    offline: whether they are from the cache because the hub was not asked or did not answer. card: where that lies
    when it is not in the folder.
    """

    folder: Path
    source: str
    commit: str | None = None
    offline: bool = False
    card: Path | None = None


def fetch(
    repo: str,
    revision: str | None = None,
    *,
    part: Part = "whole",
    force: bool = False,
    api: HfApi | None = None,
    log: Log = lambda _: None,
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
) -> Downloaded | None:
    """The published files of a repo in the cache, checked; None when there is no such repo, or (offline) none of it in
    the cache.

    revision: a branch, tag or commit. part: "whole" for every published file; "weights" for what loads them, with
    results.json for its hashes; "config" for that without the weights. force: fetch again what is there already. log:
    is told what happens: a damaged file fetched again, a tag that is not where it was when the cache last saw it.

    Errors: WeightsNotFoundError for a repo without weights; UsageError for pickled ones; UnknownNameError for a
    revision; IntegrityError when a file is not what the hub, the export or the table of releases says it is (both
    hashes are named), when the hub's answers are not those of a hub, or when the repo names a file outside of its
    folder; HubError.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if revision is not None:
        check_ref_name("revision", revision)
    api = api or hub_client()
    if is_offline():
        return _from_cache(repo, revision, part, "offline mode (HF_HUB_OFFLINE)", log)
    info = None
    try:
        info = _look(repo, revision, api, retries)
        _note_moved_tag(repo, revision, str(info.sha), api, retries, log)
        folder = _files(info, repo, part, force, api, retries, log)
        current = _is_at(repo, revision, folder, api, retries)
    except RepositoryNotFoundError:
        return None
    except RevisionNotFoundError:
        raise _unknown_revision(repo, str(revision), api, retries) from None
    except SilentHubError as error:
        if cached := _from_cache(repo, revision, part, str(error), log):
            return cached
        raise SilentHubError(f"{error}, and the local cache does not have {repo}") from error
    except HubError as error:
        if info is None and (cached := _from_cache(repo, revision, part, f"the hub does not answer ({error})", log)):
            return cached
        raise
    if not current:
        log(f"{repo} has moved on meanwhile: once more")
        return fetch(repo, revision, part=part, force=force, api=api, log=log, retries=retries)
    if revision in (None, "main"):  # a repo that is called like a release holds that release
        check_release(folder, repo.partition("/")[2], AGAIN)
    check_exported(folder, f"publish the run again: {repo} itself holds what was not exported so")
    return Downloaded(folder, f"{repo} on {api.endpoint}", str(info.sha))


def fetch_file(
    repo: str,
    path: str,
    revision: str,
    *,
    cache: str | Path | None = None,
    force: bool = False,
    api: HfApi,
    retries: RetryPolicy,
    endpoint: str | None = None,
) -> Path:
    """One file of a repo as the hub serves it, compared with nothing yet. cache: a folder, the Hub's own by default.
    endpoint: see `client.attempt`; so are the errors.
    """

    def call() -> str:
        # The cache of now: huggingface_hub reads its default once, at import.
        return api.hf_hub_download(
            repo,
            path,
            revision=revision,
            force_download=force,
            cache_dir=cache or _cache(),
            etag_timeout=retries.timeout,
        )

    # huggingface_hub itself asks a silent hub five times again, and goes on where the content broke off.
    patient = replace(retries, max_timeouts=min(retries.max_timeouts or 2, 2))
    return Path(attempt(f"downloading {path} of {repo}", call, patient, endpoint=endpoint))


def cached_folder(repo: str, revision: str | None = None, part: Part = "weights") -> Path | None:
    """The folder of a repo with its weights in the Hub's cache (part "config": with its config.json); None for
    nothing."""
    from huggingface_hub import try_to_load_from_cache

    for name in (CONFIG,) if part == "config" else (WEIGHTS, INDEX):
        there = try_to_load_from_cache(repo, name, revision=revision, cache_dir=_cache())
        if isinstance(there, str):
            return Path(there).parent
    return None


def cached_repos() -> list[str]:
    """The model repos in the Hub's cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return [repo.repo_id for repo in scan_cache_dir(_cache()).repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []


def require_weights(names: set[str], origin: str) -> None:
    """UsageError, with the conversion, for a folder of pickles alone; WeightsNotFoundError for one without weights."""
    if names & {WEIGHTS, INDEX}:
        return
    if pickles := sorted(name for name in names if PurePosixPath(name).suffix.lower() in PICKLES):
        refuse_pickle(pickles[0])
    raise WeightsNotFoundError(f"{origin} has no {WEIGHTS}")


def _look(repo: str, revision: str | None, api: HfApi, retries: RetryPolicy) -> ModelInfo:
    """What the hub says of a repo and its files. A silent one is given up after 20 seconds, and remembered as such.

    Errors: IntegrityError for what no hub says.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    quick, expected = retries.impatient, (RepositoryNotFoundError, RevisionNotFoundError)

    def look() -> ModelInfo:
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=quick.timeout)

    info = attempt(f"looking at {repo}", look, quick, expected, api.endpoint)
    # Names are looked at later, where they are taken: a path, or one of a pickle.
    said = {"commit": info.sha} | {file.rfilename: _listed_checksum(file) for file in info.siblings or []}
    for name, value in said.items():
        length = (40,) if name == "commit" else (40, 64)
        if value is None and name != "commit":
            continue  # its ETag is its hash
        if not (isinstance(value, str) and HASH.fullmatch(value) and len(value) in length):
            raise IntegrityError(
                f"{api.endpoint} lists {str(value)[:60]!r} for {str(name)[:100]!r} of {repo}, which is no hash of "
                f"{' or '.join(map(str, length))} hexadecimal digits: nothing was fetched"
            )
    return info


def _note_moved_tag(repo: str, revision: str | None, commit: str, api: HfApi, retries: RetryPolicy, log: Log) -> None:
    """Say that a tag is not where it was when the cache last saw it: whoever names one counts on it."""
    if revision is None or HASH.fullmatch(revision):
        return
    ref = Path(_cache(), f"models--{repo.replace('/', '--')}", "refs", revision)
    before = ref.read_text(encoding="utf-8").strip() if ref.is_file() else commit
    if before != commit and revision in [tag.name for tag in _refs(repo, api, retries).tags]:
        log(f"tag {revision} of {repo} has moved since it was cached: it was at {before[:12]}, it is at {commit[:12]}")


def _files(info: ModelInfo, repo: str, part: Part, force: bool, api: HfApi, retries: RetryPolicy, log: Log) -> Path:
    """The folder in the cache that holds the repo's files at that commit, each compared with the hash listed for it."""
    files = {str(file.rfilename): file for file in info.siblings or []}
    for path in files:
        _refuse_escape(path, repo)
    if part != "config":
        require_weights(set(files), repo)
    if part != "whole" and CONFIG not in files:
        raise WeightsNotFoundError(f"{repo} has no {CONFIG}")
    folder = Path()
    for path in _wanted(files, part):
        there = fetch_file(repo, path, str(info.sha), force=force, api=api, retries=retries, endpoint=api.endpoint)
        expected = _listed_checksum(files[path]) or cache_checksum(there)
        if expected is not None and wrong_checksum(there, [expected]):
            log(f"{there} is not what {repo} lists: fetching it again")
            if cache_checksum(there) != expected:
                there.unlink()  # huggingface_hub would leave what it did not put there
            there = fetch_file(repo, path, str(info.sha), force=True, api=api, retries=retries, endpoint=api.endpoint)
            check_listed(there, expected, repo)
        folder = there.parents[len(PurePosixPath(path).parts) - 1]
    if folder.name != info.sha:
        raise IntegrityError(
            f"{repo} is at {info.sha} but its files come as of {folder.name[:40]!r}: nothing was loaded"
        )
    return folder


def _wanted(files: Collection[str], part: Part) -> list[str]:
    """The paths to fetch."""
    if part == "whole":
        return [path for path in files if is_release_file(path)]
    found = [path for path in files if path in _TO_LOAD]
    if part == "weights":
        split_up = WEIGHTS not in files
        found += [path for path in files if is_release_file(path) and _holds_weights(path, split_up)]
    return found


def _holds_weights(path: str, split_up: bool) -> bool:
    return path == INDEX or path.endswith(".safetensors") if split_up else path == WEIGHTS


def _is_at(repo: str, revision: str | None, folder: Path, api: HfApi, retries: RetryPolicy) -> bool:
    """Let the cache know which commit the branch or tag is, so that offline mode finds it by that name.

    False when it is another commit than that of `folder` by now.
    """
    if revision == folder.name:
        return True
    name = next(name for name in (WEIGHTS, INDEX, CONFIG) if (folder / name).exists())
    there = fetch_file(repo, name, revision or "main", api=api, retries=retries, endpoint=api.endpoint)
    return there.parent.name == folder.name


def _from_cache(repo: str, revision: str | None, part: Part, why: str, log: Log) -> Downloaded | None:
    """What the cache has of a repo, checked against the names under which it keeps its content; None for no weights.

    why: what keeps the hub from being asked. Errors: IntegrityError.
    """
    folder = cached_folder(repo, revision, part)
    if folder is None:
        log(f"{repo}: {why}, and the cache does not have it")
        return None
    for name, expected in cache_checksums(folder).items():
        check_listed(folder / name, expected, f"the cache of {repo}")
    if revision in (None, "main"):  # a repo that is called like a release holds that release
        check_release(folder, repo.partition("/")[2], AGAIN)
    check_exported(folder, AGAIN)
    log(f"{repo}: {why}, so this is the copy in the cache")
    return Downloaded(folder, f"{repo}, from the cache", folder.name, offline=True)


def _listed_checksum(listed: RepoSibling) -> str | None:
    """The hash that the hub lists for a file: SHA-256 of one kept as a large file, git's of another."""
    found: str | None = listed.lfs.sha256 if listed.lfs is not None else listed.blob_id
    return found


def _refuse_escape(path: str, repo: str) -> None:
    """IntegrityError for a file name that would leave the folder it is put in."""
    parts = path.replace("\\", "/").split("/")
    if not path or "\0" in path or path.startswith(("/", "~")) or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise IntegrityError(f"{repo} names a file {path!r}, outside of its folder: nothing of it was taken")


def _unknown_revision(repo: str, revision: str, api: HfApi, retries: RetryPolicy) -> UnknownNameError:
    refs = _refs(repo, api, retries)
    return unknown_name(f"revision of {repo}", revision, [ref.name for ref in (*refs.branches, *refs.tags)])


def _refs(repo: str, api: HfApi, retries: RetryPolicy) -> GitRefs:
    return attempt(f"looking at {repo}", lambda: api.list_repo_refs(repo), retries.impatient, (), api.endpoint)


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
