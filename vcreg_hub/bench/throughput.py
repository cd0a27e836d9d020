"""Measures how fast each installed decoder delivers training clips: a random window, decoded and resized.

Within a round every decoder answers the same requests, in changing order, so a machine that slows down
slows all of them. A decoder counts only on files on which it is exact; the others are read with PyAV, as in
training.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.video.action_shapes import ActionShapes, draw_clip
from ..data.video.decode import UnreadableVideoError, measure, write_video
from ..data.video.decoders import DECODERS, Decoder
from ..data.video.folder import SUFFIXES
from ..data.video.sampling import training_indices
from ..data.video.transforms import resize
from ..env import describe_env
from ..errors import ConfigError, UsageError, unknown_name
from ..files import JSON
from ..results.tables import Table

Request = tuple[Path, list[int]]
# HMDB51's clips: 240 lines, mostly 320 columns, three seconds.
LIKE_HMDB51 = ActionShapes(height=240, width=320, min_frames=80, max_frames=110)


def throughput(
    folder: str | Path | None = None,
    *,
    decoders: Sequence[str] = tuple(DECODERS),
    workers: Sequence[int] = (0,),
    clips: int = 40,
    rounds: int = 5,
    frames: int = 16,
    stride: int = 2,
    size: int = 224,
    log: Callable[[str], None] = lambda line: None,
) -> JSON:
    """Clips per second of each decoder with each number of worker processes, as a JSON-ready dict.

    folder: videos to read; None makes AVI files like HMDB51's. A clip is `frames` frames, `stride` apart,
    at a random place, resized to `size` x `size`; one thread a process. Files that do not decode are passed
    over and named. Errors: UsageError for a folder without videos, UnknownNameError for a decoder.
    """
    for name in decoders:
        if name not in DECODERS:
            raise unknown_name("video decoder", name, DECODERS)
    with tempfile.TemporaryDirectory() as scratch:
        files = _videos(Path(folder)) if folder is not None else _made(Path(scratch))
        lengths, unreadable = _lengths(files)
        requests = _requests(lengths, clips, frames, stride)
        rows: list[JSON] = []
        working = {}
        for name in decoders:
            try:
                working[name] = Decoder(name)
            except ConfigError as error:
                rows.append({"decoder": name, "missing": str(error)})
        for count in workers:
            log(f"{count} workers, {len(requests)} clips, {rounds} rounds")
            seconds = _rounds(requests, working, count, rounds, size)
            rows += [_row(name, count, seconds, requests, working[name]) for name in working]
    return {
        "format": 1,
        "env": describe_env(),
        "libraries": _versions("av", "torchcodec", "decord2"),
        "files": len({path for path, _ in requests}),
        "unreadable": unreadable,
        "made": folder is None,
        "clips": clips,
        "rounds": rounds,
        "clip": {"frames": frames, "stride": stride, "size": size},
        "rows": rows,
    }


def render(result: JSON) -> str:
    """The result as a text table (GitHub Markdown); every number is `median ± interquartile range`."""
    clip = result["clip"]
    versions = ", ".join(f"{name} {version}" for name, version in result["libraries"].items())
    rows: list[tuple[object, ...]] = []
    for row in result["rows"]:
        if "missing" in row:
            rows.append((row["decoder"], None, "not here", None, None, None))
        else:
            speed = f"{row['clips_per_second']:.1f} ± {row['spread']:.1f}"
            files = f"{row['exact_files']} of {result['files']}"
            rows.append((row["decoder"], row["workers"], speed, row["of_pyav"], row["cpu_ms_per_clip"] or None, files))
    lines = [
        f"Clips per second on {result['env']['device']}, one thread a process, {versions}: {clip['frames']} frames, "
        f"{clip['stride']} apart, resized to {clip['size']}.",
        "",
        Table.of(["decoder", "workers", "clips/s", "of PyAV", "CPU ms a clip", "exact files"], rows).markdown(),
    ]
    lines += [f"\n{row['decoder']}: {row['missing']}" for row in result["rows"] if "missing" in row]
    if result["unreadable"]:
        lines.append(f"\n{len(result['unreadable'])} files do not decode, such as {result['unreadable'][0]}")
    return "\n".join(lines) + "\n"


class _Clips(Dataset):
    def __init__(self, requests: Sequence[Request], decode: Decoder, size: int) -> None:
        self.requests, self.decode, self.size = requests, decode, size

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> torch.Tensor:
        path, indices = self.requests[index]
        return resize(self.decode(path, indices).permute(0, 3, 1, 2), self.size, self.size)


def _rounds(
    requests: Sequence[Request], decoders: dict[str, Decoder], workers: int, rounds: int, size: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each round by decoder. A first round, not counted, starts workers and tests files for
    exactness."""
    loaders = {
        name: DataLoader(
            _Clips(requests, decode, size), batch_size=None, num_workers=workers, persistent_workers=workers > 0
        )
        for name, decode in decoders.items()
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    order = list(loaders)
    draws = random.Random(0)
    try:
        for turn in range(rounds + 1):
            draws.shuffle(order)
            for name in order:
                start, busy = time.perf_counter(), time.process_time()
                for _ in loaders[name]:
                    pass
                if turn:
                    seconds[name].append((time.perf_counter() - start, time.process_time() - busy))
    finally:
        torch.set_num_threads(threads)
    return seconds


def _row(
    name: str, workers: int, seconds: dict[str, list[tuple[float, float]]], requests: Sequence[Request], decode: Decoder
) -> JSON:
    speeds = [len(requests) / wall for wall, _ in seconds[name]]
    lower, _, upper = statistics.quantiles(speeds, n=4) if len(speeds) > 1 else (speeds[0],) * 3
    ratios = [pyav[0] / own[0] for own, pyav in zip(seconds[name], seconds.get("pyav", []), strict=False)]
    busy = statistics.median(busy for _, busy in seconds[name])
    files = {str(path) for path, _ in requests}
    if workers:  # the workers' own copies know; this process asks again
        for path in files:
            decode(path, [0])
    return {
        "decoder": name,
        "workers": workers,
        "clips_per_second": round(statistics.median(speeds), 2),
        "spread": round(upper - lower, 2),
        "cpu_ms_per_clip": None if workers else round(1000 * busy / len(requests), 3),
        "of_pyav": round(statistics.median(ratios), 3) if ratios else None,
        "exact_files": len(files - decode.refused),
    }


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def processes() -> int:
    """How many processes this one may keep busy."""
    return len(os.sched_getaffinity(0))


def _lengths(files: Sequence[Path]) -> tuple[dict[Path, int], list[str]]:
    """Frames of every file that decodes, and the names of the others."""
    lengths, unreadable = {}, []
    for path in files:
        try:
            lengths[path] = measure(path).frames
        except UnreadableVideoError:
            unreadable.append(path.name)
    if not lengths:
        raise UsageError(f"none of {len(files)} videos decodes, such as {files[0]}")
    return lengths, unreadable


def _requests(lengths: dict[Path, int], clips: int, frames: int, stride: int) -> list[Request]:
    draws = torch.Generator().manual_seed(0)
    files = list(lengths)
    chosen = [files[i % len(files)] for i in range(clips)]
    return [(path, training_indices(lengths[path], frames, stride, draws)) for path in chosen]


def _videos(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"{folder} holds no videos ({', '.join(SUFFIXES)})")
    return files


def _made(folder: Path) -> list[Path]:
    paths = [folder / f"{i}.avi" for i in range(4)]
    for i, path in enumerate(paths):
        write_video(path, draw_clip(LIKE_HMDB51, label=i, source=i, take=0))
    return paths
