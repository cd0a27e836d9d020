"""Recipes: functions that return a `Recipe`, one subject a file, addressed as `module:function`.

Inside this package `digits:convnext_atto_vcreg` is `vcreg_hub.recipes.digits.convnext_atto_vcreg`; anything importable
works the same way from outside: `my_lab.runs:mine`. A function may take keyword arguments with defaults, which
`replace`-style code uses; the command line calls it without any and changes values with `--set`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

from ..config import Recipe
from ..errors import ConfigError, UsageError, unknown_name


def load_recipe(address: str) -> Recipe:
    """The recipe at `module:function`. Errors: UnknownNameError, which names the nearest."""
    return _function(address)()


def addresses() -> list[str]:
    """Every address inside this package, sorted."""
    return sorted(f"{module}:{name}" for module in _modules() for name in _recipes_of(f"{__name__}.{module}"))


def summary(address: str) -> str:
    """The first line of a recipe's docstring."""
    return (inspect.getdoc(_function(address)) or "").partition("\n")[0]


def _function(address: str) -> Callable[[], Recipe]:
    module, colon, name = address.partition(":")
    if not colon or not module or not name:
        raise unknown_name("recipe", address, addresses(), "An address is module:function; `vcreg recipes` lists them.")
    if module in _modules():
        found = _recipes_of(f"{__name__}.{module}")
        if name not in found:
            raise unknown_name("recipe", address, addresses())
        return found[name]
    return _outside(address, module, name)


def _outside(address: str, module: str, name: str) -> Callable[[], Recipe]:
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise UsageError(f"recipe {address!r}: its module imports {error.name}, which is not installed") from None
        raise unknown_name("recipe", address, addresses()) from None
    function = getattr(imported, name, None)
    if not callable(function):
        known = [f"{module}:{n}" for n, value in vars(imported).items() if callable(value)]
        raise unknown_name("recipe", address, known)

    def checked() -> Recipe:
        recipe = function()
        if not isinstance(recipe, Recipe):
            raise ConfigError(f"{address} returned a {type(recipe).__name__}, expected a vcreg_hub Recipe")
        return recipe

    checked.__doc__ = function.__doc__
    return checked


def _modules() -> list[str]:
    return [info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")]


def _recipes_of(module_name: str) -> dict[str, Callable[[], Recipe]]:
    """The public functions defined in a module that say they return a Recipe."""
    module = importlib.import_module(module_name)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module_name
        and not name.startswith("_")
        and inspect.signature(value).return_annotation in ("Recipe", Recipe)
    }
