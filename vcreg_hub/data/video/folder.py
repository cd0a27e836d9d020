"""Videos of one's own in class folders, as an index made when it is needed.

Every file is decoded once to count its frames. The result is kept in the cache under a name made of every
file's path, size and time stamp, so a second run starts at once and a changed folder is looked at again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ...config import Data
from ...errors import ConfigError, DataError, counted, some
from .decode import is_frames
from .index import TEST, TRAIN, VALIDATION, Clip, VideoIndex, measured, read_index, stamp, write_index

SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp", ".ts",
            ".mts", ".m2ts")  # fmt: skip
PARTS = {TRAIN: ("train", "training"), VALIDATION: ("val", "valid", "validation"), TEST: ("test", "testing")}
# Every how many-th file of a class is a test clip where the folder has no test part.
_TEST_EVERY = 5


def class_folders(cfg: Data) -> VideoIndex:
    """`data.root` holds train/, val/ and test/ with one folder a class each, or the class folders themselves.
    A video is a file, or a folder of images, its frames.

    Without test/, val/ is the test part; without either every fifth file of a class, in the order of names,
    is. A file is its own source video. Errors: ConfigError without a root; DataError for a class folder without
    videos, videos outside class folders, fewer than two classes, no test clip, and a class in one part that the
    training part lacks.
    """
    root = given_root(cfg)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    parts = {flag: next((root / n for n in names if (root / n).is_dir()), None) for flag, names in PARTS.items()}
    if parts[TRAIN] is None:
        if parts[TEST] or parts[VALIDATION]:
            raise DataError(f"{root} has a test or validation folder but no train/")
        rows = _every_fifth(root, _by_class(root))
    else:
        if parts[TEST] is None:
            parts = parts | {TEST: parts[VALIDATION], VALIDATION: None}
        found = {flag: _by_class(folder) if folder is not None else {} for flag, folder in parts.items()}
        if parts[TEST] is None:
            rows = _every_fifth(root, found[TRAIN])
        else:
            rows = [(path, flag) for flag, classes in found.items() for files in classes.values() for path in files]
    names = sorted({path.parent.name for path, flag in rows if flag == TRAIN})
    strange = sorted({path.parent.name for path, _ in rows} - set(names))
    if strange:
        raise DataError(f"{root}: no training videos of {some(strange)}, which other parts have")
    clips = [own_clip(root, path, names.index(path.parent.name), flag) for path, flag in rows]
    return measured_once("video_folder", root, tuple(names), clips, cfg.workers)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The videos of each class folder, in the order of names. DataError for anything that would be left out."""
    folders = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    classes = {entry.name: _videos_in(entry) for entry in folders}
    known = f"(known: {', '.join(SUFFIXES)})"
    if not any(classes.values()):
        deep = some([name for name in classes if _holds_deeper(folder / name)])
        deeper = f"; those of {deep} lie deeper: expected directly in one folder a class" if deep else ""
        raise DataError(f"{folder}: no class folders with videos there {known}{deeper}")
    if strays := [path for path in _videos_in(folder) if path.is_file()]:
        raise DataError(
            f"{folder}: {counted(len(strays), 'video')} outside the class folders, such as {strays[0].name}; "
            "expected one folder a class with its videos inside"
        )
    if empty := [name for name, files in classes.items() if not files]:
        deep = some([name for name in empty if _holds_deeper(folder / name)])
        cure = f"those of {deep} lie deeper: move them up" if deep else "fill or remove it"
        which = "the class folder" if len(empty) == 1 else f"{len(empty)} class folders:"
        raise DataError(f"{folder}: no videos in {which} {some(empty)} {known}; {cure}")
    return classes


def _videos_in(folder: Path) -> list[Path]:
    """Files, and folders of frames."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(p for p in found if (p.suffix.lower() in SUFFIXES and p.is_file()) or is_frames(p))


def _holds_deeper(folder: Path) -> bool:
    return any(file.lower().endswith(SUFFIXES) for _, _, files in os.walk(folder) for file in files)


def _every_fifth(root: Path, classes: dict[str, list[Path]]) -> list[tuple[Path, int]]:
    if max(len(files) for files in classes.values()) < _TEST_EVERY:
        raise DataError(
            f"{root}: there is no test clip: without a test folder every fifth file of a class is one, and no class "
            "has five; add videos, or put them into train/ and test/ with one folder a class each"
        )
    return [
        (path, TEST if i % _TEST_EVERY == _TEST_EVERY - 1 else TRAIN)
        for files in classes.values()
        for i, path in enumerate(files)
    ]


def given_root(cfg: Data) -> Path:
    """Errors: ConfigError."""
    if cfg.root is None:
        raise ConfigError(f"data.root is not set: {cfg.name} needs the folder of your videos")
    return Path(cfg.root)


def own_clip(
    root: Path, path: Path, label: int, flag: int, start: float | None = None, end: float | None = None
) -> Clip:
    """A file, or a part of it in seconds, as a clip in the only split; the file is its source video."""
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return Clip(inside.as_posix(), label, source=inside.as_posix(), flags=(flag,), start=start, end=end)


def measured_once(name: str, root: Path, names: tuple[str, ...], clips: list[Clip], workers: int) -> VideoIndex:
    """The index with frame counts, from the cache for files measured before.

    Errors: DataError for fewer than two classes.
    """
    if len(names) < 2:
        raise DataError(f"{root}: expected two classes or more, found {counted(len(names), 'class')}: {some(names)}")
    # The first word changes with what is measured of a file.
    listing = repr(["rotation"] + [(c.path, c.label, c.flags, c.start, c.end, *stamp(root / c.path)) for c in clips])
    key = hashlib.sha256(repr((str(root.resolve()), names, listing)).encode()).hexdigest()[:24]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = base / "vcreg_hub" / "videos" / key
    try:
        return read_index(cache)
    except DataError:
        index = VideoIndex(name, root.resolve(), names, measured(root, clips, workers), {})
        write_index(cache, index)
        return index
