"""Recipes: functions with a `Recipe` as their result, one subject a file, addressed as `module:function`.

Inside this package `digits:convnext_atto` is the function `vcreg_hub.recipes.digits.convnext_atto`, and
`digits:convnext_atto_vcreg` a row of `aliases.py`, that recipe with a few settings. Anything importable works the same
way from outside: `my_lab.runs:mine`. A function may take keyword arguments with defaults, which `replace`-style code
uses; the command line calls it without any and changes values with `--set`.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..config import Recipe, from_json, override
from ..errors import ConfigError, UsageError, unknown_name
from .aliases import ALIASES

_LISTED = "`vcreg recipes` lists them."


def load_recipe(address: str) -> Recipe:
    """The recipe at `module:function`, or of an alias. Errors: UnknownNameError, naming the nearest."""
    if alias := ALIASES.get(address):
        base = load_recipe(alias.of)
        changed = override(base, alias.settings)
        return replace(changed, name=alias.name(address, base.name), assumed=(*base.assumed, *alias.assumed))
    known = addresses()
    module, colon, name = address.partition(":")
    if not colon or not module or not name:
        raise unknown_name("recipe", address, known, f"An address is module:function; {_LISTED}")
    if address in known:
        recipe: Recipe = getattr(importlib.import_module(f"{__name__}.{module}"), name)()
        return recipe
    if any(other.startswith(f"{module}:") for other in known):
        raise unknown_name("recipe", address, known, _LISTED)
    return _from_outside(address, module, name)


def read_recipe(source: str | Path) -> Recipe:
    """The recipe at `module:function`, in a .json file that a run holds, or in a run's folder. Errors: those of
    `load_recipe`; UsageError for a file that is not there; ConfigError for one that is no recipe."""
    path = Path(source).expanduser()
    if path.is_dir() and ":" not in str(source):
        path = path / "recipe.json"
    if path.suffix != ".json":
        return load_recipe(str(source))
    if not path.is_file():
        raise UsageError(f"there is no recipe file {path}")
    return from_json(path.read_text(encoding="utf-8"))


def addresses() -> list[str]:
    """Every address inside this package, sorted."""
    return list(summaries())


def summaries() -> dict[str, str]:
    """Address -> the first line of the recipe's docstring, sorted. Imports and runs no recipe."""
    found = {address: alias.about for address, alias in ALIASES.items()}
    for path in Path(__file__).parent.glob("[!_]*.py"):
        found |= {f"{path.stem}:{name}": line for name, line in _recipes_in(path.read_text(encoding="utf-8"))}
    return dict(sorted(found.items()))


def _recipes_in(source: str) -> Iterator[tuple[str, str]]:
    """(name, first docstring line) of the public functions that say they return a Recipe."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if node.returns is not None and ast.unparse(node.returns).strip("'\"") == "Recipe":
                yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _from_outside(address: str, module: str, name: str) -> Recipe:
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise UsageError(f"recipe {address!r}: its module imports {error.name}, which is not installed") from None
        raise unknown_name("recipe", address, addresses(), _LISTED) from None
    function = getattr(imported, name, None)
    if not callable(function):
        known = [f"{module}:{n}" for n, value in vars(imported).items() if callable(value)]
        raise unknown_name("recipe", address, known)
    recipe = function()
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{address} returned a {type(recipe).__name__}, expected a vcreg_hub Recipe")
    return recipe
