"""The index of a video data set: one row a clip, with what decoding it from end to end showed.

It is written once, by `vcreg data`, and read by every run, so that clips that do not decode are known
before training starts and no run has to trust a header's frame count. `index.parquet` holds the rows,
`dataset.json` the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, counted, not_decoding
from ...files import replacing, write_json

UNUSED, TRAIN, TEST, VALIDATION = 0, 1, 2, 3
INDEX, ABOUT = "index.parquet", "dataset.json"


@dataclass(frozen=True)
class Clip:
    """One file.

    path: relative to the index's `root`, with forward slashes. source: the film it was cut from; validation
    clips are carved by it. frames: that decode, 0 when `error` says why none does. flags: TRAIN, TEST or
    UNUSED in each split.
    """

    path: str
    label: int
    source: str
    flags: tuple[int, ...]
    frames: int = 0
    height: int = 0
    width: int = 0
    error: str = ""


@dataclass(frozen=True)
class VideoIndex:
    """A data set of clips. root: the folder that clip paths start from. notes: remarks on how it was made,
    as JSON."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    notes: dict[str, Any]

    @property
    def splits(self) -> int:
        return len(self.clips[0].flags) if self.clips else 0

    def flagged(self, split: int, flag: int) -> list[Clip]:
        """The clips of split 1, 2, ... with a flag, undecodable ones included. DataError for a split it
        lacks."""
        if not 1 <= split <= self.splits:
            raise DataError(f"{self.name} has splits 1 to {self.splits}, asked for {split}")
        return [clip for clip in self.clips if clip.flags[split - 1] == flag]

    def undecodable(self) -> list[Clip]:
        return [clip for clip in self.clips if clip.error]

    def summary(self) -> str:
        """A few lines for a person."""
        clips, classes = counted(len(self.clips), "clip"), counted(len(self.class_names), "class", "classes")
        lines = [f"{self.name}: {clips} in {classes} at {self.root}"]
        for split in range(1, self.splits + 1):
            counts = [len(self.flagged(split, flag)) for flag in (TRAIN, VALIDATION, TEST, UNUSED)]
            lines.append("split {}: {} train, {} validation, {} test, {} unused".format(split, *counts))
        if single := [clip for clip in self.clips if clip.frames == 1]:
            lines.append(f"with a single frame: {counted(len(single), 'clip')}, such as {single[0].path}")
        broken = self.undecodable()
        lines.append(not_decoding(len(broken)) + (":" if broken else ""))
        lines += [f"  {clip.error}" for clip in broken]
        return "\n".join(lines)


def write_index(folder: str | Path, index: VideoIndex) -> None:
    """Write `index.parquet` and, last, `dataset.json` into `folder`. A root inside the folder is kept
    relative to it, so that the folder can be moved."""
    from datasets import Dataset as Table
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    folder = Path(folder)
    columns: dict[str, list[Any]] = {
        "path": [clip.path for clip in index.clips],
        "class": [index.class_names[clip.label] for clip in index.clips],
        "label": [clip.label for clip in index.clips],
        "source": [clip.source for clip in index.clips],
        "frames": [clip.frames for clip in index.clips],
        "height": [clip.height for clip in index.clips],
        "width": [clip.width for clip in index.clips],
        "error": [clip.error for clip in index.clips],
    }
    for split in range(index.splits):
        columns[f"split{split + 1}"] = [clip.flags[split] for clip in index.clips]
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with replacing(folder / INDEX) as temporary, open(temporary, "wb") as file:
            Table.from_dict(columns).to_parquet(file)
    finally:
        if shown:
            enable_progress_bars()
    root, here = index.root.resolve(), folder.resolve()
    about = {
        "format": 1,
        "name": index.name,
        "root": root.relative_to(here).as_posix() if root.is_relative_to(here) else str(root),
        "classes": list(index.class_names),
        "splits": index.splits,
        "clips": len(index.clips),
        "undecodable": [clip.path for clip in index.undecodable()],
        "notes": index.notes,
    }
    write_json(folder / ABOUT, about)


def read_index(folder: str | Path) -> VideoIndex:
    """The index that `write_index` left in `folder`. DataError when there is none or it is damaged."""
    # pyarrow, not load_dataset: that one takes the brackets in a path for a pattern, and copies into a cache.
    import pyarrow
    from pyarrow import parquet

    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        rows = parquet.read_table(folder / INDEX).to_pylist()
        splits = range(1, about["splits"] + 1)
        clips = tuple(
            Clip(
                path=row["path"],
                label=row["label"],
                source=row["source"],
                flags=tuple(row[f"split{split}"] for split in splits),
                frames=row["frames"],
                height=row["height"],
                width=row["width"],
                error=row["error"],
            )
            for row in rows
        )
        if len(clips) != about["clips"]:
            raise DataError(f"{folder}: {INDEX} has {len(clips)} rows, {ABOUT} says {about['clips']}; make it again")
        return VideoIndex(about["name"], folder / about["root"], tuple(about["classes"]), clips, about["notes"])
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no video index ({Path(error.filename).name} is missing): make one with "
            "`vcreg data <name> --source <videos> --out <folder>`"
        ) from None
    except (KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{folder}: the video index is damaged ({type(error).__name__}: {error})") from error
