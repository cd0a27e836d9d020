"""`vcreg download`: a release or repo in the cache, and its copy in a folder of the user's (`--to`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..checkpoints.checksums import SUMS
from ..checkpoints.client import RetryPolicy, check_repo_id, hub_client, is_offline
from ..checkpoints.fetch import Downloaded, fetch
from ..checkpoints.find import Lookup
from ..errors import UsageError, WeightsNotFoundError, unknown_name
from ..files import replacing, sha256, write_text
from ..releases import CARD, RELEASES, is_release_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Log = Callable[[str], None]


def download(
    name: str,
    *,
    revision: str | None = None,
    to: str | Path | None = None,
    force: bool = False,
    api: HfApi | None = None,
    log: Log = lambda _: None,
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
) -> Downloaded:
    """The files of `<name>`, `<name>.<tag>` or `owner/name`, checked; in the cache, and in the folder `to` if given.

    A release is looked for in VCREG_HUB_DIR, in VCREG_HUB_NAMESPACE on the hub, and in this package. revision: a
    branch, tag or commit of the repo. force: fetch again what is there already. log: is told what happens.

    Errors: WeightsNotFoundError when no place has it; UnknownNameError for a revision; IntegrityError when a file is
    not what the hub or the table of releases says it is (both hashes are named, nothing is deleted) or when the repo
    names a file outside of its folder; UsageError for pickled weights or a folder `to` that holds other files of
    those names; HubError.
    """
    _refuse_file(to)
    find = _repo if "/" in name else _release
    found = find(name, revision, force, api or hub_client(), log, retries)
    log(f"{name}: {found.source}" + (f" at {found.commit[:12]}" if found.commit else ""))
    if to is None:
        return found
    _copy_to(found.folder, Path(to), force, found.card)
    log(f"copied to {to}")
    return Downloaded(Path(to), found.source, found.commit, found.offline)


def _repo(name: str, revision: str | None, force: bool, api: HfApi, log: Log, retries: RetryPolicy) -> Downloaded:
    repo, _, at = name.removeprefix("hf-hub:").partition("@")
    check_repo_id(repo)
    found = fetch(repo, revision or at or None, force=force, api=api, log=log, retries=retries)
    if found is None and is_offline():
        raise WeightsNotFoundError(
            f"{repo} is not in the local cache, and offline mode is on, so no hub was asked: unset HF_HUB_OFFLINE "
            "to fetch it"
        )
    if found is None:
        raise WeightsNotFoundError(f"there is no repo {repo} on {api.endpoint}, or this login may not see it")
    return found


def _release(name: str, revision: str | None, force: bool, api: HfApi, log: Log, retries: RetryPolicy) -> Downloaded:
    lookup = Lookup(name)
    for source, full_name in lookup:
        if found := source.fetch(full_name, revision, force=force, api=api, log=log, retries=retries):
            return found
    if not name.partition(".")[0].endswith("_vcreg"):
        known = [row.full_name for row in RELEASES] + [row.name for row in RELEASES]
        raise unknown_name("release", name, known, "A repo is given as owner/name.")
    raise lookup.failed()


def _refuse_file(to: str | Path | None) -> None:
    """UsageError, before anything is fetched, for a target that is or lies below a file."""
    for path in () if to is None else (Path(to), *Path(to).parents):
        if path.exists() or path.is_symlink():
            if not path.is_dir():
                raise UsageError(f"{path} is a file, and --to {to} is to be a folder: give another name")
            return


def _copy_to(folder: Path, to: Path, force: bool = False, card: Path | None = None) -> None:
    """Copy the published files of `folder` into `to`, with a SHA256SUMS beside them that `sha256sum -c` reads.

    card: the README.md of a folder that has none; its picture lies beside it.
    Errors: UsageError, before anything is written, when `to` has other content under one of those names; `force`
    replaces it.
    """
    there = {str(PurePosixPath(path.relative_to(folder))): path for path in sorted(folder.rglob("*"))}
    there = {name: path for name, path in there.items() if path.is_file() and is_release_file(name)}
    if card is not None:
        there[CARD] = card
        there |= {picture.name: picture for picture in card.parent.glob(f"{card.stem}.*png")}
    sums = {name: sha256(path) for name, path in sorted(there.items())}
    for name, digest in sums.items():
        target = to / name
        if not target.resolve().is_relative_to(to.resolve()):
            raise UsageError(f"{target} leads out of {to} through a link: give another folder")
        if not force and target.exists() and (not target.is_file() or sha256(target) != digest):
            raise UsageError(f"{target} is there with other content: give another folder, or --force to replace it")
    for name in sums:
        with replacing(to / name) as temporary:
            shutil.copyfile(there[name], temporary)
    write_text(to / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
