"""The typer application, and the options of several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM within a command."""


class _Commands(TyperGroup):
    """The commands; what interrupts one comes out as Interrupted, since typer answers a KeyboardInterrupt itself: its
    newer versions in silence, its older ones with "Aborted!" and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None


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
Licence = Annotated[str, typer.Option(help="Licence of the weights, such as apache-2.0; there is no default.")]
LicenceName = Annotated[str | None, typer.Option(help="With --licence other: what it is called.")]
LicenceLink = Annotated[str | None, typer.Option(help="With --licence other: where its text is.")]
Siblings = Annotated[list[Path] | None, typer.Option("--sibling", help="A run with another seed; repeatable.")]
Twins = Annotated[
    list[Path] | None, typer.Option("--twin", help="A run of the baseline, the same recipe without VCReg; repeatable.")
]
