"""Text and figures as a card prints them, made harmless for the place they are put in.

Names of models, data sets and metrics come from files that anybody may have written: a backtick or bracket could open
code or a link, a line break could end the card's YAML block or a table row.
"""

from __future__ import annotations

import re
import unicodedata

from ..results.aggregate import Sample

_LONGEST = 400


def one_line(value: object) -> str:
    """`value` as one line of printable text, at most 400 characters."""
    text = "".join(
        " " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Zs"} else c
        for c in str(value)
        if unicodedata.category(c) not in {"Cf", "Cs", "Co", "Cn"}
    )
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def prose(value: object) -> str:
    """`value` as running text or a table cell: no markup of its own, no HTML, no cell border."""
    text = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")
    return re.sub(r"([\\*\[\]|~#])", r"\\\1", text)


def code(value: object) -> str:
    """`value` as a code span."""
    return "`" + (one_line(value).replace("`", "'").replace("|", "\\|") or " ") + "`"


def slug(value: object) -> str:
    """`value` as a piece of a file name: lower-case letters, digits, dots, underscores and dashes."""
    return re.sub(r"[^a-z0-9._]+", "-", one_line(value).lower()).strip("-.") or "x"


def number(value: float | None, unit: str = "") -> str:
    """A figure for a table: two decimals for percentages, four digits otherwise."""
    if value is None:
        return "n/a"
    return f"{value:.2f}" if unit == "%" else f"{value:.4g}"


def spread(sample: Sample, unit: str) -> str:
    """`82.10 ± 0.40`, without the unit."""
    return number(sample.mean, unit) + ("" if sample.std is None else f" ± {number(sample.std, unit)}")
