"""HMDB51 and sets laid out like it: official archives or class folders, plus split files, into an index.

A split file is `<class>_test_split<number>.txt`; a line is a file name, a space, a flag (1 train, 2 test, 0
unused) and a trailing space. File names hold brackets, `#`, `;`, `&`, `!` and leading dashes and classes
are prefixes of others (climb, climb_stairs), so names are compared whole and never meet a pattern or a
shell.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ...errors import DataError, counted, some
from ..datasets import VIDEO_SETS, VideoSet
from .class_archives import alone_in, unpack_classes, unpack_set
from .folder import SUFFIXES
from .index import ABOUT, TEST, TRAIN, Clip, Tick, VideoIndex, measured, read_index, write_index
from .rar import refuse_other_kinds, unpack

HMDB51 = VIDEO_SETS["hmdb51"]
_SPLIT_FILE = re.compile(r"(?P<name>.+)_test_split(?P<split>\d+)\.txt")
# What follows class and source in a file's name: visible part, camera, people, viewpoint, quality, number.
_SUFFIX = re.compile(r"_[a-z]+_(cm|nm)_np\d+_(fr|ba|ri|le)_(goo|med|bad)_\d+$")


@dataclass(frozen=True)
class _SplitFiles:
    """flags[class][file name] is a tuple, one flag a split."""

    flags: Mapping[str, Mapping[str, tuple[int, ...]]]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.flags))


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    splits: str | Path | None = None,
    video_set: VideoSet = HMDB51,
    workers: int = 0,
    log: Callable[[str], None] = print,
    tick: Tick = lambda done, total: None,
) -> VideoIndex:
    """Make the index of a set in `out`; videos of an archive are unpacked to `out`/videos, a folder's stay
    there. Interrupted, the same call goes on where it was.

    source: the archive of class archives; or a folder that holds it or the class archives; or a folder of class
    folders, or one that holds those in `videos/`. splits: folder of split files or their archive; None looks beside
    the videos. tick: told (clips counted, of how many). Clips that do not decode are listed in the index and counted,
    not an error. Raises DataError when classes, clips or splits are not what `video_set` promises, before anything is
    decoded, for a class folder without split files, and when `out` holds another set's index or somebody else is
    preparing one there.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise DataError(f"{source}: there is no such folder or archive")
    for given in (source, splits):
        if given is not None and Path(given).is_file():
            refuse_other_kinds(Path(given))
    if (out / ABOUT).exists() and (there := read_index(out).name) != video_set.name:
        raise DataError(f"{out} holds {there}, not {video_set.name}; choose another folder")
    with alone_in(out):
        files = _read_splits(_split_folder(source, splits, out, video_set), video_set)
        videos = _videos(source, out, files, video_set, log)
        unlisted = _compare(videos, files)
        if unlisted:
            log(f"in no split file and left out: {counted(len(unlisted), 'file')} of the class folders, "
                f"such as {unlisted[0]}")  # fmt: skip
        labels = {name: label for label, name in enumerate(files.class_names)}
        clips = [
            Clip(f"{name}/{file}", labels[name], _source_of(file, name), flags)
            for name in files.class_names
            for file, flags in sorted(files.flags[name].items())
        ]
        log(f"decoding {len(clips)} clips from end to end to count their frames")
        journal = out / ".counted.jsonl"
        filled = measured(videos, clips, workers, journal, tick)
        notes = {"av": metadata.version("av")}  # another FFmpeg may count the frames of a damaged file otherwise
        index = VideoIndex(video_set.name, videos, files.class_names, filled, notes)
        write_index(out, index)
        journal.unlink()
        return index


def _source_of(file: str, class_name: str) -> str:
    """The film a clip was cut from: what stands before the class in its name; a name of another pattern is
    its own.

    >>> _source_of("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair")
    'April_09'
    """
    stem = file.rpartition(".")[0] or file
    before = _SUFFIX.sub("", stem)
    film = before.removesuffix(f"_{class_name}")
    return film if before != stem and film else stem


def _read_splits(folder: Path, video_set: VideoSet = HMDB51) -> _SplitFiles:
    """Every split file below `folder`, checked against the set. Raises DataError for a missing file, a line
    that is not a name and a flag, a name twice in a class, splits that list different clips, and counts
    other than promised."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names):
        if match := _SPLIT_FILE.fullmatch(path.name):
            found.setdefault(match["name"], {})[int(match["split"])] = path
    if not found:
        raise DataError(f"{folder}: no split files there (their names are <class>_test_split<number>.txt)")
    numbers = list(range(1, video_set.splits + 1))
    for name, paths in found.items():
        if sorted(paths) != numbers:
            raise DataError(f"{folder}: class {name!r} has split files {sorted(paths)}, expected {numbers}")
    flags = {name: _flags_of_class([paths[n] for n in numbers]) for name, paths in found.items()}
    _check_counts(flags, video_set)
    return _SplitFiles(flags)


def _flags_of_class(paths: list[Path]) -> dict[str, tuple[int, ...]]:
    columns = [_parse(path) for path in paths]
    if any(column.keys() != columns[0].keys() for column in columns):
        raise DataError(f"{paths[0].parent}: the split files of {paths[0].name} and its siblings list different clips")
    return {file: tuple(column[file] for column in columns) for file in columns[0]}


def _parse(path: Path) -> dict[str, int]:
    flags: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        file, _, flag = line.strip().rpartition(" ")
        if not file or flag not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number}: expected a file name and 0, 1 or 2, got {line!r}")
        if file in flags or "/" in file or "\\" in file or file in (".", ".."):
            raise DataError(f"{path}, line {number}: {file!r} is listed twice or is not a plain file name")
        flags[file] = int(flag)
    return flags


def _check_counts(flags: Mapping[str, Mapping[str, tuple[int, ...]]], expected: VideoSet) -> None:
    clips = [clip for files in flags.values() for clip in files.values()]
    if len(flags) < 2:
        raise DataError(f"expected split files of two classes or more, found those of {some(flags)} only")
    _expect(expected, "classes", expected.classes, len(flags))
    _expect(expected, "clips", expected.clips, len(clips))
    for split in range(expected.splits):
        column = [clip[split] for clip in clips]
        _expect(expected, f"training clips in split {split + 1}", expected.train, column.count(TRAIN))
        _expect(expected, f"test clips in split {split + 1}", expected.test, column.count(TEST))
        for name, files in flags.items():
            kinds = {clip[split] for clip in files.values()}
            if not {TRAIN, TEST} <= kinds:
                raise DataError(f"split {split + 1} of class {name!r} lacks training or test clips")


def _expect(video_set: VideoSet, what: str, wanted: int | None, found: int) -> None:
    if wanted is not None and wanted != found:
        raise DataError(f"{video_set.name} has {wanted:,} {what}, but the split files list {found:,}")


def _split_folder(source: Path, splits: str | Path | None, out: Path, video_set: VideoSet) -> Path:
    """The folder with the split files, unpacked below `out` where they come as an archive."""
    if splits is not None and not Path(splits).exists():
        raise DataError(f"{splits}: there is no such folder or archive of split files")
    beside = source.parent if source.is_file() else source
    places = [Path(splits)] if splits is not None else [beside / (video_set.split_archive or ""), beside]
    place = next(p for p in places if p.exists())
    if place.is_dir():
        archive = place / (video_set.split_archive or "")
        place = archive if archive.is_file() else place
    if place.is_dir():
        return place
    if video_set.split_md5 is not None:
        with open(place, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != video_set.split_md5:
            raise DataError(f"{place}: MD5 {found}, but {video_set.name}'s split archive has {video_set.split_md5}")
    unpack(place, out / "splits", keep=lambda name: _SPLIT_FILE.fullmatch(Path(name).name) is not None)
    return out / "splits"


def _videos(source: Path, out: Path, files: _SplitFiles, video_set: VideoSet, log: Callable[[str], None]) -> Path:
    """The folder whose subfolders are the classes: `out`/videos for archives, `source`/videos or `source` itself."""
    inside = source / video_set.archive if video_set.archive else source
    archive = source if source.is_file() else inside
    if archive.is_file():
        return unpack_set(archive, out / "videos", log)
    archives = [source / f"{name}.rar" for name in files.class_names]
    if any(path.is_file() for path in archives):
        left = sorted({path.name for path in source.glob("*.rar")} - {path.name for path in archives})
        if left := [name for name in left if name != video_set.split_archive]:
            log(f"archives of no class that the split files list, left out: {some(left)}")
        return unpack_classes([path for path in archives if path.is_file()], out / "videos", log)
    for folder in (source / "videos", source):
        if any((folder / name).is_dir() for name in files.class_names):
            return folder
    raise DataError(
        f"{source}: no class folders there (such as {files.class_names[0]}), nor in its videos/, and no archive of them"
    )


def _compare(videos: Path, files: _SplitFiles) -> list[str]:
    """Files that no split lists. DataError when a listed one is missing, and for a class folder without split files."""
    folders = {entry.name for entry in os.scandir(videos) if entry.is_dir() and not entry.name.startswith(".")}
    if strays := [name for name in sorted(folders - set(files.class_names)) if _holds_videos(videos / name)]:
        raise DataError(
            f"{videos}: no split files of {counted(len(strays), 'class folder')}: {some(strays)}; add the "
            "<class>_test_split<number>.txt of each, or take the folder away"
        )
    missing, unlisted = [], []
    for name in files.class_names:
        folder = videos / name
        present = {entry.name for entry in os.scandir(folder) if entry.is_file()} if folder.is_dir() else set()
        missing += [f"{name}/{file}" for file in sorted(files.flags[name].keys() - present)]
        unlisted += [f"{name}/{file}" for file in sorted(present - files.flags[name].keys())]
    if missing:
        raise DataError(
            f"{videos}: not there: {counted(len(missing), 'clip')} of the split files, {some(missing, 3)}; "
            "delete the class folders that lack them and unpack those again"
        )
    return unlisted


def _holds_videos(folder: Path) -> bool:
    return any(name.lower().endswith(SUFFIXES) for name in os.listdir(folder))
