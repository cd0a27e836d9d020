"""Prints results on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..results.tables import Table

if TYPE_CHECKING:
    from ..config import Recipe


def print_metrics(rows: list[dict[str, Any]], recipe: Recipe | None = None) -> None:
    """A table of rows of results.json. recipe: of their run; its own folders are called by their names."""
    sets = [] if recipe is None else [recipe.data, *(one.data for one in recipe.evals if one.data is not None)]
    titles: dict[str, set[str]] = {}
    for data in sets:
        titles.setdefault(data.name, set()).add(data.title)
    named = {name: found.pop() for name, found in titles.items() if len(found) == 1}
    rows = [row | {"dataset": named.get(row["dataset"], row["dataset"])} for row in rows]
    print_table(
        [
            {
                "metric": row["metric"],
                "value": f"{row['value']:.2f} {row['unit']}",
                "data": f"{row['dataset']}/{row['dataset_config']}"
                + (f", {row['settings']}" if row.get("settings") else "")
                + (f", noise {row['sigma']:g}" if row.get("sigma") else ""),
                "split": row["split"] + (f", fold {row['fold']}" if "fold" in row else ""),
                "better": "higher" if row["higher_is_better"] else "lower",
            }
            for row in rows
        ]
    )


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """A column for each key of the records, as wide as the terminal allows; between tabs without a terminal."""
    print(Table.of_records(records).terminal(_width()))


def print_report(table: Table) -> None:
    """A table in the width of the terminal; as Markdown without a terminal."""
    width = _width()
    print(table.markdown() if width is None else table.terminal(width))


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def tell(line: str) -> None:
    """Prints a line beside the results, on stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def leave_group() -> None:
    """Ends the connection between the processes of a launcher.

    Its threads would else still run while Python ends. One that then asks for the interpreter aborts the process
    (SIGABRT, "terminate called without an active exception"), and the launcher reports a finished run as failed.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
