"""Every clip decoded once, from end to end: how many frames it has, how large they are, whether it decodes at all.

A large set takes minutes, so what is learnt is written down clip by clip, and a count that was interrupted goes on
where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ..image.loader import worker_processes
from .decode import UnreadableVideoError, measure
from .index import Clip

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
                notes.write(json.dumps([*keys[i], clip.frames, clip.height, clip.width, clip.error]) + "\n")
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
            frames, height, width = measure(self.root / clip.path)
        except UnreadableVideoError as error:
            return _filled(clip, (0, 0, 0, str(error)))
        return _filled(clip, (frames, height, width, ""))


def _filled(clip: Clip, values: tuple[int, int, int, str]) -> Clip:
    frames, height, width, error = values
    return replace(clip, frames=frames, height=height, width=width, error=error)


def _key(root: Path, clip: Clip) -> tuple[str, int, int]:
    try:
        status = os.stat(root / clip.path)
    except OSError:
        return (clip.path, -1, -1)  # never written down: see _read
    return (clip.path, status.st_size, status.st_mtime_ns)


def _header(root: Path) -> str:
    return json.dumps({"av": metadata.version("av"), "root": str(root.resolve())})


def _read(journal: Path, header: str) -> dict[tuple[str, int, int], tuple[int, int, int, str]]:
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
    return {(path, size, time): (*numbers, error) for path, size, time, *numbers, error in rows if size >= 0}


def _as_is(item: Any) -> Any:
    return item
