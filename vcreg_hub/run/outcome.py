"""What a training leaves: which weights are kept, and the files that make its folder complete."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config import Recipe
from ..data.module import DataModule
from ..env import describe_env
from ..files import replacing, tensors_sha256, write_json, write_text
from ..models.build import library_of
from ..results.rows import Result
from ..rundir import START, RunDir
from ..training.journal import Journal
from ..training.snapshots import Progress
from .emissions import Emissions


@dataclass(frozen=True)
class Outcome:
    """What training left. network: the one to evaluate. regularizer: its last statistics, a row a site."""

    network: nn.Module
    progress: Progress
    regularizer: list[dict[str, Any]]


def note_start(folder: RunDir, network: nn.Module) -> None:
    """Keep the fingerprint of the plain network that a run starts with; a run that goes on keeps its first one."""
    if not folder.begun():
        write_text(folder.path / START, tensors_sha256(network.state_dict()) + "\n")


def _noted_start(folder: RunDir) -> str | None:
    """What `note_start` kept; None where an older version began the run."""
    path = folder.path / START
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def select(folder: RunDir, outcome: Outcome, keep: str, noun: str) -> str:
    """Load the weights to keep into the outcome's network; says which they are."""
    progress = outcome.progress
    if not progress.epoch:
        return "as it started, not trained"
    if keep == "last" or progress.best_epoch is None or progress.best_epoch == progress.epoch:
        return "last epoch"
    outcome.network.load_state_dict(folder.tensors("best.safetensors"))
    return f"epoch {progress.best_epoch}, best on the held-out training {noun}"


def finish(
    recipe: Recipe, folder: RunDir, data: DataModule, outcome: Outcome, metrics: list[Result],
    lost: dict[str, list[str]], selected: str, emissions: Emissions, processes: int,
) -> None:  # fmt: skip
    """Write what makes a run complete, model.safetensors first and results.json last."""
    progress = outcome.progress
    keep, other = ("best", "last") if selected.startswith("epoch ") else ("last", "best")
    with replacing(folder.path / "model.safetensors") as temporary:
        shutil.copyfile(folder.path / f"{keep}.safetensors", temporary)
    write_json(folder.path / "env.json", describe_env(processes))
    training = {
        "epochs": progress.epoch,
        "steps": progress.step,
        **({"batch_size": recipe.train.batch_size} if recipe.train.min_steps is not None else {}),
        "seconds": round(progress.seconds, 2),
        "selected": selected,
        "averaged": recipe.train.ema_decay is not None,
        **emissions.row(),
    }
    if base := library_of(recipe.model.name).base_model(recipe.model):
        training["base_model"] = base
    if broken := Journal(folder.path).lines("diverged"):
        training["not_finite"] = [
            {name: line[name] for name in line if name not in ("time", "event")} for line in broken
        ]
    if start := _noted_start(folder):
        training["start_sha256"] = start
    if learned := [*lost.get("train", ()), *lost.get("val", ())]:
        training["undecodable"] = learned
    results = {
        "format": 1,
        "metrics": [row.to_json() for row in metrics],
        "training": training,
        "data": data.describe() | ({"undecodable_test": lost["test"]} if "test" in lost else {}),
        "regularizer": [{name: _finite(value) for name, value in site.items()} for site in outcome.regularizer],
        "sessions": Journal(folder.path).sessions(),
    }
    write_json(folder.path / "results.json", results)
    (folder.path / f"{keep}.safetensors").unlink()
    if other == "best" and progress.best_epoch == progress.epoch:
        (folder.path / "best.safetensors").unlink(missing_ok=True)
    shutil.rmtree(folder.path / "state", ignore_errors=True)
    (folder.path / START).unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    # JSON knows no NaN, and one odd site must not cost a finished training its results.
    return None if isinstance(value, float) and not math.isfinite(value) else value
