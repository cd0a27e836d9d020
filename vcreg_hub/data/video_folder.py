"""Videos of one's own: a folder of class folders, or list files, as an index made when it is needed.

Every file is decoded once to count its frames. The result is kept in the cache under a name made of every
file's path, size and time stamp, so a second run starts at once and a changed folder is looked at again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..config import Data
from ..errors import ConfigError, DataError
from .measurement import measured
from .video_index import TEST, TRAIN, VALIDATION, Clip, VideoIndex, read_index, write_index

SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp")
_PARTS = {TRAIN: ("train", "training"), VALIDATION: ("val", "valid", "validation"), TEST: ("test", "testing")}
# Every how many-th file of a class is a test clip where the folder has no test part.
_TEST_EVERY = 5


def class_folders(cfg: Data) -> VideoIndex:
    """`data.root` holds train/, val/ and test/ with one folder a class each, or the class folders themselves.

    Without test/, val/ is the test part; without either every fifth file of a class, in the order of names,
    is. A file is its own source video. Errors: ConfigError without a root, DataError for a folder without
    videos, and for a class in one part that the training part lacks.
    """
    root = _root(cfg)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    parts = {flag: next((root / n for n in names if (root / n).is_dir()), None) for flag, names in _PARTS.items()}
    if parts[TRAIN] is None:
        if parts[TEST] or parts[VALIDATION]:
            raise DataError(f"{root} has a test or validation folder but no train/")
        rows = [(path, flag) for path, flag in _every_fifth(_by_class(root))]
    else:
        if parts[TEST] is None:
            parts = parts | {TEST: parts[VALIDATION], VALIDATION: None}
        found = {flag: _by_class(folder) if folder is not None else {} for flag, folder in parts.items()}
        if parts[TEST] is None:
            rows = _every_fifth(found[TRAIN])
        else:
            rows = [(path, flag) for flag, classes in found.items() for files in classes.values() for path in files]
    names = sorted({path.parent.name for path, flag in rows if flag == TRAIN})
    strange = sorted({path.parent.name for path, _ in rows} - set(names))
    if strange:
        raise DataError(f"{root}: no training videos of {', '.join(strange[:5])}, which other parts have")
    clips = [_clip(root, path, names.index(path.parent.name), flag) for path, flag in rows]
    return _measured_once("video_folder", root, tuple(names), clips, cfg.workers)


def list_files(cfg: Data) -> VideoIndex:
    """`data.root` holds train.csv, test.csv and perhaps val.csv, as VideoMAE's code reads them: a path, a
    space and an integer label a line; a relative path starts from `data.root`. Names may hold spaces: the
    label is what follows the last one. `classes.txt`, a name a line, gives names. Without test.csv, val.csv
    is the test part.

    Errors: ConfigError without a root; DataError for a missing list or file, a line that cannot be read, a
    label out of range.
    """
    root = _root(cfg)
    lists = {flag: root / f"{names[0]}.csv" for flag, names in _PARTS.items()}
    if not lists[TRAIN].is_file():
        raise DataError(f"{lists[TRAIN]}: there is no such list of videos")
    if not lists[TEST].is_file():
        lists = {TRAIN: lists[TRAIN], TEST: lists[VALIDATION]}
    rows = [(path, label, flag) for flag, file in lists.items() for path, label in _read_list(file, root)]
    if not any(flag == TEST for *_, flag in rows):
        raise DataError(f"{root}: neither test.csv nor val.csv lists a video")
    learned = 1 + max(label for _, label, flag in rows if flag == TRAIN)
    names_file = root / "classes.txt"
    names = names_file.read_text(encoding="utf-8").splitlines() if names_file.is_file() else []
    names = [name for name in names if name.strip()] or [f"class_{label}" for label in range(learned)]
    for path, label, _ in rows:
        if not 0 <= label < len(names):
            raise DataError(f"{path} has label {label}, but there are {len(names)} classes (0 to {len(names) - 1})")
    clips = [_clip(root, path, label, flag) for path, label, flag in rows]
    return _measured_once("video_list", root, tuple(names), clips, cfg.workers)


def _read_list(file: Path, root: Path) -> list[tuple[Path, int]]:
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DataError(f"{file}, line {number}: expected a path, a space and a label, got {line!r}")
        path = root / name
        if not path.is_file():
            raise DataError(f"{file}, line {number}: there is no file {path}")
        rows.append((path, int(label)))
    return rows


def _root(cfg: Data) -> Path:
    if cfg.root is None:
        raise ConfigError(f"data.root is not set: {cfg.name} needs the folder of your videos")
    return Path(cfg.root)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    classes = {
        entry.name: sorted(path for path in entry.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }
    classes = {name: files for name, files in classes.items() if files}
    if not classes:
        raise DataError(f"{folder}: no class folders with videos there (known: {', '.join(SUFFIXES)})")
    return classes


def _every_fifth(classes: dict[str, list[Path]]) -> list[tuple[Path, int]]:
    return [
        (path, TEST if i % _TEST_EVERY == _TEST_EVERY - 1 else TRAIN)
        for files in classes.values()
        for i, path in enumerate(files)
    ]


def _clip(root: Path, path: Path, label: int, flag: int) -> Clip:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return Clip(inside.as_posix(), label, source=inside.as_posix(), flags=(flag,))


def _measured_once(name: str, root: Path, names: tuple[str, ...], clips: list[Clip], workers: int) -> VideoIndex:
    """The index with frame counts, from the cache where these very files have been measured before."""
    stats = [(root / clip.path).stat() for clip in clips]
    listing = repr([(c.path, c.label, c.flags, s.st_size, s.st_mtime_ns) for c, s in zip(clips, stats, strict=True)])
    key = hashlib.sha256(repr((str(root.resolve()), names, listing)).encode()).hexdigest()[:24]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = base / "vcreg_hub" / "videos" / key
    try:
        return read_index(cache)
    except DataError:
        index = VideoIndex(name, root.resolve(), names, measured(root, clips, workers), {})
        write_index(cache, index)
        return index
