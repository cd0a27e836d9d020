"""The files of a run.

    recipe.json         what was asked for (config.Recipe, whole)
    env.json            where it ran: packages, device, processes, commit
    metrics.csv         one row an epoch
    results.json        what came out
    model.safetensors   the weights that results.json speaks of, as the plain model's state dict
    last.safetensors    the weights at the end, where `keep="best"` made model.safetensors an earlier epoch's
    progress.jsonl      a line at most a minute apart while it trains, and one for each start, state and signal
    state/              the two last states, to resume from; removed when the run is complete
    evals/              what evaluations tell beside their metrics, such as a whole search; results.json names the files
    start.sha256        the network before the first step, by hash; results.json has it when the run is complete

Every file is written under a temporary name in the same folder and renamed, so an interruption leaves the old
file or the new one. Weights trained elsewhere can be published by writing the four files named in `REQUIRED`.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Recipe, from_json, to_json
from .errors import ConfigError, RunFolderError
from .files import JSON, parse_json, read_tensors, write_text

if TYPE_CHECKING:
    import torch

# Beside the folder of a planned run, its recipe: `seed0.recipe.json` of the folder seed0.
PLANNED = ".recipe.json"
REQUIRED = ("model.safetensors", "recipe.json", "results.json", "env.json")
START = "start.sha256"
JOURNAL = "progress.jsonl"
STATES = "state"
DETAILS = "evals"
OWN = (*REQUIRED, "metrics.csv", JOURNAL, "last.safetensors", "best.safetensors", STATES, START, DETAILS)
# A file that is being written, as `files.replacing` names it.
_PART = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part")


class RunDir:
    """A run's folder. Reading an absent or broken file raises RunFolderError with its name."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        present = [name for name in REQUIRED if (self.path / name).exists()]
        return f"RunDir({str(self.path)!r}, has {', '.join(present) or 'nothing yet'})"

    def complete(self) -> bool:
        """Whether the run ended: all four files are there."""
        return all((self.path / name).is_file() for name in REQUIRED)

    def begun(self) -> bool:
        """Whether anything was trained here; a recipe alone, or with its start, is not yet a run."""
        return any((self.path / name).exists() for name in OWN if name not in ("recipe.json", START, JOURNAL))

    def sweep(self) -> None:
        """Remove what an interrupted write of a run's file left under its temporary name, and nothing else."""
        for folder in (self.path, self.path / STATES, self.path / DETAILS):
            for path in folder.glob(".*.part"):
                found = _PART.fullmatch(path.name)
                if found and path.is_file() and (folder != self.path or found[1] in OWN):
                    path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of a run, what is left of an interrupted write included, and nothing else."""
        self.sweep()
        for name in OWN:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def recipe(self) -> Recipe:
        text = self._text("recipe.json")
        try:
            return from_json(text)
        except ConfigError as error:
            raise RunFolderError(
                f"{self.path / 'recipe.json'} is damaged ({error}); start over in another folder, or with --overwrite"
            ) from None

    def write_recipe(self, recipe: Recipe) -> None:
        write_text(self.path / "recipe.json", to_json(recipe) + "\n", durable=True)

    def results(self) -> JSON:
        return self._json("results.json")

    def env(self) -> JSON:
        return self._json("env.json")

    def epochs(self) -> list[dict[str, float]]:
        """The numbers of metrics.csv, a row an epoch; what is no number is left out, and there is none without it."""
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(value) for name, value in row.items() if name and value and _is_number(value)}
                for row in csv.DictReader(file)
            ]

    def tensors(self, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
        """The tensors of one safetensors file, on the CPU."""
        return read_tensors(self.path / name)

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} is not a complete run folder: it has no {name}") from None
        except UnicodeDecodeError as error:
            raise RunFolderError(f"{self.path / name} is not UTF-8 text: {error}") from None

    def _json(self, name: str) -> JSON:
        try:
            value = parse_json(self._text(name))
        except ValueError as error:
            raise RunFolderError(f"{self.path / name} is not JSON ({error}); --overwrite runs it again") from None
        if not isinstance(value, dict):
            raise RunFolderError(f"{self.path / name} holds a {type(value).__name__}, expected an object")
        return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
