"""Reads a folder for publication: selects its files, checks completeness, and refuses private facts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..checkpoints.checksums import check_exported, exported_checksums
from ..checkpoints.find import AGAIN, refuse_only_pickles
from ..errors import IntegrityError, UsageError
from ..files import git_hash, parse_json, sha256, weight_files
from ..releases import INDEX, MODULE, REQUIRED, REQUIRED_OF_MODULE, RESULTS, WEIGHTS, is_release_file
from .card import check_numbers
from .privacy import private_in
from .record import Record

# How the temporary folders of a publication are called.
SCRATCH = "vcreg-publish-"


@dataclass(frozen=True)
class File:
    """One file of a bundle. path: below its folder, with slashes. source: its place on this machine."""

    path: str
    source: Path
    size: int
    sha256: str

    def is_listed(self, git: str, large: str | None) -> bool:
        """Whether a hub with these hashes has it. large: the SHA-256 of a file kept as a large one."""
        return self.sha256 == large if large is not None else git_hash(self.source) == git


@dataclass(frozen=True)
class Bundle:
    """The published part of a folder. skipped: its other files, left here. origin: the folder of the user's that
    `folder` was made from."""

    folder: Path
    files: tuple[File, ...]
    skipped: tuple[str, ...]
    origin: Path

    @property
    def digest(self) -> str:
        """One hash for all files and their names."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


def read_bundle(
    folder: str | Path,
    owner: str | None = None,
    *,
    origin: Path | None = None,
    record: Record | None = None,
) -> Bundle:
    """The bundle of an export folder with its card. owner: of the repo; a name allowed in the files.

    origin: the folder whose files `folder` consists of, by links and copies of our own. record: what `runs.collect`
    gathered of the folder, where that was done already.

    Errors: UsageError when a required file is absent, a file is a symbolic link, or a file holds a token, the name
    of this machine or login, or an absolute path; RunFolderError for weights that are no whole safetensors file;
    IntegrityError for a file that was altered since `export` wrote it, or a card with other numbers than results.json.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} to publish")
    refuse_only_pickles(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = {str(PurePosixPath(path.relative_to(folder))): path for path in paths}
    allowed = {name: path for name, path in names.items() if is_release_file(name)}
    if absent := [name for name in _required(folder) if name not in allowed]:
        raise UsageError(
            f"{folder} is not ready to be published: it has no {', '.join(absent)}. `vcreg export` writes the folder, "
            "`vcreg card` its README.md"
        )
    for name, path in allowed.items():
        if ((origin or folder) / name).is_symlink():
            raise UsageError(f"{name} is a symbolic link: put the file itself there")
        _refuse_private(name, path, frozenset({owner} if owner else ()))
    refuse_altered(folder)
    check_numbers(folder, record)
    files = tuple(File(name, path, path.stat().st_size, sha256(path)) for name, path in allowed.items())
    return Bundle(folder, files, tuple(name for name in names if name not in allowed), origin or folder)


def _required(folder: Path) -> tuple[str, ...]:
    try:
        origin = parse_json((folder / RESULTS).read_text(encoding="utf-8")).get("origin")
    except (OSError, ValueError, AttributeError):
        origin = None
    names = REQUIRED_OF_MODULE if origin == MODULE else REQUIRED
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return names
    parts = [path.name for path in weight_files(folder / INDEX)]
    return (*(name for name in names if name != WEIGHTS), INDEX, *parts)


def refuse_altered(folder: Path) -> None:
    """IntegrityError unless every file of `export` is there unchanged; UsageError for pickles."""
    refuse_only_pickles(folder)
    check_exported(folder, AGAIN)
    for name, digest in exported_checksums(folder).items():
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder / name} is not there, but it was exported with SHA-256 {digest}: {AGAIN}")


def _refuse_private(name: str, path: Path, allowed: frozenset[str]) -> None:
    if found := private_in(path, allowed):
        raise UsageError(
            f"{name} would publish {'; '.join(found[:5])}. Change it in the run folder and export it again"
        )
