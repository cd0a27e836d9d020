"""A table of images: a CSV file with a column of paths, and a column for each set of labels.

    path,split,kind,colour
    photos/0001.jpg,train,cat,black
    photos/0002.jpg,test,dog,white

Paths are below the file's own folder, or absolute. The column `split` may say `train`, `val` or `test`; without it a
test part is split off. The paths are in a column of `PATH_COLUMNS`, or in the one whose values all end as images do.
Every other column is a label set: `data.labels=colour`. `class` is a column of `hf.CLASS_COLUMNS`, or the only one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...config import Data
from ...errors import ConfigError, DataError, counted, some
from .folder import SYNONYMS
from .hf import CLASS_COLUMNS, IMAGE_COLUMNS
from .named_labels import NamedLabels, finest_of, source_of
from .source import FileReader, Source

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image_path", *IMAGE_COLUMNS)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SPLIT = "split"
# A column with more values than this share of its rows numbers the images, and is no label.
_LABEL_SHARE = 0.5


def load(cfg: Data) -> Source:
    """Errors: ConfigError without a root; DataError with the line or column that is wrong, or the files that lack;
    UnknownNameError for a label set that is no column."""
    if cfg.root is None:
        raise ConfigError("data.name=csv needs data.root, the CSV file: --set data.root=FILE.csv")
    file = Path(cfg.root).expanduser()
    columns = _columns(file)
    path = _path_column(file, columns)
    paths = [file.parent / Path(cell).expanduser() for cell in columns[path]]
    _check_files(file, paths)
    count = len(paths)
    labels = {
        name: cells
        for name, cells in columns.items()
        if name not in (path, _SPLIT) and (name == cfg.labels or len(set(cells)) <= max(2, _LABEL_SHARE * count))
    }
    if not labels:
        raise DataError(f"{file} has no column of labels beside {path!r}: each row needs one or more")
    only = next(iter(labels)) if len(labels) == 1 else None
    named = next((name for name in CLASS_COLUMNS if name in labels), only)
    sets = dict(labels) if named is None else {"class": labels[named]} | labels
    for name, cells in labels.items():
        if empty := [i for i, cell in enumerate(cells) if not cell]:
            raise DataError(f"{file}, line {empty[0] + 2}: no value for {name!r}: fill it, or remove the row or column")
    finest = finest_of({name: cells for name, cells in labels.items() if len(set(cells)) <= _LABEL_SHARE * count})
    rows = _split_rows(file, columns.get(_SPLIT), count, cfg)

    def part(split: str) -> NamedLabels | None:
        numbers = rows[split]
        if not numbers:
            return None
        chosen = {name: [cells[i] for i in numbers] for name, cells in sets.items()}
        reader = FileReader([paths[i] for i in numbers])
        place = f"{file}, {split}" if _SPLIT in columns else str(file)
        return NamedLabels(reader, chosen, [finest[i] for i in numbers] if finest else [""] * len(numbers), place)

    parts = {split: part(split) for split in ("train", "val", "test")}
    if parts["train"] is None:
        raise DataError(f"{file}: no row has {cfg.train_split!r} in the column {_SPLIT!r}")
    return source_of(parts, cfg.labels, str(file), "Say which column with data.labels, and in an evaluation's labels.")


def _columns(file: Path) -> dict[str, list[str]]:
    """Column -> its cells. Errors: DataError."""
    if not file.is_file():
        raise DataError(f"no CSV file {file.absolute()}: set data.root to one with a column of paths and one of labels")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            header, *rows = [row for row in csv.reader(opened) if row]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{file} is not a CSV file with a header ({error})") from None
    names = [name.strip() for name in header]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"{file}: expected two columns or more, each with a name of its own, got {', '.join(names)}")
    if not rows:
        raise DataError(f"{file} has a header and no rows")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise DataError(f"{file}, line {number}: {len(row)} values for {counted(len(names), 'column')}")
    return {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}


def _path_column(file: Path, columns: Mapping[str, list[str]]) -> str:
    for name, cells in columns.items():
        if name.lower() in PATH_COLUMNS and all(cells):
            return name
    for name, cells in columns.items():
        if all(cell.lower().endswith(_SUFFIXES) for cell in cells):
            return name
    raise DataError(
        f"{file} has no column of image paths: expected one called {PATH_COLUMNS[0]!r}, or with names of image files; "
        f"its columns are {', '.join(columns)}"
    )


def _check_files(file: Path, paths: Sequence[Path]) -> None:
    lacking = [path for path in paths if not path.is_file()]
    if lacking:
        raise DataError(
            f"{file} names {counted(len(lacking), 'file')} of {len(paths)} that are not there, such as {lacking[0]}: "
            f"paths are below {file.parent.absolute()}, or absolute"
        )
    if len(set(paths)) < len(paths):
        seen: set[Path] = set()
        twice = next(path for path in paths if path in seen or seen.add(path))  # type: ignore[func-returns-value]
        raise DataError(f"{file} names {twice} twice: it could be trained on and tested on")


def _split_rows(file: Path, cells: list[str] | None, count: int, cfg: Data) -> dict[str, list[int]]:
    """Numbers of the rows of each split; without a column all are training rows."""
    if cells is None:
        return {"train": list(range(count)), "val": [], "test": []}
    test = cfg.test_split
    wanted = {"train": cfg.train_split, "val": "val" if test not in SYNONYMS[1] else "", "test": test}
    names = {split: {name, *next((n for n in SYNONYMS if name in n), ())} for split, name in wanted.items()}
    known = {name for group in (*SYNONYMS, *names.values()) for name in group}
    strange = sorted({cell for cell in cells if cell not in known})
    if strange:
        raise DataError(
            f"{file}: the column {_SPLIT!r} has {some([repr(one) for one in strange])}; expected train, val or test, "
            "or what data.train_split and data.test_split say"
        )
    return {split: [i for i, cell in enumerate(cells) if cell in group] for split, group in names.items()}
