"""The index of a video data set: one row a clip, with the facts of a full decode.

It is written once, by `vcreg data`, and read by every run, so that clips that do not decode are known
before training starts and no run has to trust a header's frame count. `index.parquet` holds the rows,
`dataset.json` the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ...errors import DataError, counted, not_decoding
from ...files import JSON, replacing, write_json
from ..batches import worker_processes
from .decode import UnreadableVideoError, measure

UNUSED, TRAIN, TEST, VALIDATION = 0, 1, 2, 3
INDEX, ABOUT = "index.parquet", "dataset.json"
# Columns that the first indexes lack.
_LATER = ("promised", "start", "end", "first")


@dataclass(frozen=True)
class Clip:
    """One file.

    path: relative to the index's `root`, with forward slashes. source: the film it was cut from; validation
    clips are carved by it. frames: that decode, 0 when `error` says why none does. promised: frames by the file's
    header, 0 where it does not say. flags: TRAIN, TEST or UNUSED in each split. start, end: in seconds, of the part of
    the file that is the clip; first: the number of its first frame in the file.
    """

    path: str
    label: int
    source: str
    flags: tuple[int, ...]
    frames: int = 0
    height: int = 0
    width: int = 0
    error: str = ""
    promised: int = 0
    start: float | None = None
    end: float | None = None
    first: int = 0


@dataclass(frozen=True)
class VideoIndex:
    """A data set of clips. root: the folder of the clip paths. notes: remarks on how it was made,
    as JSON."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    notes: JSON

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

    def cut_short(self) -> list[Clip]:
        """The clips with fewer frames than their headers say."""
        return [clip for clip in self.clips if 0 < clip.frames < clip.promised]

    def summary(self) -> str:
        """A few lines for a person."""
        clips, classes = counted(len(self.clips), "clip"), counted(len(self.class_names), "class", "classes")
        lines = [f"{self.name}: {clips} in {classes} at {self.root}"]
        for split in range(1, self.splits + 1):
            counts = [len(self.flagged(split, flag)) for flag in (TRAIN, VALIDATION, TEST, UNUSED)]
            lines.append("split {}: {} train, {} validation, {} test, {} unused".format(split, *counts))
        if single := [clip for clip in self.clips if clip.frames == 1]:
            lines.append(f"with a single frame: {counted(len(single), 'clip')}, such as {single[0].path}")
        if short := self.cut_short():
            most = max(short, key=lambda clip: (clip.promised - clip.frames) / clip.promised)
            lines.append(
                f"with fewer frames than the header says: {counted(len(short), 'clip')}, the shortest by its header "
                f"{most.path} ({most.frames} of {most.promised})"
            )
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
        "promised": [clip.promised for clip in index.clips],
        "start": [clip.start for clip in index.clips],
        "end": [clip.end for clip in index.clips],
        "first": [clip.first for clip in index.clips],
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
    """The index written by `write_index` into `folder`. DataError for none or a damaged one."""
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
                **{name: row[name] for name in _LATER if name in row},
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


# ---- every clip decoded once, from end to end; what is learnt is written down clip by clip, so that an interrupted
# count goes on where it was ----

Tick = Callable[[int, int], None]


def measured(
    root: Path,
    clips: Sequence[Clip],
    workers: int = 0,
    journal: Path | None = None,
    tick: Tick = lambda done, total: None,
) -> tuple[Clip, ...]:
    """The clips with frame counts and sizes filled in, or the reason why none decodes.

    workers: processes that decode, one a processor at most; 0 decodes here. journal: where what is learnt is noted;
    clips it knows are not decoded again unless their size or time stamp changed, or PyAV did. tick: told (done, of how
    many).
    """
    keys = [_key(root, clip) for clip in clips]
    known = _read(journal, _header(root)) if journal is not None else {}
    todo = [i for i, key in enumerate(keys) if key not in known]
    found = {i: _filled(clips[i], known[key]) for i, key in enumerate(keys) if key in known}
    loader = DataLoader(
        _Measure(root, [clips[i] for i in todo]),
        batch_size=None,
        num_workers=worker_processes(workers),
        collate_fn=_as_is,
    )
    tick(len(found), len(clips))
    notes = open(journal, "a", encoding="utf-8", buffering=1) if journal is not None else None
    try:
        for i, clip in zip(todo, loader, strict=True):
            found[i] = clip
            if notes is not None:
                learnt = clip.frames, clip.height, clip.width, clip.promised, clip.first, clip.error
                notes.write(json.dumps([*keys[i], *learnt]) + "\n")
            tick(len(found), len(clips))
    finally:
        if notes is not None:
            notes.close()
    return tuple(found[i] for i in range(len(clips)))


class _Measure(Dataset):
    def __init__(self, root: Path, clips: Sequence[Clip]) -> None:
        self.root, self.clips = root, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        try:
            found = measure(self.root / clip.path, clip.start, clip.end)
        except UnreadableVideoError as error:
            return _filled(clip, (0, 0, 0, 0, 0, str(error)))
        return _filled(clip, (*found, ""))


_Values = tuple[int, int, int, int, int, str]
_Key = tuple[str, float | None, float | None, int, int]


def _filled(clip: Clip, values: _Values) -> Clip:
    frames, height, width, promised, first, error = values
    return replace(clip, frames=frames, height=height, width=width, promised=promised, first=first, error=error)


def _key(root: Path, clip: Clip) -> _Key:
    try:
        size, changed = stamp(root / clip.path)
    except OSError:
        size, changed = -1, -1  # never written down: see _read
    return clip.path, clip.start, clip.end, size, changed


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change in nanoseconds of a file, of a folder of frames those of its files together."""
    found = [entry.stat() for entry in os.scandir(path)] if path.is_dir() else [path.stat()]
    return sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)


def _header(root: Path) -> str:
    return json.dumps({"format": 2, "av": metadata.version("av"), "root": str(root.resolve())})


def _read(journal: Path, header: str) -> dict[_Key, _Values]:
    """What a journal under this header says; another's is started over. A last line cut short is dropped."""
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True) if journal.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    if not whole or whole[0].rstrip("\n") != header:
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(header + "\n", encoding="utf-8")
        return {}
    if len(whole) < len(lines):
        journal.write_text("".join(whole), encoding="utf-8")
    rows: list[Any] = [json.loads(line) for line in whole[1:]]
    return {tuple(row[:5]): tuple(row[5:]) for row in rows if row[3] >= 0}  # type: ignore[misc]


def _as_is(item: Any) -> Any:
    return item
