"""Counts and lists of names in messages."""

from __future__ import annotations

from collections.abc import Collection


def counted(count: int, noun: str, plural: str = "") -> str:
    """
    >>> counted(1, "class", "classes"), counted(1200, "clip")
    ('1 class', '1,200 clips')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def not_decoding(count: int, noun: str = "clip", plural: str = "") -> str:
    """
    >>> not_decoding(1), not_decoding(2, "training clip")
    ('1 clip does not decode', '2 training clips do not decode')
    """
    return f"{counted(count, noun, plural)} {'does' if count == 1 else 'do'} not decode"


def some(names: Collection[str], most: int = 5) -> str:
    """
    >>> some(["a", "b"]), some("abcdef", most=2)
    ('a, b', 'a, b and 4 more')
    """
    more = len(names) - most
    return ", ".join(list(names)[:most]) + (f" and {more:,} more" if more > 0 else "")
