"""Whose folder it is: the one a run takes for itself, and the dated one it takes when none is named."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ..config import Recipe, differences
from ..errors import UsageError
from ..rundir import RunDir


def claim(out: str | Path | None, recipe: Recipe, overwrite: bool, accelerator: Any) -> RunDir:
    """Take the folder `out` (without it the default one) for this recipe and write the recipe there.

    Every process comes to the same answer before any of them writes. A folder that holds anything but a run is never
    taken, and replacing a run removes the run's own files alone. Errors: UsageError.
    """
    folder = RunDir(out if out is not None else _agreed(default_folder(recipe)))
    _refuse_file(folder.path)
    begun = folder.begun()
    there = folder.recipe() if begun and not overwrite else None
    held = folder.path.exists() and any(folder.path.iterdir())
    stray = held and not (folder.path / "recipe.json").exists()
    accelerator.wait_for_everyone()
    if stray:
        raise UsageError(f"{folder.path} is not empty and holds no run; choose another --out")
    if there is not None and there != recipe:
        differing = ", ".join(differences(there, recipe))
        raise UsageError(f"{folder.path} holds another recipe's run (differs in {differing}); --overwrite replaces it")
    if accelerator.is_main_process:
        if overwrite:
            folder.clear()
        folder.write_recipe(recipe)
    accelerator.wait_for_everyone()
    return folder


def default_folder(recipe: Recipe) -> Path:
    """runs/<date>-<name>: the newest unfinished run of the same recipe there, else a new name."""
    started = sorted(Path("runs").glob(f"*-{recipe.name}*/recipe.json"), reverse=True)
    for found in started:
        folder = RunDir(found.parent)
        if not folder.complete() and folder.recipe() == recipe:
            return folder.path
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{recipe.name}"


def _refuse_file(path: Path) -> None:
    """Raise UsageError where `path`, or what is to hold it, is a file."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"a run's folder is a folder, but {there} is a file; choose another --out")


def _agreed(path: Path) -> Path:
    """The first process's path: each has its own clock."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([path])[0]
