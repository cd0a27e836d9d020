"""The name of a branch or tag of a repo."""

from __future__ import annotations

import re

from ..errors import UsageError

# As `git check-ref-format` has it.
_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|[/.]$|\.lock(/|$)|^@?$")


def check_ref_name(kind: str, name: str) -> None:
    """UsageError unless git takes `name` for a branch or tag. kind: what it is to be, for the message."""
    if found := _REFUSED.search(name):
        why = f"{found.group()!r} cannot stand there" if found.group() else "it is empty"
        raise UsageError(f"{kind} {name!r} is no name that git takes ({why}): give one such as v1")
