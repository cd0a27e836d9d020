"""Finds the hashes expected of a release's files and compares the files with them.

    results.json "files"   by `export`: the weights, what their library reads beside them, recipe.json, env.json
    SHA256SUMS             by `vcreg download --to`: every file, as it was fetched
    a cache                huggingface_hub keeps each file under its hash
    releases.py            the weights and config.json of a release; what else it was exported with, in model_cards/

A file is right when it has every hash that is expected of it. Whoever wrote a record names the files of its own
folder, of the kinds that are published: a record that names another one (/proc/self/pagemap) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import IntegrityError, RunFolderError
from ..files import git_hash, parse_json, sha256
from ..releases import CONFIG, RESULTS, WEIGHTS, cards_folder, find_release, is_release_file

SUMS = "SHA256SUMS"
# The field of results.json that holds the hashes of the export.
EXPORTED = "files"
_ELSEWHERE = "{} records a hash of {!r}, which is no file of a release: it was altered"
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's, or SHA-256


def exported_checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 at the export; empty without a record (another's results.json, an older version).

    Errors: RunFolderError for a results.json that is not JSON; IntegrityError for a record that names a file of no
    published kind.
    """
    path = folder / RESULTS
    if not path.is_file():
        return {}
    try:
        found = _exported(parse_json(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from None
    # Another program's file may have a field of that name, of whatever it calls files.
    if not any(map(HASH.fullmatch, found.values())):
        return {}
    if strange := [name for name in found if not is_release_file(name)]:
        raise IntegrityError(_ELSEWHERE.format(path, strange[0]))
    return found


def expected_checksums(folder: Path, full_name: str = "") -> dict[str, list[str]]:
    """Path below `folder` -> each hash expected of it. full_name: the release claimed for the folder."""
    found: dict[str, list[str]] = {}
    sources = (
        exported_checksums(folder),
        _sums(folder),
        cache_checksums(folder),
        _release_checksums(full_name),
        _card_checksums(full_name),
    )
    for hashes in sources:
        for name, digest in hashes.items():
            if digest not in found.setdefault(name, []):
                found[name].append(digest)
    return found


def cache_checksums(folder: Path) -> dict[str, str]:
    """Path below `folder` -> its hash in huggingface_hub's cache: SHA-256 of a large file, git's of a small one.
    Empty for a folder outside the cache."""
    found = {str(PurePosixPath(path.relative_to(folder))): cache_checksum(path) for path in folder.rglob("*")}
    return {name: digest for name, digest in found.items() if digest is not None}


def cache_checksum(path: Path) -> str | None:
    """The hash under which the cache keeps one file; None for one that it does not keep so."""
    name = path.resolve().name if path.is_symlink() and path.is_file() else ""
    return name if HASH.fullmatch(name) else None


def wrong_checksum(path: Path, expected: Iterable[str]) -> str | None:
    """The first of the hashes, SHA-256 or git's, to differ from the file's own; None if all agree."""
    return next((each for each in expected if (git_hash if len(each) == 40 else sha256)(path) != each), None)


def check_listed(path: Path, expected: str, origin: str) -> None:
    """IntegrityError unless a downloaded file has its hash, SHA-256 or git's, in `origin`'s list."""
    found = git_hash(path) if len(expected) == 40 else sha256(path)
    if found != expected:
        raise IntegrityError(
            f"{path} has hash {found}, but {origin} lists {expected} for it: it was damaged on the way or since. "
            "Nothing was loaded; where the cache was altered, `vcreg download --force` fetches it again"
        )


def check_exported(folder: Path, hint: str) -> None:
    """IntegrityError unless every present file of an export has its recorded hash. hint: the cure."""
    for name, expected in exported_checksums(folder).items():
        if (folder / name).is_file() and (found := sha256(folder / name)) != expected:
            raise IntegrityError(
                f"{folder / name} has SHA-256 {found}, but {RESULTS} beside it says it was exported with {expected}: "
                f"it was altered since. Nothing was loaded or deleted. To go on, {hint}"
            )


def check_release(folder: Path, full_name: str, hint: str) -> None:
    """IntegrityError unless the files of `folder` have the hashes in `releases.py` for `<name>.<tag>`.

    hint: what to do about it.
    """
    for name, expected in _release_checksums(full_name).items():
        found = sha256(folder / name)
        if found != expected:
            raise IntegrityError(
                f"{folder / name} has SHA-256 {found}, but release {full_name} has {expected}; nothing was loaded or "
                f"deleted. To go on, {hint}; weights of your own need another tag"
            )


def _release_checksums(full_name: str) -> dict[str, str]:
    """File name -> SHA-256 that `releases.py` records for `<name>.<tag>`; empty where it records none."""
    row = find_release(full_name)
    if row is None or full_name != row.full_name:
        return {}
    recorded = {WEIGHTS: row.sha256, CONFIG: row.config_sha256}
    return {name: digest for name, digest in recorded.items() if digest is not None}


def _exported(results: object) -> dict[str, str]:
    """The record in the content of a results.json. A repo of somebody else may hold a file of that name: none then."""
    files = results.get(EXPORTED) if isinstance(results, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        return {}
    return files


def _sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the folder's SHA256SUMS; empty without one."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    found = {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}
    if strange := [name for name in found if not is_release_file(name)]:
        raise IntegrityError(_ELSEWHERE.format(folder / SUMS, strange[0]))
    return found


def _card_checksums(full_name: str) -> dict[str, str]:
    """Name -> SHA-256 as `export` wrote them, in the record behind a release's card."""
    cards = cards_folder()
    path = None if cards is None else cards / f"{full_name}.json"
    if path is None or not _release_checksums(full_name) or not path.is_file():
        return {}
    results = parse_json(path.read_text(encoding="utf-8")).get("results")
    # The package holds what loads a release; what it tells of itself stands beside its card.
    return {name: digest for name, digest in _exported(results).items() if name not in ("recipe.json", "env.json")}
