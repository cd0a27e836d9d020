"""Locks a run folder; picks a dated default."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..config import Recipe, differences, differing, to_json
from ..errors import RunFolderError, UsageError
from ..files import FORBIDDEN, locked, said_of
from ..rundir import RunDir
from ..training.journal import Journal


@contextlib.contextmanager
def claimed(
    out: str | Path | None, recipe: Recipe, overwrite: bool, accelerator: Any, changing: Recipe | None = None,
    refuse: Callable[[RunDir], None] = lambda folder: None,
) -> Iterator[RunDir]:  # fmt: skip
    """The folder `out` (without it the default one), taken for this recipe and for this run alone: until the
    block ends, or its process does, no other run gets in. changing: the recipe of a run there that goes on with
    `recipe` instead. refuse: asked of an unfinished run there before anything is written. Errors: UsageError;
    StorageError for a folder that cannot be made or written.
    """
    folder = RunDir(out if out is not None else _agreed(_default_folder(recipe)))
    _refuse_file(folder.path)
    if accelerator.is_main_process:
        with said_of(folder.path, FORBIDDEN):
            folder.path.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, accelerator):
        _claim(folder, recipe, overwrite, accelerator, changing, refuse)
        yield folder


@contextlib.contextmanager
def alone_in(folder: RunDir, accelerator: Any) -> Iterator[None]:
    """An existing folder, for these processes alone during the block. Errors: UsageError."""
    with locked(folder.path) if accelerator.is_main_process else contextlib.nullcontext() as free:
        if _agreed(free) is False:
            raise UsageError(f"another run is at work in {folder.path}; wait for it to end, or choose another folder")
        yield


def _claim(
    folder: RunDir, recipe: Recipe, overwrite: bool, accelerator: Any, changing: Recipe | None,
    refuse: Callable[[RunDir], None],
) -> None:  # fmt: skip
    """Take the folder for this recipe and write the recipe there.

    Every process comes to the same answer before any of them writes. A folder that holds anything but a run is never
    taken, and replacing a run removes the run's own files alone. Errors: UsageError.
    """
    if accelerator.is_main_process:
        folder.sweep()
    accelerator.wait_for_everyone()
    begun = folder.begun()
    there = folder.recipe() if begun and not overwrite else None
    held = folder.path.exists() and any(folder.path.iterdir())
    stray = held and not (folder.path / "recipe.json").exists()
    accelerator.wait_for_everyone()
    if stray:
        raise UsageError(f"{folder.path} is not empty and holds no run; choose another --out")
    if changing is not None and (overwrite or there is None or folder.complete()):
        state = "would be replaced" if overwrite else "is complete" if begun else "has not begun"
        raise UsageError(f"--continue-with goes on with an unfinished run, but that in {folder.path} {state}")
    if there is not None and there not in (recipe, changing):
        paths = ", ".join(differences(there, recipe))
        raise UsageError(
            f"{folder.path} holds another recipe's run (differs in {paths}); --overwrite replaces it, and vcreg "
            f"train {folder.path} --continue-with goes on with it under other settings"
        )
    if there is not None and not folder.complete():
        refuse(folder)
    if accelerator.is_main_process:
        if overwrite:
            folder.clear()
        if changing is not None and there is not None and there != recipe:
            found = differing(json.loads(to_json(there)), json.loads(to_json(recipe)))
            changed = {path: [before, now] for path, before, now in found}
            Journal(folder.path).append("settings", changed=changed)
        folder.write_recipe(recipe)
    accelerator.wait_for_everyone()


def _default_folder(recipe: Recipe) -> Path:
    """runs/<date>-<name>: the newest unfinished run of the same recipe there, else a new name."""
    started = sorted(Path("runs").glob(f"*-{recipe.name}*/recipe.json"), reverse=True)
    for found in started:
        folder = RunDir(found.parent)
        with contextlib.suppress(RunFolderError):  # a damaged one is none of this recipe
            if not folder.complete() and folder.recipe() == recipe:
                return folder.path
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{recipe.name}"


def _refuse_file(path: Path) -> None:
    """Raise UsageError where `path`, or what is to hold it, is a file."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"a run's folder is a folder, but {there} is a file; choose another --out")


def _agreed(value: Any) -> Any:
    """The first process's value: each has its own clock, and one alone holds the lock."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
