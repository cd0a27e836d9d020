"""Sorts finished runs into comparable groups, by a digest of protocol, data and budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..config import Recipe, to_dict
from ..rundir import RunDir
from .aggregate import Summary, recipe_id
from .report import summarise


@dataclass(frozen=True)
class Comparison:
    """Runs under one protocol, on the same data, with the same budget. runs: group id -> its runs, one a seed."""

    digest: str
    facts: tuple[tuple[str, str], ...]
    runs: Mapping[str, Sequence[RunDir]]
    summaries: Sequence[Summary]

    @property
    def labels(self) -> dict[str, str]:
        return {one.group.id: one.group.label for one in self.summaries if one.group.id in self.runs}


def comparisons(runs: Iterable[RunDir]) -> list[Comparison]:
    """Parts finished runs by a digest of protocol, data and budget; those of one digest may stand in one table."""
    by_digest: dict[str, list[tuple[RunDir, Recipe]]] = {}
    for run in runs:
        recipe = run.recipe()
        by_digest.setdefault(_digest(_protocol(recipe)), []).append((run, recipe))
    found = []
    for digest, members in by_digest.items():
        groups: dict[str, list[RunDir]] = {}
        for run, recipe in members:
            groups.setdefault(recipe_id(recipe), []).append(run)
        summaries = summarise([run.path for run, _ in members])
        found.append(Comparison(digest, _facts([recipe for _, recipe in members]), groups, summaries))
    return found


def _protocol(recipe: Recipe) -> dict[str, object]:
    """What two rows of one table have in common: the data, how they are measured, and how long they trained."""
    whole = to_dict(recipe)
    data = {name: value for name, value in whole["data"].items() if name not in ("root", "workers")}
    video = whole["video"] and {name: value for name, value in whole["video"].items() if name != "split"}
    evaluation = {name: value for name, value in whole["eval"].items() if name != "batch_size"}
    train = {name: whole["train"][name] for name in ("epochs", "batch_size", "max_steps")}
    return {"data": data, "video": video, "eval": evaluation, "evals": whole["evals"], "train": train}


def _digest(protocol: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:10]


def _facts(recipes: Sequence[Recipe]) -> tuple[tuple[str, str], ...]:
    """What a reader must know of a comparison, in words."""
    first = recipes[0]
    data, train = first.data, first.train
    size = f"{data.image_size} x {data.image_size}"
    steps = f", at most {train.max_steps} steps" if train.max_steps else ""
    seeds = sorted({recipe.train.seed for recipe in recipes})
    images = "all" if data.train_images is None else f"{data.train_images:,}"
    return (
        ("Data", f"{data.name}, {data.labels} labels"),
        ("Samples", f"{images} training samples, {data.val_fraction:.0%} held out, {size} pixels, crop {data.crop}"),
        ("Measured", f"on {first.eval.split} by {', '.join(one.tag or type(one).__name__ for one in first.evals)}"),
        ("Budget", f"{train.epochs} epochs of batches of {train.batch_size}{steps}"),
        ("Networks", ", ".join(sorted({recipe.model.name for recipe in recipes}))),
        ("Seeds", ", ".join(map(str, seeds))),
    )
