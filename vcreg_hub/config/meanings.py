"""Reads the meaning of each setting from the docstrings of the dataclasses, so that it is written once."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from .recipe import Recipe
from .serialization import to_dict
from .tagged import is_tagged, tag_of


def settings_of(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(path, value, meaning) of every setting of a recipe, as `--set path=value` takes them.

    >>> from vcreg_hub.config import Data, Model
    >>> settings_of(Recipe("r", Model("convnext_atto"), Data("digits")))[1]
    ('model.name', 'convnext_atto', 'a timm architecture, `hf:<id, folder or config.json>` (a transformers image or \
video classifier), or `torchvision:<name>`.')
    """
    return list(_rows(recipe, ""))


def _rows(config: Any, at: str) -> Iterator[tuple[str, str, str]]:
    about = _meanings(type(config))
    for field in dataclasses.fields(config):
        path, value = at + field.name, getattr(config, field.name)
        if isinstance(value, tuple) and value and is_tagged(type(value[0])):
            yield path, ",".join(map(tag_of, value)), about[field.name]
            tags = [tag_of(part) for part in value]
            for place, part in enumerate(value):
                named = tag_of(part) if tags.count(tag_of(part)) == 1 else str(place)
                yield from _rows(part, f"{path}.{named}.")
        elif is_tagged(type(value)):
            yield path, tag_of(value), about[field.name]
            yield from _rows(value, f"{path}.")
        elif dataclasses.is_dataclass(value):
            yield from _rows(value, f"{path}.")
        else:
            yield path, value if isinstance(value, str) else _json(value), about[field.name]


def _json(value: Any) -> str:
    parts = (
        [to_dict(part) if dataclasses.is_dataclass(part) else part for part in value]
        if isinstance(value, tuple)
        else value
    )
    return json.dumps(parts)


def _meanings(kind: type) -> dict[str, str]:
    """Field -> its meaning: `name: text` or `one / other: text` in the docstring of the class or of one it extends.

    A meaning ends where the next one begins, and at the end of its paragraph. Errors: KeyError is our own slip: a test
    asks for every field.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base) or "__doc__" not in vars(base):
            continue
        names = "|".join(sorted((field.name for field in dataclasses.fields(base)), key=len, reverse=True)) or "$"
        entry = re.compile(rf"(?<![\w`.])((?:{names})(?:(?: / |, )(?:{names}))*): ")
        for paragraph in inspect.cleandoc(base.__doc__ or "").split("\n\n"):
            parts = entry.split(" ".join(paragraph.split()))
            for group, text in zip(parts[1::2], parts[2::2], strict=True):
                text = text.partition(" Errors: ")[0].strip()
                found |= dict.fromkeys(re.split(r" / |, ", group), text)
    return found
