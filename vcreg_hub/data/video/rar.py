"""Unpacks RAR archives from elsewhere: nothing lands outside the target, nothing damaged is kept.

`rarfile` reads the listing and the stored entries. Where an entry is compressed an outside program unpacks
the whole archive at once (`unar`, or RARLAB's `unrar`), and what it left is compared with the listing by
size and CRC: these programs report success for files they damaged or left out.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...errors import DataError, VCRegError

MAGIC = b"Rar!\x1a\x07"
NEEDED_TOOL = "install one with `apt install unar` (Debian's unrar-free does not do; RARLAB's own unrar does)"
_CHUNK = 1 << 20


def unpack(archive: str | Path, folder: str | Path, keep: Callable[[str], bool] = lambda name: True) -> list[Path]:
    """Unpack the files of `archive` accepted by `keep` (by name, with forward slashes) into `folder`; returns
    their paths.

    Raises DataError for what is not a RAR archive or not a whole one, for a name that would leave `folder`,
    for an entry that is a link, and for content that differs from the archive's own checksum; VCRegError when
    a program is needed that is not installed.
    """
    try:
        import rarfile
    except ImportError as error:
        raise VCRegError("reading .rar archives needs rarfile: pip install 'vcreg_hub[video]'") from error

    refuse_other_kinds(Path(archive))
    folder = Path(folder)
    try:
        with rarfile.RarFile(str(archive), part_only=False, errors="strict") as opened:
            if opened.needs_password():
                raise DataError(f"{archive}: the archive is encrypted")
            members = {entry.filename: entry for entry in opened.infolist() if not entry.is_dir()}
            targets = {name: folder / _safe(archive, entry) for name, entry in members.items() if keep(name)}
            if all(members[name].compress_type == rarfile.RAR_M0 for name in targets):
                for name, target in targets.items():
                    with opened.open(members[name]) as source:
                        _write(archive, source, members[name], target)
            else:
                _unpack_with_tool(archive, folder, members, targets)
    except (rarfile.Error, EOFError) as error:
        raise DataError(f"{archive}: not a whole RAR archive ({type(error).__name__}: {error})") from error
    except OSError as error:  # not there, not ours to read, no room left for what is in it
        raise DataError(f"{archive} could not be unpacked ({type(error).__name__}: {error})") from error
    return list(targets.values())


def refuse_other_kinds(path: Path) -> None:
    """Errors: DataError for a missing file or one without a RAR archive's first bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise DataError(f"{path} could not be read ({type(error).__name__}: {error})") from error
    if start != MAGIC:
        raise DataError(
            f"{path} is not a RAR archive: only RAR archives and folders are read. Unpack an archive of another kind "
            "(zip, tar) first and give its folder"
        )


def _find_tool(archive: Path, into: Path) -> list[str]:
    """The command that unpacks `archive` into the folder `into`. VCRegError names what to install when none
    can."""
    if unrar := shutil.which("unrar"):
        banner = subprocess.run([unrar], capture_output=True, text=True, errors="replace")
        if "Roshal" in banner.stdout + banner.stderr:  # the real one; unrar-free goes by the same name
            return [unrar, "x", "-idq", "-o+", "-p-", "--", str(archive), f"{into}/"]
    if unar := shutil.which("unar"):
        return [unar, "-quiet", "-force-overwrite", "-no-directory", "-output-directory", str(into), str(archive)]
    raise VCRegError(f"{archive} holds compressed entries, which need a program to unpack: {NEEDED_TOOL}")


def _unpack_with_tool(archive: str | Path, folder: Path, members: dict[str, Any], targets: dict[str, Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
        command = _find_tool(Path(archive).resolve(), Path(scratch))
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        said = (done.stderr or done.stdout).strip()[-300:]
        for name, target in targets.items():
            made = Path(scratch) / target.relative_to(folder)
            # A link could lead out of the scratch folder, also through a parent.
            if not made.is_file() or made.resolve() != Path(scratch).resolve() / target.relative_to(folder):
                raise DataError(f"{archive}: {command[0]} did not unpack {name!r} (exit code {done.returncode}) {said}")
            with open(made, "rb") as source:
                _write(archive, source, members[name], target)


def _safe(archive: str | Path, entry: Any) -> PurePosixPath:
    """The entry's name as a relative path, DataError when it is none or the entry is a link."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if entry.is_symlink() or not entry.is_file():
        raise DataError(f"{archive}: entry {entry.filename!r} is a link, which a data set has no use for")
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or "\0" in str(path):
        raise DataError(f"{archive}: entry {entry.filename!r} would be written outside the target folder")
    return path


def _write(archive: str | Path, source: IO[bytes], entry: Any, target: Path) -> None:
    """Copy to `target` by way of a temporary name, checking size and checksum against the listing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    size = checksum = 0
    try:
        with open(partial, "wb") as out:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                checksum = zlib.crc32(chunk, checksum)
                out.write(chunk)
        if size != entry.file_size or (entry.CRC is not None and checksum != entry.CRC):
            raise DataError(
                f"{archive}: {entry.filename!r} is damaged: {size} bytes with checksum {checksum:08x}, but the "
                f"archive lists {entry.file_size} bytes with {entry.CRC or 0:08x}"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
