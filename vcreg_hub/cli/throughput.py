"""bench throughput: how fast clips come off the disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import Json
from .inspecting import bench
from .printing import print_json


@bench.command()
def throughput(
    folder: Annotated[Path | None, typer.Option(help="Videos to read; AVIs like HMDB51's are made without.")] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(help="pyav, torchcodec or decord (decord2); repeatable. All by default.")
    ] = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=0, help="Worker processes; repeatable. 0, then one a core, by default.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips a round.")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after one that does not count.")] = 5,
    frames: Annotated[int, typer.Option(min=1, help="Frames a clip.")] = 16,
    stride: Annotated[int, typer.Option(min=1, help="Frames of the file from one to the next.")] = 2,
    size: Annotated[int, typer.Option(min=1, help="Pixels a side after the resize.")] = 224,
    out: Annotated[Path | None, typer.Option(help="Write the JSON here, which names the machine.")] = None,
    as_json: Json = False,
) -> None:
    """Clips a second: decode a random window and resize it, with each decoder that is installed.

    The decoders take turns within every round, so a slower machine slows all of them. A decoder whose frames differ
    from those of decoding the file from its start is refused for that file; PyAV reads it then.
    """
    from ..bench.throughput import processes, render
    from ..bench.throughput import throughput as measure
    from ..data.video.decoders import DECODERS
    from ..files import write_json

    result = measure(
        folder,
        decoders=decoder or tuple(DECODERS),
        workers=workers or (0, processes()),
        clips=clips,
        rounds=rounds,
        frames=frames,
        stride=stride,
        size=size,
        say=lambda line: print(line, file=sys.stderr),
    )
    if out is not None:
        write_json(out, result)
    print_json(result) if as_json else print(render(result))
