"""Unpacks HMDB51's packing: a RAR archive of one RAR archive a class, each with a folder of the class's name."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...errors import DataError
from ...files import locked
from .rar import unpack

_SCRATCH = ".unpacking-classes-"


def unpack_set(archive: Path, videos: Path, log: Callable[[str], None]) -> Path:
    """Unpack a RAR of class RARs into `videos`/<class>/; classes from an earlier attempt stay.
    Returns `videos`. Errors: DataError."""
    with tempfile.TemporaryDirectory(dir=videos.parent, prefix=_SCRATCH) as scratch:
        log(f"unpacking the classes that are missing from {videos}")
        seen = []

        def missing(name: str) -> bool:
            if not name.lower().endswith(".rar"):
                return False
            seen.append(name)
            return not (videos / Path(name).stem).exists()

        inner = unpack(archive, scratch, keep=missing)
        if not seen:
            raise DataError(f"{archive}: expected a RAR archive of one RAR archive a class, found none inside")
        return unpack_classes(inner, videos, log)


def unpack_classes(archives: Sequence[Path], videos: Path, log: Callable[[str], None]) -> Path:
    """Unpack class RARs into `videos`/<class>/, each whole or not at all; returns `videos`.

    Errors: DataError for an archive that does not hold one folder of its own name.
    """
    for number, path in enumerate(sorted(archives), start=1):
        name = path.stem
        if (videos / name).exists():
            continue
        log(f"unpacking {name} ({number} of {len(archives)})")
        with tempfile.TemporaryDirectory(dir=videos.parent, prefix=_SCRATCH) as unpacked:
            clips = unpack(path, unpacked, keep=lambda name: not Path(name).name.startswith("."))
            if {clip.parent for clip in clips} != {Path(unpacked) / name}:
                raise DataError(f"{path.name} does not unpack to one folder {name!r}")
            videos.mkdir(exist_ok=True)
            (Path(unpacked) / name).rename(videos / name)
    return videos


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others out of `folder` during the preparation of a set, and sweep up a killed attempt's files.

    Errors: DataError when another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as free:
        if free is False:
            raise DataError(f"{folder}: another process is preparing a data set there")
        for left in folder.glob(f"{_SCRATCH}*") if free else ():
            shutil.rmtree(left, ignore_errors=True)
        yield
