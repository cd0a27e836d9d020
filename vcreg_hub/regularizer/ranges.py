"""The range of a setting that is a number: declared beside its field, checked when a dataclass of settings is made.

    @dataclass(frozen=True)
    class Schedule:
        momentum: float = number(0.9, at_least=0, below=1)

        def __post_init__(self) -> None:
            check_ranges(self)

This file knows nothing of torch, so recipes are read without it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigError

_T = TypeVar("_T")
_RANGE = "range"
# The largest count of anything: what a slip of the keyboard makes of a number is told, and 64 bits hold it.
COUNT = 10**12
# NumPy's legacy generators take no larger seed.
LARGEST_SEED = 2**32 - 1


class _Range(NamedTuple):
    low: float
    high: float
    with_low: bool
    with_high: bool

    def holds(self, value: float) -> bool:
        above = self.low <= value if self.with_low else self.low < value
        return above and (value <= self.high if self.with_high else value < self.high)

    def __str__(self) -> str:
        if self.with_low:
            return f"from {_short(self.low)} to {'' if self.with_high else 'below '}{_short(self.high)}"
        return f"above {_short(self.low)} and {'at most' if self.with_high else 'below'} {_short(self.high)}"


def number(
    default: _T,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    compare: bool = True,
) -> _T:
    """A field of a dataclass of settings with this default and range: one of `at_least` and `above`, one of `at_most`
    and `below`.

    The range is that of a number, or of each number of a tuple. None is a value where the default or the type says so.
    compare: whether settings that differ in it differ.
    """
    assert (at_least is None) != (above is None) and (at_most is None) != (below is None), "a range has two ends"
    low, high = above if at_least is None else at_least, below if at_most is None else at_most
    assert low is not None and high is not None
    found: _T = dataclasses.field(
        default=default,
        compare=compare,
        metadata={_RANGE: _Range(low, high, at_least is not None, at_most is not None)},
    )
    return found


def check_ranges(config: Any) -> None:
    """Raises ConfigError with field, range and value where a number of a dataclass of settings is none that its field
    takes. A number without a range is finite."""
    for field in dataclasses.fields(config):
        span, value = field.metadata.get(_RANGE), getattr(config, field.name)
        if span is None:
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{field.name} is a finite number, got {value!r}")
            continue
        kind = str(field.type)
        if value is None and (field.default is None or "None" in kind):
            continue
        whole, several = re.search(r"\bint\b", kind) is not None, "tuple" in kind
        values = value if several and isinstance(value, (tuple, list)) else (value,)
        if not all(_is_number(one, whole) and span.holds(one) for one in values):
            what = f"{'whole ' * whole}numbers, each" if several else f"a {'whole ' * whole}number"
            null = ", or null" if "None" in kind else ""
            raise ConfigError(f"{field.name} is {what} {span}{null}, got {list(value) if several else value!r}")


def range_of(field: dataclasses.Field[Any]) -> str | None:
    """The range of a field in words, None for a field without one."""
    found = field.metadata.get(_RANGE)
    return None if found is None else str(found)


def _is_number(value: object, whole: bool) -> bool:
    """NaN is in no range; True and False are no numbers."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
