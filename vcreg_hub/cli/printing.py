"""Prints results on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..results.tables import Table


def print_metrics(rows: list[dict[str, Any]]) -> None:
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
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(Table.of_records(records).terminal(width))


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
