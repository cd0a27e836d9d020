"""A recipe as plain values and JSON, and back, each value checked against its field's type."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..errors import ConfigError, unknown_name
from ..files import JSON, parse_json
from .old_forms import renewed
from .recipe import Recipe
from .tagged import Family, is_tagged, nothing_imported, tag_of, tagged_class

# Characters of a wrong value that an error shows.
_SHOWN = 200


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The paths of the differences between two recipes, such as ["train.epochs", "vcreg"]."""
    return [path for path, _, _ in differing(json.loads(to_json(one)), json.loads(to_json(other)))]


def differing(one: JSON, other: JSON, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, one value, other value) of each difference between the JSON of two recipes; None where a field is not."""
    for name in sorted(one.keys() | other.keys()):
        before, after = _by_type(one.get(name)), _by_type(other.get(name))
        alike = isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type")
        if alike and (not isinstance(one[name], list) or list(before) == list(after)):
            yield from differing(before, after, f"{path}{name}.")
        elif before != after:
            yield path + name, before, after


def _by_type(value: Any) -> Any:
    """A list of tagged objects as a dict by their tags; anything else as it is."""
    tagged = isinstance(value, list) and all(isinstance(part, dict) and "type" in part for part in value)
    named = {part["type"]: part for part in value} if tagged else {}
    return named if tagged and value and len(named) == len(value) else value


def to_dict(config: Any) -> JSON:
    """Plain dicts, sequences and scalars of a config dataclass, with the `type` of each tagged part."""
    plain: JSON = {"type": tag_of(config)} if is_tagged(type(config)) else {}
    return plain | {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def to_json(recipe: Recipe) -> str:
    """The recipe as indented JSON, complete: a default is written out, so a later default cannot change a run."""
    return json.dumps(to_dict(recipe), indent=2)


def from_json(text: str) -> Recipe:
    """The recipe of a JSON text by `to_json`. An unknown field, a missing one or a wrong type is a ConfigError, and so
    is a class of a module that this process has not imported (`tagged.nothing_imported`)."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"a recipe is JSON; this is not: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"a recipe is a JSON object, got {type(values).__name__}")
    with nothing_imported():
        recipe: Recipe = _from_dict(Recipe, renewed(values), "")
    return recipe


def _from_dict(kind: type, values: Mapping[str, Any], path: str) -> Any:
    """A `kind` from plain values, each checked against the type of its field."""
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            raise unknown_name("field", path + name, [path + k for k in known])
    required = [
        name
        for name, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise ConfigError(f"{path or 'the recipe'} lacks {', '.join(missing)}")
    fields = {name: checked(hints[name], value, path + name) for name, value in values.items()}
    try:
        return kind(**fields)
    except ConfigError as error:
        raise ConfigError(f"{path}{error}") from None


def checked(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type `hint`: JSON's lists become tuples, whole numbers become floats; anything else must fit.

    Errors: ConfigError, naming `path`.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _checked_union(args, value, path)
    if origin is Literal:
        # True equals 1, and is none of its choices.
        if not any(type(value) is type(one) and value == one for one in args):
            raise ConfigError(f"{path} is one of {', '.join(map(repr, args))}, got {_shown(value)}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        items = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        if len(items) != len(value):
            raise ConfigError(f"{path} has {len(items)} values, got {len(value)}: {_shown(value)}")
        return tuple(checked(item, part, f"{path}[{i}]") for i, (item, part) in enumerate(zip(items, value)))
    if is_tagged(hint):
        return _checked_tagged(hint, value, path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return _from_dict(hint, value, f"{path}.")
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return _checked_text(value, path) if hint is str else value
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    raise ConfigError(f"{path} is {_type_name(hint)}, got {_shown(value)}")


def _checked_text(value: str, path: str) -> str:
    """Text that a file's name and a file can hold."""
    if any(one == "\0" or "\ud800" <= one <= "\udfff" for one in value):
        raise ConfigError(f"{path} is text in UTF-8 without a zero byte, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _checked_tagged(family: type[Family], value: Any, path: str) -> Any:
    """A member of a family from its JSON, or with all its defaults from its tag alone."""
    if isinstance(value, str):
        value = {"type": value}
    if isinstance(value, Mapping):
        tag = value.get("type", family.default_tag)
        if not isinstance(tag, str):
            raise ConfigError(f"{path}.type is text, got {_shown(tag)}")
        fields = {name: part for name, part in value.items() if name != "type"}
        return _from_dict(tagged_class(family, tag, path), fields, f"{path}.")
    if isinstance(value, family):
        return value
    raise ConfigError(f"{path} is {_type_name(family)}, got {_shown(value)}")


def _checked_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    if len(choices) == 1:
        return checked(choices[0], value, path)
    for choice in choices:
        try:
            return checked(choice, value, path)
        except ConfigError:
            continue
    raise ConfigError(f"{path} is {' or '.join(map(_type_name, choices))}, got {_shown(value)}")


def _type_name(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(hint) is tuple:
        names = is_tagged(typing.get_args(hint)[0])
        return "a JSON list, or names such as classification" if names else "a JSON list such as '[0.5, 0.9]'"
    if is_tagged(hint):
        return f"null, a name such as {hint.default_tag}, or set field by field"
    if dataclasses.is_dataclass(hint):
        return "null, or set field by field, as in vcreg.alpha=1"
    return plain.get(hint) or str(getattr(hint, "__name__", hint))
