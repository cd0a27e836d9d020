"""Run folders and export folders made by hand, small enough to make anew in every test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.rundir import RunDir

CLASSES = ["shirt", "shoe", "bag"]


def recipe(seed: int = 0, vcreg: VCReg | None = VCReg(alpha=0.32, beta=0.04), **changes: Any) -> Recipe:  # noqa: B008
    """A recipe of a very small timm network on small images."""
    made = Recipe(
        name="fashion_mnist_test_resnet" + ("_vcreg" if vcreg else ""),
        model=Model("test_resnet"),
        data=Data("fashion_mnist", image_size=32),
        train=Train(epochs=2, batch_size=16, seed=seed),
        vcreg=vcreg,
    )
    return replace(made, **changes)


def row(value: Any = 81.25, **changes: Any) -> dict[str, Any]:
    return {
        "metric": "top1",
        "value": value,
        "unit": "%",
        "higher_is_better": True,
        "dataset": "fashion_mnist",
        "dataset_config": "class",
        "split": "test",
        "protocol": "last-epoch weights, single view",
        "seed": 0,
        **changes,
    }


def results(*rows: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "metrics": list(rows) or [row()],
        "training": {"epochs": 2, "steps": 12, "seconds": 3.5, "selected": "last", **training},
        "data": {
            "name": "fashion_mnist",
            "train": 100,
            "val": 10,
            "test": 50,
            "classes": CLASSES,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "image_size": 32,
            "in_chans": 3,
        },
    }


def env(**changes: Any) -> dict[str, Any]:
    return {
        "python": "3.11.7",
        "packages": {"torch": "2.15.0", "timm": "1.0.31"},
        "device": "CPU (a small one)",
        "processes": 1,
        "cpu_count": 2,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "date": "2026-01-02T03:04:05+00:00",
        **changes,
    }


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    vcreg: VCReg | None = VCReg(alpha=0.32, beta=0.04),  # noqa: B008
    values: dict[str, Any] | None = None,
    where_it_ran: dict[str, Any] | None = None,
    weights: bool = True,
    **changes: Any,
) -> Path:
    """A finished run folder; its weights are one small tensor."""
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.write_recipe(recipe(seed, vcreg, **changes))
    write_json(folder / "results.json", values if values is not None else results(row(seed=seed)))
    write_json(folder / "env.json", where_it_ran if where_it_ran is not None else env())
    if weights:
        write_tensors(folder / "model.safetensors", {"weight": torch.full((2, 3), float(seed))})
    return folder


def make_export(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A folder as `export` leaves it, with its card: config.json is timm's, the weights are one small tensor."""
    from vcreg_hub.hub.card import write_card

    make_run(folder, seed=seed, **changes)
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {"license": "apache-2.0"}}
    write_json(folder / "config.json", config)
    write_card(folder, licence="apache-2.0")
    return folder


def make_loadable(folder: Path, name: str = "test_resnet", *, seed: int = 0, repo_id: str | None = None) -> Path:
    """A folder that its library really loads: `export` of a run of an untrained network, with its card."""
    from vcreg_hub.config import Video
    from vcreg_hub.hub.card import write_card
    from vcreg_hub.hub.export import write_export
    from vcreg_hub.models.build import build_model
    from vcreg_hub.models.video_networks import NETWORKS

    torch.manual_seed(seed)
    video = Video(frames=8) if name in NETWORKS else None
    run = make_run(folder.with_name(folder.name + "-run"), seed=seed, weights=False, model=Model(name), video=video)
    model = build_model(Model(name), num_classes=len(CLASSES), in_chans=3, image_size=32)
    write_tensors(run / "model.safetensors", model.state_dict())
    write_export(run, folder, licence="apache-2.0")
    write_card(folder, licence="apache-2.0", repo_id=repo_id)
    return folder
