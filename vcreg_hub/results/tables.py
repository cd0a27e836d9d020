"""One table, written as Markdown, HTML, JSON or lines for a terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Align = Literal["left", "right"]


@dataclass(frozen=True)
class Column:
    name: str
    align: Align = "left"


@dataclass(frozen=True)
class Table:
    """Columns, and rows with a text for each column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Iterable[str | Column], rows: Iterable[Sequence[object]]) -> Table:
        """A table of any values; None is a dash. A column given by its name alone is aligned left."""
        made = tuple(Column(column) if isinstance(column, str) else column for column in columns)
        texts = tuple(tuple("-" if value is None else str(value) for value in row) for row in rows)
        for row in texts:
            assert len(row) == len(made), f"{len(row)} cells in a table of {len(made)} columns: {row}"
        return cls(made, texts)

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]]) -> Table:
        """A column for each key of the first record, a row for each record."""
        return cls.of(records[0] if records else (), [tuple(record.values()) for record in records])

    def markdown(self, padded: bool = False) -> str:
        """GitHub Markdown. padded: columns of one width, for a page also read as text."""
        names = [_in_markdown(column.name) for column in self.columns]
        rows = [[_in_markdown(cell) for cell in row] for row in self.rows]
        widths = [max(3, *(len(row[i]) for row in [names, *rows])) if padded else 0 for i in range(len(names))]

        def line(cells: Sequence[str]) -> str:
            aligned = (_aligned(*cell) for cell in zip(cells, widths, self._aligns, strict=True))
            return f"| {' | '.join(aligned)} |"

        rules = ["-" * (width or 3) for width in widths]
        rules = [f"{rule[:-1]}:" if align == "right" else rule for rule, align in zip(rules, self._aligns, strict=True)]
        return "\n".join([line(names), line(rules) if padded else f"|{'|'.join(rules)}|", *map(line, rows)])

    def html(self) -> str:
        """A `<table>`, its cells escaped."""

        def line(tag: str, cells: Sequence[str]) -> str:
            styles = (' style="text-align: right"' if align == "right" else "" for align in self._aligns)
            escaped = (html.escape(cell).replace("\n", "<br>") for cell in cells)
            inner = "".join(f"<{tag}{style}>{cell}</{tag}>" for style, cell in zip(styles, escaped, strict=True))
            return f"<tr>{inner}</tr>"

        head = line("th", [column.name for column in self.columns])
        body = "\n".join(line("td", row) for row in self.rows)
        return f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def json(self) -> list[dict[str, str]]:
        """A JSON value: an object for each row, its keys the columns' names."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def terminal(self, width: int | None) -> str:
        """Columns side by side in `width` characters, the widest folded; where they are too many for that, a paragraph
        for each row with a line for each column. None is for a pipe: tabs between cells."""
        names = [column.name for column in self.columns]
        if width is None:
            lines = [names, *([" ".join(cell.split()) for cell in row] for row in self.rows)]
            return "\n".join("\t".join(line) for line in lines)
        rows = [names, *self.rows]
        natural = [max(len(part) for row in rows for part in row[i].split("\n")) for i in range(len(names))]
        widths = _fitted(natural, width)
        if sum(widths) + 2 * (len(widths) - 1) > width:
            return self._paragraphs(width)
        blocks = [_folded(row, widths, self._aligns) for row in rows]
        rule = "  ".join("-" * one for one in widths)
        return "\n".join([*blocks[0], rule, *(line for block in blocks[1:] for line in block)])

    def _paragraphs(self, width: int) -> str:
        names = [column.name for column in self.columns]
        widths = _fitted([max(map(len, names)), width], width)
        told = [[_folded(pair, widths, ("left", "left")) for pair in zip(names, row, strict=True)] for row in self.rows]
        return "\n\n".join("\n".join(line for pair in row for line in pair) for row in told)

    @property
    def _aligns(self) -> list[Align]:
        return [column.align for column in self.columns]


def _in_markdown(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split("\n")))


def _aligned(text: str, width: int, align: Align) -> str:
    return text.rjust(width) if align == "right" else text.ljust(width)


def _fitted(widths: list[int], total: int) -> list[int]:
    """Column widths that fit into `total` with two blanks between, taken from the widest; none below eight."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > total and max(widths, default=0) > 8:
        widths[widths.index(max(widths))] -= 1
    return widths


def _folded(row: Sequence[str], widths: Sequence[int], aligns: Sequence[Align]) -> list[str]:
    """The lines of one row."""
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for n in range(max(map(len, cells), default=0)):
        parts = (cell[n] if n < len(cell) else "" for cell in cells)
        aligned = (_aligned(part, width, align) for part, width, align in zip(parts, widths, aligns, strict=True))
        lines.append("  ".join(aligned).rstrip())
    return lines


def _wrapped(cell: str, width: int) -> list[str]:
    """Its lines, broken at blanks where that fits and anywhere else: paths and hashes have none."""
    import textwrap

    return [part for line in cell.split("\n") for part in textwrap.wrap(line, max(1, width)) or [""]]
