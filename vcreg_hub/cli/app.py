"""The typer application, and the options of several commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# Commands that keep what they have done while they run, and options without which they do not.
_GO_ON = ("train", "sweep", "reproduce", "features", "eval", "data", "download")
_AT_ONCE = ("--no-cache", "--check")


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM within a command; str() says what the same command does next."""


class _Commands(TyperGroup):
    """The commands; what interrupts one comes out as Interrupted, since typer answers a KeyboardInterrupt itself: its
    newer versions in silence, its older ones with "Aborted!" and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in _GO_ON and not set(_AT_ONCE) & set(sys.argv)
            does = "goes on from what is saved" if kept else "begins anew"
            raise Interrupted(f"the same command {does}") from None


app = typer.Typer(
    cls=_Commands,
    help="Train timm and transformers models with VCReg, measure what it gained, publish plain checkpoints.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"vcreg {version('vcreg_hub')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Set = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a value of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; a dated one below runs/ by default.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Seconds on a CPU: synthetic data of the right shapes.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is there.")]
LicenceName = Annotated[str | None, typer.Option(help="With --licence other: what it is called.")]
LicenceLink = Annotated[str | None, typer.Option(help="With --licence other: where its text is.")]
Siblings = Annotated[list[Path] | None, typer.Option("--sibling", help="A run with another seed; repeatable.")]
Twins = Annotated[
    list[Path] | None, typer.Option("--twin", help="A run of the baseline, the same recipe without VCReg; repeatable.")
]
