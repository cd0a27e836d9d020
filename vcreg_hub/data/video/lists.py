"""Videos of one's own in list files, as an index made when it is needed.

A list is as VideoMAE's code reads it, a path, a space and a whole-number label a line. Or it is a table with a header,
as of Kinetics: comma-separated, with a column `label` (names, or whole numbers) and either `path`, with or without
`start` and `end` in seconds, or `youtube_id`, `time_start` and `time_end`. A path may name a folder of images, the
frames of a video.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...config import Data
from ...errors import DataError, counted, some
from .decode import is_frames
from .folder import PARTS, SUFFIXES, given_root, measured_once, own_clip
from .index import TEST, TRAIN, VALIDATION, VideoIndex

_logger = logging.getLogger("vcreg_hub")
_PATHS, _STARTS, _ENDS = ("path", "file", "video"), ("start", "time_start"), ("end", "time_end")
_KINETICS = "youtube_id"
_LINE = "a path, a space and a whole-number label, from 0 (the names of the classes go into classes.txt)"

_Part = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class _Row:
    """A line of a list. label: as it is written. start, end: in seconds."""

    path: Path
    label: str
    flag: int
    where: str
    start: float | None = None
    end: float | None = None

    @property
    def file(self) -> str:
        """What two lines share that show the same pictures."""
        return os.path.abspath(self.path)

    @property
    def clip(self) -> _Part:
        """What makes two lines the same clip."""
        return self.file, self.start, self.end


def list_files(cfg: Data) -> VideoIndex:
    """`data.root` holds train.csv, test.csv and perhaps val.csv: a path, a space and a whole-number label a line;
    a relative path starts from `data.root`. Names may hold spaces: the label is what follows the last one. Labels
    are 0 to n - 1 without gaps; `classes.txt`, a name a line, gives the n names. In a table labels may be names, which
    are numbered in their order in `classes.txt`, or else in that of the alphabet. Without test.csv, val.csv is the
    test part. Files in two lists are named in a warning.

    Errors: ConfigError without a root; DataError for a missing list or file, a list without a line, a line that
    cannot be read, a label out of range or without a training clip, fewer than two classes, and a clip that is
    twice in a list or has two labels.
    """
    root = given_root(cfg)
    lists = {flag: root / f"{names[0]}.csv" for flag, names in PARTS.items()}
    if not lists[TRAIN].is_file():
        raise DataError(f"{lists[TRAIN]}: there is no such list of videos")
    if not lists[TEST].is_file():
        lists = {TRAIN: lists[TRAIN], TEST: lists[VALIDATION]}
    rows = [row for flag, file in lists.items() for row in _read(file, root, flag)]
    if not any(row.flag == TRAIN for row in rows):
        raise DataError(f"{lists[TRAIN]} lists no video; expected on each line {_LINE}")
    if not any(row.flag == TEST for row in rows):
        raise DataError(f"{root}: neither test.csv nor val.csv lists a video")
    _refuse_doubles(rows)
    rows, known = _numbered(root, rows)
    names = _class_names(root, rows, known)
    _warn_of_overlap(rows)
    clips = [own_clip(root, row.path, int(row.label), row.flag, row.start, row.end) for row in rows]
    return measured_once("video_list", root, names, clips, cfg.workers)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from None


def _read(file: Path, root: Path, flag: int) -> list[_Row]:
    if not file.is_file():
        return []
    lines = _text(file).splitlines()
    header = [name.strip().lower() for name in next(csv.reader(lines[:1]), [])]
    if "label" in header and {_KINETICS, *_PATHS} & set(header):
        return _read_table(file, lines, header, root, flag)
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DataError(f"{where}: expected {_LINE}, got {line!r}")
        rows.append(_Row(_there(root / name, where), str(int(label)), flag, where))
    return rows


def _there(path: Path, where: str) -> Path:
    if not (path.is_file() or is_frames(path)):
        raise DataError(f"{where}: there is no file {path}, nor a folder of frames of that name")
    return path


def _read_table(file: Path, lines: list[str], header: list[str], root: Path, flag: int) -> list[_Row]:
    """The rows of a comma-separated list. header: the names of its columns."""
    rows = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        where = f"{file}, line {number}"
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} values for {counted(len(header), 'column')}")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not row["label"]:
            raise DataError(f"{where}: it has no label")
        start, end = (_second(row, names, where) for names in (_STARTS, _ENDS))
        if end is not None and (start or 0) >= end:
            raise DataError(f"{where}: the clip starts at second {start or 0:g} and ends at second {end:g}")
        if _KINETICS in row:
            path, trimmed = _of_kinetics(root, row, start, end, where)
            start, end = (None, None) if trimmed else (start, end)
        else:
            path = _there(root / next(row[name] for name in _PATHS if name in row), where)
        if start is not None and path.is_dir():
            raise DataError(f"{where}: {path} is a folder of frames, which have no times: leave start and end empty")
        rows.append(_Row(path, row["label"], flag, where, start, end))
    return rows


def _second(row: dict[str, str], names: tuple[str, ...], where: str) -> float | None:
    text = next((row[name] for name in names if row.get(name)), "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < math.inf:
        raise DataError(f"{where}: expected {names[0]} in seconds, 0 or more, or nothing, got {text!r}")
    return value


def _of_kinetics(
    root: Path, row: dict[str, str], start: float | None, end: float | None, where: str
) -> tuple[Path, bool]:
    """The file of a row, and whether it holds the clip alone: `<id>_<start>_<end>` with six digits each, as the usual
    downloaders cut and name it, or `<id>`, the video as it was uploaded."""
    label = row["label"]
    folders = dict.fromkeys(
        root / part for part in (label, label.replace(" ", "_"), row.get("split", ""), "videos", "")
    )
    names = [(row[_KINETICS], False)]
    if start is not None and end is not None:
        names.insert(0, (f"{row[_KINETICS]}_{int(start):06d}_{int(end):06d}", True))
    for (name, trimmed), folder, suffix in itertools.product(names, folders, (*SUFFIXES, "")):
        path = folder / (name + suffix)
        if path.is_file() if suffix else is_frames(path):
            return path, trimmed
    tried = " or ".join(name for name, _ in names)
    raise DataError(f"{where}: there is no video {tried} in {root}, nor in {label} or videos there")


def _numbered(root: Path, rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """The rows with whole numbers for labels, and the classes' names, where some are known."""
    file = root / "classes.txt"
    listed = [name for name in _text(file).splitlines() if name.strip()] if file.is_file() else []
    if all(row.label.isdecimal() for row in rows):
        return rows, listed
    names = listed or sorted({row.label for row in rows if row.flag == TRAIN})
    number = {name: str(place) for place, name in enumerate(names)}
    for row in rows:
        if row.label not in number:
            known = "classes.txt" if listed else "the training list"
            raise DataError(f"{row.where}: {row.path} has label {row.label!r}, which {known} lacks")
    return [replace(row, label=number[row.label]) for row in rows], names


def _refuse_doubles(rows: list[_Row]) -> None:
    first: dict[_Part, _Row] = {}
    for row in rows:
        other = first.setdefault(row.clip, row)
        if row.label != other.label:
            raise DataError(f"{row.where}: {row.path} has label {row.label}, but {other.label} in {other.where}")
    seen: dict[tuple[_Part, int], _Row] = {}
    for row in rows:
        if (other := seen.setdefault((row.clip, row.flag), row)) is not row:
            raise DataError(f"{row.where}: {row.path} is in {other.where} already; remove one of the two")


def _warn_of_overlap(rows: list[_Row]) -> None:
    if os.environ.get("RANK", "0") != "0":  # one process speaks for all
        return
    files = {flag: {row.file: row.path for row in rows if row.flag == flag} for flag in PARTS}
    for one, other, means in (
        (TEST, TRAIN, "the result is no measure of new clips"),
        (TEST, VALIDATION, "what is chosen by validation is chosen by test clips"),
        (VALIDATION, TRAIN, "validation tells little"),
    ):
        if both := [path.name for file, path in files[one].items() if file in files[other]]:
            what = counted(len(both), f"{PARTS[one][0]} clip")
            _logger.warning("video_list: %s also in the %s list: %s; %s", what, PARTS[other][0], some(both), means)


def _class_names(root: Path, rows: list[_Row], names: list[str]) -> tuple[str, ...]:
    """The names, or made-up ones where there are none. Errors: DataError for a gap in the labels."""
    learned = {int(row.label) for row in rows if row.flag == TRAIN}
    total = len(names) or 1 + max(learned)
    for row in rows:
        if int(row.label) >= total:
            there = "there is 1 class" if total == 1 else f"there are {total} classes"
            raise DataError(f"{row.where}: {row.path} has label {row.label}, but {there} (0 to {total - 1})")
    if len(learned) < total:
        missing = list(itertools.islice((label for label in range(total) if label not in learned), 5))
        shown = ", ".join(f"{label} ({names[label]})" if names else str(label) for label in missing)
        raise DataError(
            f"{root}: labels are 0 to {total - 1} without gaps, but no training clip has {shown}"
            + (" ..." if total - len(learned) > len(missing) else "")
        )
    return tuple(names) or tuple(f"class_{label}" for label in range(total))
