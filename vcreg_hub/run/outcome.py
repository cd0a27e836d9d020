"""How a run ends: the weights it keeps, and the files that make its folder complete."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..env import describe_env
from ..files import replacing, write_json
from ..rundir import START, RunDir
from .emissions import Emissions
from .material import Material
from .start import noted_start


@dataclass(frozen=True)
class Outcome:
    """What training left. progress: of `train.loop.fit`. regularizer: its last statistics, a row a site."""

    model: nn.Module
    progress: Any
    regularizer: list[dict[str, Any]]


def select(folder: RunDir, outcome: Outcome, keep: str) -> str:
    """Load the weights to keep into the outcome's network; says which they are."""
    progress = outcome.progress
    if keep == "last" or progress.best_epoch is None or progress.best_epoch == progress.epoch:
        return "last epoch"
    outcome.model.load_state_dict(folder.tensors("best.safetensors"))
    return f"epoch {progress.best_epoch}, best on the held-out training {_samples(folder)}"


def finish(
    folder: RunDir,
    material: Material,
    outcome: Outcome,
    metrics: list[dict[str, Any]],
    undecodable: dict[str, list[str]],
    selected: str,
    emissions: Emissions,
    processes: int,
) -> None:
    """Write what makes a run complete, model.safetensors first and results.json last. undecodable: of `Material`."""
    progress = outcome.progress
    keep, other = ("last", "best") if selected == "last epoch" else ("best", "last")
    with replacing(folder.path / "model.safetensors") as temporary:
        shutil.copyfile(folder.path / f"{keep}.safetensors", temporary)
    write_json(folder.path / "env.json", describe_env(processes))
    training = {
        "epochs": progress.epoch,
        "steps": progress.step,
        "seconds": round(progress.seconds, 2),
        "selected": selected,
        "averaged": material.recipe.train.ema_decay is not None,
        **emissions.row(),
    }
    if start := noted_start(folder):
        training["start_sha256"] = start
    if trained := [*undecodable.get("train", ()), *undecodable.get("val", ())]:
        training["undecodable"] = trained
    data = material.about()
    if tested := undecodable.get("test"):
        data["undecodable_test"] = tested
    results = {
        "format": 1,
        "metrics": metrics,
        "training": training,
        "data": data,
        "regularizer": [{name: _finite(value) for name, value in site.items()} for site in outcome.regularizer],
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


def _samples(folder: RunDir) -> str:
    return "images" if folder.recipe().video is None else "clips"
