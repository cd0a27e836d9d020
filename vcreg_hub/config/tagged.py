"""Finds the class behind a tag: a recipe's evaluations, its task and its regularizer are JSON with a `type`.

A tagged family is a base class with a `room`, the package of its members. A member `tag` lives in the file `tag`.py of
that room and is found by being there; a class of one's own is addressed as `module:Class`.

Importing a module runs it. So a recipe file, which anybody may have written, names classes of modules that this process
has imported already, or that VCREG_MODULES lists (names, with commas between); what a person types is imported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeGuard

from ..errors import ConfigError, UnknownNameError, unknown_name

TRUSTED_VARIABLE = "VCREG_MODULES"
_nothing_imported: ContextVar[bool] = ContextVar("nothing_imported", default=False)


@contextmanager
def nothing_imported() -> Iterator[None]:
    """Inside, a `module:Class` is that of a module that is imported already, or trusted by VCREG_MODULES."""
    before = _nothing_imported.set(True)
    try:
        yield
    finally:
        _nothing_imported.reset(before)


class Family(Protocol):
    """A base class of tagged dataclasses, or one of them.

    tag: its `type` in JSON. room: the package whose files define the members. default_tag: the member where no `type`
    is given.
    """

    tag: ClassVar[str]
    room: ClassVar[str]
    default_tag: ClassVar[str]


def is_tagged(kind: Any) -> TypeGuard[type[Family]]:
    """Whether values of this type are told apart by their tag."""
    return isinstance(kind, type) and hasattr(kind, "room") and hasattr(kind, "default_tag")


def tag_of(value: Family) -> str:
    """The `type` of a value in JSON: its tag, or `module:Class` for a class outside its family's room."""
    kind = type(value)
    inside = kind.__module__.startswith(f"{kind.room}.")
    return kind.tag if inside else f"{kind.__module__}:{kind.__qualname__}"


def tagged_class(family: type[Family], name: str, path: str = "") -> Any:
    """The member of a family with this tag or `module:Class`.

    Errors: UnknownNameError with the nearest tags; ConfigError for a `module:Class` that is not one; both begin with
    `path`.
    """
    at = f"{path}: " if path else ""
    module, colon, attribute = name.partition(":")
    if colon:
        return _addressed(family, module, attribute, at)
    if name in _tags(family):
        defined = vars(importlib.import_module(f"{family.room}.{name}"))
        for kind in defined.values():
            if _is_member(kind, family) and kind.tag == name:
                return kind
    error = unknown_name(_kind(family), name, _tags(family))
    raise UnknownNameError(f"{at}{error}")


def default_of(family: type[Family]) -> Any:
    """A member with all its defaults: that of the family's `default_tag`."""
    return tagged_class(family, family.default_tag)()


def _addressed(family: type[Family], module: str, attribute: str, at: str) -> Any:
    trusted = [name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",")]
    if _nothing_imported.get() and module not in sys.modules and module not in trusted:
        raise ConfigError(
            f"{at}{module}:{attribute} is a class from outside of this package, and reading a recipe runs no code. If "
            f"you trust {module}, set {TRUSTED_VARIABLE}={module} in the environment, or import it first"
        )
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of one's own may fail in any way
        raise ConfigError(f"{at}{module}:{attribute} cannot be had: {type(error).__name__}: {error}") from error
    if not _is_member(kind, family):
        raise ConfigError(f"{at}{module}:{attribute} is no {_kind(family)}: expected a dataclass below {_kind(family)}")
    return kind


def _is_member(kind: Any, family: type[Family]) -> bool:
    return isinstance(kind, type) and issubclass(kind, family) and kind is not family and dataclasses.is_dataclass(kind)


@functools.cache
def _tags(family: type[Family]) -> list[str]:
    """Every tag of a room, read from its files: importing them all may cost seconds."""
    spec = importlib.util.find_spec(family.room)
    folders = (spec and spec.submodule_search_locations) or ()
    files = sorted(path for folder in folders for path in Path(folder).glob("*.py"))
    return [path.stem for path in files if f'tag = "{path.stem}"' in path.read_text(encoding="utf-8")]


def _kind(family: type[Family]) -> str:
    return family.__name__.lower()
