"""How results look on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_metrics(rows: list[dict[str, Any]]) -> None:
    print_table(
        [
            {
                "metric": row["metric"],
                "value": f"{row['value']:.2f} {row['unit']}",
                "data": f"{row['dataset']}/{row['dataset_config']}"
                + (f", noise {row['sigma']:g}" if row.get("sigma") else ""),
                "split": row["split"] + (f", fold {row['fold']}" if "fold" in row else ""),
                "better": "higher" if row["higher_is_better"] else "lower",
            }
            for row in rows
        ]
    )


def print_table(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for name in rows[0] if rows else []:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
