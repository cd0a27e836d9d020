"""The hashes that are recorded of a folder's files, by whoever wrote, sent or released them.

    results.json "files"   by `export`: the weights, what their library reads beside them, recipe.json, env.json
    SHA256SUMS             by `vcreg download --to`: every file, as it was fetched
    a cache                huggingface_hub keeps each file under its hash
    releases.py            the weights and config.json of a release; what else it was exported with, in model_cards/

A file is right when it has every hash that is recorded of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

from ..files import sha256
from ..hub.index import cards_folder
from .exported import exported_hashes, hashes_in
from .find import release_hashes

SUMS = "SHA256SUMS"


def recorded_hashes(folder: Path, full_name: str = "") -> dict[str, list[str]]:
    """Path below `folder` -> each hash recorded of it. full_name: the release that the folder is said to be."""
    found: dict[str, list[str]] = {}
    sources = (exported_hashes(folder), sums(folder), _cached(folder), release_hashes(full_name), _carded(full_name))
    for hashes in sources:
        for name, digest in hashes.items():
            if digest not in found.setdefault(name, []):
                found[name].append(digest)
    return found


def wrong_hash(path: Path, expected: list[str]) -> str | None:
    """The first of `expected` (SHA-256, or the hash git gives) that the file's content does not have."""
    if not expected:
        return None
    found = {sha256(path), git_hash(path)}
    return next((digest for digest in expected if digest not in found), None)


def _carded(full_name: str) -> dict[str, str]:
    """Name -> SHA-256 as `export` wrote them, in the record behind a release's card."""
    cards = cards_folder()
    path = None if cards is None else cards / f"{full_name}.json"
    if path is None or not release_hashes(full_name) or not path.is_file():
        return {}
    results = json.loads(path.read_text(encoding="utf-8")).get("results")
    # The package holds what loads a release; what it tells of itself stands beside its card.
    return {name: digest for name, digest in hashes_in(results).items() if name not in ("recipe.json", "env.json")}


def sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the folder's SHA256SUMS; empty without one."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def cached_hash(path: Path) -> str | None:
    """The hash that huggingface_hub's cache keeps a file under: SHA-256 of a large file, git's of a small one."""
    if not path.is_symlink():
        return None
    name = path.resolve().name
    return name if len(name) in (40, 64) and all(c in "0123456789abcdef" for c in name) else None


def git_hash(path: str | Path) -> str:
    """The hash that git gives a file's content."""
    path = Path(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _cached(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    hashes = ((str(PurePosixPath(path.relative_to(folder))), cached_hash(path)) for path in paths)
    return {name: digest for name, digest in hashes if digest}
