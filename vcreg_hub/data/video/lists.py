"""Videos of one's own in list files, as VideoMAE's code reads them, as an index made when it is needed."""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ...config import Data
from ...errors import DataError, counted, some
from .folder import PARTS, given_root, measured_once, own_clip
from .index import TEST, TRAIN, VALIDATION, VideoIndex

_logger = logging.getLogger("vcreg_hub")
_LINE = "a path, a space and a whole-number label, from 0 (the names of the classes go into classes.txt)"


@dataclass(frozen=True)
class _Row:
    """A line of a list."""

    path: Path
    label: int
    flag: int
    where: str

    @property
    def file(self) -> str:
        """What makes two lines the same clip."""
        return os.path.abspath(self.path)


def list_files(cfg: Data) -> VideoIndex:
    """`data.root` holds train.csv, test.csv and perhaps val.csv: a path, a space and a whole-number label a line;
    a relative path starts from `data.root`. Names may hold spaces: the label is what follows the last one. Labels
    are 0 to n - 1 without gaps; `classes.txt`, a name a line, gives the n names. Without test.csv, val.csv is the
    test part. Clips in two lists are named in a warning.

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
    names = _class_names(root, rows)
    _warn_of_overlap(rows)
    clips = [own_clip(root, row.path, row.label, row.flag) for row in rows]
    return measured_once("video_list", root, names, clips, cfg.workers)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from None


def _read(file: Path, root: Path, flag: int) -> list[_Row]:
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DataError(f"{where}: expected {_LINE}, got {line!r}")
        path = root / name
        if not path.is_file():
            raise DataError(f"{where}: there is no file {path}")
        rows.append(_Row(path, int(label), flag, where))
    return rows


def _refuse_doubles(rows: list[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.file, row)
        if row.label != other.label:
            raise DataError(f"{row.where}: {row.path} has label {row.label}, but {other.label} in {other.where}")
    seen: dict[tuple[str, int], _Row] = {}
    for row in rows:
        if (other := seen.setdefault((row.file, row.flag), row)) is not row:
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


def _class_names(root: Path, rows: list[_Row]) -> tuple[str, ...]:
    file = root / "classes.txt"
    names = [name for name in _text(file).splitlines() if name.strip()] if file.is_file() else []
    learned = {row.label for row in rows if row.flag == TRAIN}
    total = len(names) or 1 + max(learned)
    for row in rows:
        if row.label >= total:
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
