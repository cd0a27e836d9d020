"""data: lists the data sets, describes one, and prepares those in need of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, UsageError, unknown_name
from ..regularizer.ranges import COUNT
from .app import Json, app
from .printing import print_json, print_table, tell

if TYPE_CHECKING:
    from ..data.video.index import VideoIndex
    from ..files import JSON


@app.command(name="data")
def data_(
    name: Annotated[str | None, typer.Argument(help="A data set; without one, the list.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="Prepare a video set from this archive, or folder of archives or class folders.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Prepare it here; this folder is then data.root.")] = None,
    splits: Annotated[
        Path | None, typer.Option(help="Its split files, a folder or archive, when they are not beside the source.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; one a core by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of action_shapes.")] = 0,
    sources: Annotated[int, typer.Option(min=4, help="Source videos a class of action_shapes, 4 clips each.")] = 20,
    root: Annotated[str | None, typer.Option(help="Look at the data set in this folder.")] = None,
    labels: Annotated[str, typer.Option(help="Label set or column to look at.")] = "class",
    check: Annotated[
        bool, typer.Option("--check", help="Decode all of it and list what is broken; 1 if any is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Lists the data sets; with a name, describes one or decodes all of it (--check); with --out, prepares a video set.

    HMDB51, from its two archives or from unpacked class folders and split files: every clip and count is checked.

        vcreg data hmdb51 --source downloads --out data/hmdb51

    hmdb51_like is any other set with such class folders and split files; action_shapes is made on the spot:

        vcreg data action_shapes --out data/shapes

    Interrupted, the same command goes on where it was. Your own folders of videos or images need no preparing.
    """
    from ..data.datasets import OWN_VIDEOS, POINT_SETS, VIDEO_SETS

    if check and (name is None or out is not None or source is not None or splits is not None):
        raise UsageError("--check is of one data set that is there; preparing one decodes every clip as it is")
    if name is None:
        _list(as_json)
    elif check:
        _check(name, root, labels, _cores() if workers is None else workers, as_json)
    elif out is not None or source is not None or splits is not None:
        if name not in VIDEO_SETS:
            raise UsageError(f"{name} needs no preparing; --source, --out and --splits are of {', '.join(VIDEO_SETS)}")
        if out is None:
            raise UsageError(f"--out is missing: the folder that the index of {name} goes to")
        _prepare(name, source, out, splits, _cores() if workers is None else workers, seed, sources, as_json)
    elif name in VIDEO_SETS or name in OWN_VIDEOS:
        _look_at_videos(name, root, as_json)
    elif name.partition(":")[0] in POINT_SETS:
        _look_at_points(name, as_json)
    else:
        _look_at_images(name, root, labels, as_json)


def _list(as_json: bool) -> None:
    from ..data.datasets import IMAGE_SETS, OWN_VIDEOS, POINT_SETS, VIDEO_SETS

    needs = {name: "" if row.made else "; prepared with --source and --out" for name, row in VIDEO_SETS.items()}
    videos = {name: f"{row.about}{needs[name]}" for name, row in VIDEO_SETS.items()} | OWN_VIDEOS
    images = {name: row.about for name, row in IMAGE_SETS.items()}
    rows = [
        {"kind": kind, "name": known, "what": about}
        for kind, sets in (("images", images), ("videos", videos), ("points", POINT_SETS))
        for known, about in sets.items()
    ]
    print_json(rows) if as_json else print_table(rows)


def _prepare(name: str, source: Path | None, out: Path, splits: Path | None, workers: int, seed: int, n: int,
             as_json: bool) -> None:  # fmt: skip
    from ..data.datasets import VIDEO_SETS
    from ..data.video import action_shapes
    from ..data.video.hmdb51 import prepare

    if VIDEO_SETS[name].made:
        if source is not None or splits is not None:
            raise UsageError(f"{name} is made, not read: it takes no --source and no --splits")
    elif source is None and VIDEO_SETS[name].hub is None:
        raise UsageError(f"--source is missing: the archives of {name}, or the folder of its class folders")
    try:
        if source is None and VIDEO_SETS[name].hub is not None:
            from ..data.video.hub_copy import lay_out

            tell(f"fetching {VIDEO_SETS[name].hub} from the Hub")
            source = lay_out(VIDEO_SETS[name], out / "hub")
        elif source is None:
            tell(f"making the clips in {out}")
            compound = name == action_shapes.COMPOUND
            source = action_shapes.make(out, action_shapes.ActionShapes(sources=n, seed=seed, compound=compound))
        with _progress("clip", "counted") as tick:
            index = prepare(
                source, out, splits=splits, video_set=VIDEO_SETS[name], workers=workers, log=tell, tick=tick
            )
    except OSError as error:
        raise DataError(f"{error.filename or out}: {error.strerror or error}") from error
    settings = [f"data.name={name}", f"data.root={out}"]
    if as_json:
        print_json({"folder": str(out), "settings": settings, **_facts(index)})
        return
    print(index.summary())
    print(f"prepared: {shlex.join(word for setting in settings for word in ('--set', setting))}")


def _check(name: str, root: str | None, labels: str, workers: int, as_json: bool) -> None:
    """Errors: DataError where anything is broken, after the list."""
    from ..config import Data, Video
    from ..data import load_data
    from ..data.check import broken
    from ..data.datasets import OWN_VIDEOS, VIDEO_SETS

    video = Video(max_failed=COUNT) if name.partition(":")[0] in (*VIDEO_SETS, *OWN_VIDEOS) else None
    data = load_data(Data(name, root=root, labels=labels, workers=workers), video)
    with _progress(data.noun.removesuffix("s"), "decoded") as tick:
        found = broken(data, workers, tick)
    count = sum(map(len, found.values()))
    if as_json:
        print_json({"name": name, "broken": found})
    else:
        for split, reasons in found.items():
            print("\n".join([f"{split}:", *(f"  {reason}" for reason in reasons)]))
    if count:
        raise DataError(f"{count} {data.noun} of {name} cannot be read")
    tell(f"all {data.noun} of {name} can be read")


def _look_at_videos(name: str, root: str | None, as_json: bool) -> None:
    from ..config import Data, Video
    from ..data.datasets import VIDEO_SETS
    from ..data.video.datasets import load_videos

    if root is None and not (name in VIDEO_SETS and VIDEO_SETS[name].made):
        how = "" if name.startswith("video_") else ", or --source and --out to prepare one"
        raise UsageError(f"--root is missing: the folder of {name}{how}")
    videos = load_videos(Data(name, root=root, workers=_cores()), Video(max_failed=COUNT))
    print_json(_facts(videos.index)) if as_json else _describe(videos.index)


def _facts(index: VideoIndex) -> JSON:
    clips = {"clips": len(index.clips), "undecodable": sum(not clip.frames for clip in index.clips)}
    return {"name": index.name, **clips, "classes": list(index.class_names)}


def _describe(index: VideoIndex) -> None:
    print(index.summary())
    print(_classes(index.class_names))


def _look_at_points(name: str, as_json: bool) -> None:
    from ..config import Data
    from ..data import load_data

    data = load_data(Data(name))
    if as_json:
        counts = {split: data.size(split) for split in ("train", "val", "test")}
        print_json({"name": name, **counts, "classes": list(data.class_names)})
        return
    sizes = (f"{data.size(split)} {split}" for split in ("train", "val", "test"))
    print(f"{name}: {', '.join(sizes)}, drawn by each seed\n{_classes(tuple(data.class_names))}")


def _look_at_images(name: str, root: str | None, labels: str, as_json: bool) -> None:
    from ..config import Data
    from ..data.datasets import IMAGE_SETS, OWN_VIDEOS, POINT_SETS, VIDEO_SETS

    if name.partition(":")[0] not in IMAGE_SETS:
        raise unknown_name("data set", name, [*IMAGE_SETS, *VIDEO_SETS, *OWN_VIDEOS, *POINT_SETS])
    from ..data.image.module import load_images

    images = load_images(Data(name, root=root, labels=labels))
    if as_json:
        sizes = {split: len(getattr(images, split)) for split in ("train", "val", "test")}
        print_json({"name": name, "labels": labels, **sizes, "classes": list(images.class_names)})
        return
    print(f"{images}\n{_classes(images.class_names)}")


def _classes(names: tuple[str, ...]) -> str:
    return f"classes: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _progress(unit: str, done_to: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere, where a log is kept, a line every tenth of the way."""
    from tqdm import tqdm

    bar = tqdm(unit=unit, disable=not sys.stderr.isatty(), leave=False)
    tenths = 0

    def tick(done: int, total: int) -> None:
        nonlocal tenths
        if not bar.disable:
            bar.total = total
            bar.update(done - bar.n)
        elif total and 10 * done // total > tenths:
            tenths = 10 * done // total
            tell(f"{done} of {total} {unit}s {done_to}")

    with bar:
        yield tick
