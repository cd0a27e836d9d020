"""blocks and bench: places VCReg in a model, measures its cost, and how fast clips are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import Json, app
from .names import check_model
from .printing import print_json, print_table


@app.command()
def blocks(
    name: Annotated[str, typer.Argument(help="A timm architecture, hf:<config or id>, or torchvision:<name>.")],
    where: Annotated[str, typer.Option(help="final, blocks, downsample, blocks+downsample, or a glob.")] = "blocks",
    as_json: Json = False,
) -> None:
    """Shows VCReg's sites in a model, with output shapes and channel axis. Builds no weights."""
    check_model(name, "timm architecture")
    from ..models.build import build_on_meta
    from ..placement.sites import describe_sites, find_blocks

    model = build_on_meta(name)
    rows = describe_sites(model, find_blocks(model, where))
    if as_json:
        print_json(rows)
        return
    print_table(rows)
    print(f"{len(rows)} site{'s' * (len(rows) != 1)}")


bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command()
def overhead(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    network: Annotated[list[str] | None, typer.Option(help="A timm architecture; repeatable.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds a network and block.")] = None,
    precision: Annotated[str, typer.Option(help="no or bf16.")] = "no",
    out: Annotated[Path | None, typer.Option(help="Write the JSON here, which names the device.")] = None,
    as_json: Json = False,
) -> None:
    """Table 8: time and memory of identity, naive loss, Algorithm 1, VCReg and BatchNorm at the same places."""
    from ..bench.overhead import PAPER
    from ..bench.overhead import overhead as measure
    from ..bench.table import render
    from ..files import write_json

    result = measure(
        device,
        networks=network or tuple(PAPER),
        batch_size=batch_size,
        rounds=rounds,
        precision=precision,
        log=lambda line: print(line, file=sys.stderr),
    )
    if out is not None:
        write_json(out, result)
    print_json(result) if as_json else print(render(result))


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
    """Clips a second: decode a random window and resize it, with each installed decoder.

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
        log=lambda line: print(line, file=sys.stderr),
    )
    if out is not None:
        write_json(out, result)
    print_json(result) if as_json else print(render(result))


@bench.command()
def logreg(
    data: Annotated[str, typer.Option(help="A data set of images, such as digits or fashion_mnist.")] = "fashion_mnist",
    samples: Annotated[int, typer.Option(min=20, help="Training images at most.")] = 10_000,
    width: Annotated[int, typer.Option(min=1, help="Features of an image at most.")] = 512,
    count: Annotated[int, typer.Option(min=1, help="Penalties.")] = 45,
    lowest: Annotated[float, typer.Option(help="The smallest penalty.")] = 1e-5,
    tolerance: Annotated[float, typer.Option(help="scikit-learn's.")] = 1e-4,
    out: Annotated[Path | None, typer.Option(help="Write the JSON here, which names the machine.")] = None,
    as_json: Json = False,
) -> None:
    """The penalties of `logreg` fitted at once against scikit-learn's fits one by one, on the same features."""
    from ..bench.logreg import logreg as measure
    from ..bench.logreg import render
    from ..files import write_json

    result = measure(
        data,
        samples=samples,
        width=width,
        count=count,
        lowest=lowest,
        tolerance=tolerance,
        log=lambda line: print(line, file=sys.stderr),
    )
    if out is not None:
        write_json(out, result)
    print_json(result) if as_json else print(render(result))
