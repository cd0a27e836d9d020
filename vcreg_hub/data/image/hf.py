"""Any data set of the `datasets` library: `hf:<id>`, `hf:<id>:<configuration>`, or `hf:<local folder or parquet file>`.

The image is its first image column, whatever its name. The classes are its column `label` (or the only class-label
column); `labels` may name any other, such as `coarse_label`, and must where no column says that it is the class. For an
id, `root` is the cache folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...config import Data
from ...errors import DataError, first_line, unknown_name
from ..datasets import ImageSet, where_to_put
from .decode import READING, decode, decode_file
from .folder import SYNONYMS
from .source import Source, Split

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp")
CLASS_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls")


class _TableReader:
    """Images of one split of a data set, read as bytes and decoded here, so that a broken one can be named."""

    def __init__(self, table: Any, column: str, name: str, mode: str) -> None:
        self.table, self.column, self.name, self.mode = table, column, name, mode

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> Image.Image:
        cell = self.table[int(index)][self.column] or {}
        content = cell.get("bytes")
        if content is None and cell.get("path"):
            return decode_file(cell["path"], self.mode)
        return decode(content or b"", self.where(index), self.mode)

    def where(self, index: int) -> str:
        return f"row {index} of {self.name}"

    def fingerprint(self) -> str:
        return f"{self.table._fingerprint} {self.column} {self.mode} {READING}"


def load(cfg: Data, mode: str = "RGB", *, revision: str | None = None, finest: str | None = None) -> Source:
    """mode: PIL's, of the images handed out. revision: of an id, None for its newest. finest: the column of the
    classes, None for the one that looks like it.

    Errors: DataError when the data set or a split cannot be had, or lacks images or usable labels; UnknownNameError for
    a label column it does not have.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    address = cfg.name.removeprefix("hf:")
    tables = _open(address, cfg.root, revision)
    chosen = _choose(tables, cfg.train_split, cfg.test_split, address)
    features = chosen["train"].features
    image = _image_column(features, address)
    classes = finest or _class_column(features)
    labels = classes if cfg.labels == "class" and classes else cfg.labels
    if labels not in features or labels == image:
        known = _label_columns(chosen["train"], image) or [name for name in features if name != image]
        cure = f"Say which column with data.labels={known[0]}." if cfg.labels == "class" and known else ""
        raise unknown_name(f"label column of {address}", labels, known, cure)
    classes = classes or _finest_column(chosen["train"], image) or labels
    names = {column: _names(chosen["train"], column, address) for column in {classes, labels}}

    def split(name: str) -> Split | None:
        table = chosen[name]
        if table is None:
            return None
        what = f"{name} split of {address}"
        found = {column: _ids(table, column, names[column], what) for column in {classes, labels}}
        return Split(_TableReader(_undecoded(table, image), image, what, mode), found[classes], found[labels])

    train = split("train")
    assert train is not None
    return Source(train, split("val"), split("test"), names[labels],
                  IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, address,
                  None if Path(address).expanduser().exists() else address.partition(":")[0])  # fmt: skip


def load_row(cfg: Data, row: ImageSet, mean: tuple[float, ...], std: tuple[float, ...], mode: str = "RGB") -> Source:
    """The Hub's copy of a data set, at the commit that its row pins. mean / std: per channel, of pixels in [0, 1].

    Errors: DataError that also says what to fetch where the copy cannot be had.
    """
    columns = row.columns
    asked = replace(cfg, name=f"hf:{row.hub}", labels=columns.get(cfg.labels, cfg.labels))
    if row.hub is None:
        raise DataError(f"{row.name} is not at hand: data.root is not set. {where_to_put(row)}")
    try:
        found = load(asked, mode, revision=row.revision, finest=columns.get("class"))
    except DataError as error:
        raise DataError(
            f"{row.name} is not at hand: data.root is not set, and the Hub's copy cannot be read ({error}). "
            + where_to_put(row)
        ) from None
    return replace(found, mean=mean, std=std)


def _open(address: str, cache: str | None, revision: str | None = None) -> Mapping[str, Any]:
    """Split name -> table. Errors: DataError with the library's own first line."""
    import datasets

    local = Path(address).expanduser()
    try:
        if (local / "dataset_dict.json").exists() or (local / "state.json").exists():
            saved = datasets.load_from_disk(str(local))
            return saved if isinstance(saved, Mapping) else {"train": saved}
        if local.is_file():
            return datasets.load_dataset(local.suffix[1:], data_files=str(local), cache_dir=cache)
        if local.is_dir():
            return datasets.load_dataset(str(local), cache_dir=cache)
        identifier, _, configuration = address.partition(":")
        return datasets.load_dataset(identifier, configuration or None, cache_dir=cache, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = first_line(error)
        raise DataError(
            f"the data set {address!r} could not be loaded: {reason}. It is neither at {local.absolute()} nor "
            "to be had from the Hub or its cache; give `hf:` with an id that exists, or a local folder or parquet file"
        ) from None


def _choose(tables: Mapping[str, Any], train: str, test: str, address: str) -> dict[str, Any]:
    """Training, validation and test tables by name or usual synonym."""

    def find(name: str, must: bool) -> Any:
        usual = next((names for names in SYNONYMS if name in names), (name,))
        for candidate in (name, *usual):
            if candidate in tables:
                return tables[candidate]
        if must:
            raise DataError(f"{address} has no split {name!r}; it has {', '.join(tables)}")
        return None

    only = len(tables) == 1 and train == "train"
    return {
        "train": next(iter(tables.values())) if only else find(train, must=True),
        "val": find("val", must=False) if test not in SYNONYMS[1] else None,
        "test": None if only and test == "test" else find(test, must=test != "test"),
    }


def _image_column(features: Mapping[str, Any], address: str) -> str:
    import datasets

    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    named = [name for name in IMAGE_COLUMNS if name in features]
    if not typed and not named:
        raise DataError(f"{address} has no image column; its columns are {', '.join(features)}")
    return (typed or named)[0]


def _class_column(features: Mapping[str, Any]) -> str | None:
    """The column that says the class by its name, or by being the only one of class labels."""
    import datasets

    named = [name for name in CLASS_COLUMNS if name in features]
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    return next(iter(named or (typed if len(typed) == 1 else [])), None)


def _label_columns(table: Any, image: str) -> list[str]:
    """Columns that may be labels: of class labels, and of texts or whole numbers that most rows share with another."""
    import datasets

    found = []
    for name, feature in table.features.items():
        value = isinstance(feature, datasets.Value) and feature.dtype.startswith(("string", "int", "uint", "bool"))
        shared = value and name != image and len(table.unique(name)) <= max(2, len(table) / 2)
        if isinstance(feature, datasets.ClassLabel) or shared:
            found.append(name)
    return found


def _finest_column(table: Any, image: str) -> str | None:
    """The column of labels with the most values: what is held out must not depend on the labels asked for."""
    return max(_label_columns(table, image), key=lambda name: len(table.unique(name)), default=None)


def _names(table: Any, column: str, address: str) -> tuple[str, ...]:
    """Class names of a column: its own, or its sorted text values, or the whole numbers from 0 to its largest."""
    import datasets

    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names)
    values = set(table[column][:])
    if values and all(isinstance(value, str) for value in values):
        return tuple(sorted(values))
    if values and all(isinstance(value, int) and value >= 0 for value in values):
        return tuple(str(value) for value in range(max(values) + 1))
    raise DataError(f"column {column!r} of {address} holds neither ids nor names: {sorted(map(repr, values))[:5]}")


def _ids(table: Any, column: str, names: tuple[str, ...], what: str) -> np.ndarray:
    """(n,) int64 labels of a column. Errors: DataError for values that are not among the training classes."""
    values = table[column][:]
    if values and isinstance(values[0], str):
        number = {name: i for i, name in enumerate(names)}
        values = [number.get(value, value) for value in values]
    bad = {value for value in values if not isinstance(value, int) or not 0 <= value < len(names)}
    if bad:
        shown = ", ".join(sorted(map(repr, bad))[:5])
        raise DataError(
            f"{what} has labels that its {len(names)} training classes lack: {shown}"
            + ("; it is probably unlabelled: choose another one with data.test_split" if bad == {-1} else "")
        )
    return np.array(values, dtype=np.int64)


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
