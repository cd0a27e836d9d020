"""`--set path.to.field=value`: a recipe with single values changed."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError, unknown_name
from .old_forms import renewed_setting
from .recipe import Recipe
from .serialization import checked, differences
from .tagged import default_of, is_tagged, tag_of


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with each `path.to.field=value` applied, in order.

    The value is read as JSON where it can be, else as a string: `train.epochs=6`, `vcreg.delta=null`,
    `data.name=digits`. A text field keeps what was typed (`data.root=2024`), and a list of names may be names between
    commas: `evals=classification,linear_probe`, of which those that the recipe has keep their settings. One of them is
    changed by its name or its place: `evals.linear_probe.penalty=10`. `vcreg.<field>` on a baseline starts from
    `VCReg()`, and `vcreg=null` makes a baseline; `video.<field>` likewise from `Video()`, and
    `evals.<name>.data.<field>` from the recipe's own `data`.

    Errors: UsageError for a setting without `=`, UnknownNameError for a field, ConfigError for a value.

    >>> from vcreg_hub.config import Data, Model
    >>> override(Recipe("r", Model("convnext_atto"), Data("digits")), ["train.epochs=6"]).train.epochs
    6
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"a setting is path.to.field=value, got {setting!r}")
        path, text = renewed_setting(recipe, path, text)
        recipe = _replaced(recipe, path.split("."), text, path, recipe)
    return recipe


# What may change in the middle of a training: its state fits on, and every step that was taken stays what it was.
_CONTINUABLE = (
    "optim", "vcreg", "eval", "evals", "data.root", "data.workers", "train.accumulation", "train.clip_norm",
    "train.collective_timeout", "train.compile", "train.cutmix", "train.ema_decay", "train.epochs",
    "train.gradient_checkpointing", "train.keep",
    "train.label_smoothing", "train.mixup", "train.on_nan", "train.precision", "train.save_every",
)  # fmt: skip
_FIXED = ("optim.name", "optim.layer_decay")


def continued(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with settings that an unfinished run of it may go on with.

    Errors: those of `override`; ConfigError for a setting that the state does not fit, such as the network's.
    """
    changed = override(recipe, settings)
    for path in differences(recipe, changed):
        may = any(path == one or path.startswith(f"{one}.") for one in _CONTINUABLE)
        averaged = path == "train.ema_decay" and None in (recipe.train.ema_decay, changed.train.ema_decay)
        if path in _FIXED or averaged or not may:
            raise ConfigError(
                f"--continue-with {path}: a state of this run would not fit; start another one with --set. What may "
                f"change is {', '.join(_CONTINUABLE)}"
            )
    return changed


def _field_names(recipe: Recipe) -> list[str]:
    """The paths `override` takes for this recipe, such as `train.epochs`, with those of what is not set yet."""
    names = []
    for section in dataclasses.fields(recipe):
        value = _value_at(recipe, section.name, recipe)
        if isinstance(value, tuple):
            names += [section.name, *(f"{section.name}.{leaf}" for part in value for leaf in _tagged_names(part))]
        elif dataclasses.is_dataclass(value):
            names += [section.name] * is_tagged(type(value))
            names += [f"{section.name}.{leaf.name}" for leaf in dataclasses.fields(value)]
        else:
            names.append(section.name)
    return names


def _tagged_names(value: Any) -> Iterator[str]:
    if is_tagged(type(value)):
        yield from (f"{tag_of(value)}.{leaf.name}" for leaf in dataclasses.fields(value))


def _value_at(config: Any, name: str, recipe: Recipe) -> Any:
    """A field's value; for a None of a dataclass what the setting of one of its fields starts from."""
    value = getattr(config, name)
    if value is not None:
        return value
    for kind in typing.get_args(typing.get_type_hints(type(config))[name]):
        if is_tagged(kind):
            return default_of(kind)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return recipe.data if isinstance(recipe.data, kind) else kind()
    return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return text


def _read(hint: Any, text: str) -> Any:
    """What was typed for a field of type `hint`, as far as `checked` cannot know: `2024` may be a folder's name."""
    value, origin = _parsed(text), typing.get_origin(hint)
    # Only of a union or a tuple are the arguments types of the value itself; those of a dict are of what it holds.
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType, tuple) else (hint,)
    if origin is tuple:
        named = kinds[0] is str or is_tagged(kinds[0])
        if named and value is not None and not isinstance(value, list) and text.strip():
            inside = text.strip()
            inside = inside[1:-1] if inside.startswith("[") and inside.endswith("]") else inside
            return [name.strip().strip("\"'") for name in inside.split(",") if name.strip()]
        return value
    return text if str in kinds and value is not None and type(value) not in kinds else value


def _replaced(config: Any, parts: list[str], text: str, path: str, recipe: Recipe) -> Any:
    name, rest = parts[0], parts[1:]
    if name not in {f.name for f in dataclasses.fields(config)}:
        everything = _field_names(config) if isinstance(config, Recipe) else []
        siblings = [path[: len(path) - len(".".join(parts))] + f.name for f in dataclasses.fields(config)]
        raise unknown_name("field", path, [*siblings, *everything])
    value = getattr(config, name)
    if not rest:
        hint = typing.get_type_hints(type(config))[name]
        return _construct(config, name, checked(hint, _kept(_read(hint, text), value), path), path)
    inner = _value_at(config, name, recipe)
    if isinstance(inner, dict):
        return _construct(config, name, inner | {".".join(rest): _parsed(text)}, path)
    if isinstance(inner, tuple) and is_tagged(type(inner[0]) if inner else None):
        place = _place(inner, rest, path)
        changed = _replaced(inner[place], rest[1:], text, path, recipe)
        return _construct(config, name, (*inner[:place], changed, *inner[place + 1 :]), path)
    if not dataclasses.is_dataclass(inner):
        raise ConfigError(f"{path}: {name} is a single value and has no field {'.'.join(rest)}")
    return _construct(config, name, _replaced(inner, rest, text, path, recipe), path)


def _kept(value: Any, before: Any) -> Any:
    """Names in a list replaced by what already has them, so that it keeps its settings."""
    if not isinstance(value, list) or not isinstance(before, tuple):
        return value
    known = {tag_of(part): part for part in before if is_tagged(type(part))}
    return [known.get(part, part) if isinstance(part, str) else part for part in value]


def _place(parts: Sequence[Any], rest: Sequence[str], path: str) -> int:
    """Which of several tagged values `rest` begins with, by its tag or its number from 0."""
    tags = [tag_of(part) for part in parts]
    if len(rest) > 1 and rest[0] in tags:
        return tags.index(rest[0])
    if len(rest) > 1 and rest[0].isdecimal() and int(rest[0]) < len(parts):
        return int(rest[0])
    before = path[: len(path) - len(".".join(rest))]
    fields = [f"{before}{leaf}" for part in parts for leaf in _tagged_names(part)]
    cure = f"The recipe has {', '.join(tags)}; add others with --set {before.rstrip('.')}={','.join(tags)},<name>."
    raise unknown_name("field", path, fields, cure)


def _construct(config: Any, name: str, value: Any, path: str) -> Any:
    try:
        return dataclasses.replace(config, **{name: value})
    except (ValueError, TypeError) as error:
        told = str(error)
        raise ConfigError(
            f"{path.removesuffix(name)}{told}" if told.startswith(f"{name} ") else f"{path}: {told}"
        ) from None
