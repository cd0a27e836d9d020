"""`--set path.to.field=value`: a recipe with single values changed."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError, unknown_name
from ..regularizer.vcreg import VCReg
from .recipe import Recipe, Video
from .serialization import checked


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with each `path.to.field=value` applied, in order.

    The value is read as JSON where it can be, else as a string: `train.epochs=6`, `vcreg.delta=null`,
    `data.name=digits`. A text field keeps what was typed (`data.root=2024`), and a list of names may be names between
    commas: `eval.protocols=classification,probe`. `vcreg.<field>` on a plain recipe starts from `VCReg()`, and
    `vcreg=null` makes it plain; `video.<field>` likewise from `Video()`.

    Errors: UsageError for a setting without `=`, UnknownNameError for a field, ConfigError for a value.

    >>> from vcreg_hub.config import Data, Model
    >>> override(Recipe("r", Model("convnext_atto"), Data("digits")), ["train.epochs=6"]).train.epochs
    6
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"a setting is path.to.field=value, got {setting!r}")
        recipe = _replaced(recipe, path.split("."), text, path)
    return recipe


def field_names(recipe: Recipe) -> list[str]:
    """Every path `override` takes for this recipe, such as `train.epochs`."""
    return [
        f"{section.name}.{leaf.name}" if dataclasses.is_dataclass(value) else section.name
        for section in dataclasses.fields(recipe)
        for value in [_dataclass_at(recipe, section.name)]
        for leaf in (dataclasses.fields(value) if dataclasses.is_dataclass(value) else [section])
    ]


def _dataclass_at(config: Any, name: str) -> Any:
    value = getattr(config, name)
    empty = {"vcreg": VCReg, "video": Video}
    return empty[name]() if name in empty and value is None else value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _read(hint: Any, text: str) -> Any:
    """What was typed for a field of type `hint`, as far as `checked` cannot know: `2024` may be a folder's name."""
    value, origin = _parsed(text), typing.get_origin(hint)
    # Only of a union or a tuple are the arguments types of the value itself; those of a dict are of what it holds.
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType, tuple) else (hint,)
    if origin is tuple:
        if kinds[0] is str and value is not None and not isinstance(value, list) and text.strip():
            inside = text.strip()
            inside = inside[1:-1] if inside.startswith("[") and inside.endswith("]") else inside
            return [name.strip().strip("\"'") for name in inside.split(",") if name.strip()]
        return value
    return text if str in kinds and value is not None and type(value) not in kinds else value


def _replaced(config: Any, parts: list[str], text: str, path: str) -> Any:
    name, rest = parts[0], parts[1:]
    if name not in {f.name for f in dataclasses.fields(config)}:
        everything = field_names(config) if isinstance(config, Recipe) else []
        siblings = [path[: len(path) - len(".".join(parts))] + f.name for f in dataclasses.fields(config)]
        raise unknown_name("field", path, [*siblings, *everything])
    if not rest:
        hint = typing.get_type_hints(type(config))[name]
        return _construct(config, name, checked(hint, _read(hint, text), path), path)
    inner = _dataclass_at(config, name)
    if isinstance(inner, dict):
        return _construct(config, name, inner | {".".join(rest): _parsed(text)}, path)
    if not dataclasses.is_dataclass(inner):
        raise ConfigError(f"{path}: {name} is a single value and has no field {'.'.join(rest)}")
    return _construct(config, name, _replaced(inner, rest, text, path), path)


def _construct(config: Any, name: str, value: Any, path: str) -> Any:
    try:
        return dataclasses.replace(config, **{name: value})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None
