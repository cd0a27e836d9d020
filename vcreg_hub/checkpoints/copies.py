"""The copy of a release that `vcreg download --to` makes in a folder of the user's."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from ..files import replacing, sha256, write_text
from ..hub.bundle import is_allowed
from .recorded import SUMS


def refuse_file(to: str | Path | None) -> None:
    """UsageError, before anything is fetched, for a target that is or lies below a file."""
    for path in () if to is None else (Path(to), *Path(to).parents):
        if path.exists() or path.is_symlink():
            if not path.is_dir():
                raise UsageError(f"{path} is a file, and --to {to} is to be a folder: give another name")
            return


def copy_to(folder: Path, to: Path, force: bool = False, card: Path | None = None) -> None:
    """Copy the published files of `folder` into `to`, with a SHA256SUMS beside them that `sha256sum -c` reads.

    card: the README.md of a folder that has none; its picture lies beside it.
    Errors: UsageError, before anything is written, when `to` has other content under one of those names; `force`
    replaces it.
    """
    sources = {str(PurePosixPath(path.relative_to(folder))): path for path in sorted(folder.rglob("*"))}
    sources = {name: path for name, path in sources.items() if path.is_file() and is_allowed(name)}
    if card is not None:
        sources["README.md"] = card
        if (picture := card.with_suffix(".png")).is_file():
            sources[picture.name] = picture
    sums = {name: sha256(path) for name, path in sorted(sources.items())}
    for name, digest in sums.items():
        target = to / name
        if not target.resolve().is_relative_to(to.resolve()):
            raise UsageError(f"{target} leads out of {to} through a link: give another folder")
        if not force and target.exists() and (not target.is_file() or sha256(target) != digest):
            raise UsageError(f"{target} is there with other content: give another folder, or --force to replace it")
    for name in sums:
        with replacing(to / name) as temporary:
            shutil.copyfile(sources[name], temporary)
    write_text(to / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
