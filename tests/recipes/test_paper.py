"""The recipes of the paper's image tables, held against what torchvision's commands and the appendices say."""

from __future__ import annotations

import pytest
import timm

import vcreg_hub  # noqa: F401  registers resnet32_cifar
from vcreg_hub.config import Data, Optim, Train, VCReg
from vcreg_hub.recipes import load_recipe

SECOND = {
    "data": {"train_size": 176, "image_size": 224, "resize": 232, "augment": "ta_wide", "random_erase": 0.1,
             "repeats": 4, "interpolation": "bilinear", "hflip": 0.5, "scale": (0.08, 1.0)},
    "train": {"epochs": 600, "batch_size": 1024, "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0,
              "ema_decay": 0.99998, "ema_every": 32, "ema_rule": "torchvision", "clip_norm": None, "precision": "no"},
}  # fmt: skip
COSINE = {"schedule": "cosine", "schedule_per": "epoch", "min_lr": 0.0, "bias_weight_decay": None}
ADAMW = {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-8, **COSINE}
# Address, what the sources say, parameters of the network with its classes.
SHEET = {
    "imagenet:resnet50": (
        SECOND
        | {"optim": {"name": "momentum", "momentum": 0.9, "lr": 0.5, "weight_decay": 2e-5, "norm_weight_decay": 0.0,
                     "warmup_epochs": 5, "warmup_start": 0.01, **COSINE}},
        25_557_032,
    ),
    "imagenet:resnet50_v1": (
        {
            "data": {"train_size": None, "image_size": 224, "resize": 256, "augment": "none", "random_erase": 0.0,
                     "repeats": 1},
            "train": {"epochs": 90, "batch_size": 256, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0,
                      "ema_decay": None},
            "optim": {"name": "momentum", "momentum": 0.9, "lr": 0.1, "weight_decay": 1e-4, "norm_weight_decay": None,
                      "schedule": "step", "step_epochs": 30, "step_gamma": 0.1, "warmup_epochs": 0},
        },
        25_557_032,
    ),
    "imagenet:convnext_tiny": (
        SECOND
        | {"optim": {"lr": 1e-3, "weight_decay": 0.05, "norm_weight_decay": 0.0, "warmup_epochs": 5,
                     "warmup_start": 0.01, **ADAMW}},
        28_589_128,
    ),
    "imagenet:vit_base_patch32": (
        {
            "data": {"train_size": None, "image_size": 224, "resize": 256, "augment": "aa_imagenet",
                     "random_erase": 0.0, "repeats": 3},
            "train": {"epochs": 300, "batch_size": 4096, "label_smoothing": 0.11, "mixup": 0.2, "cutmix": 1.0,
                      "ema_decay": 0.99998, "clip_norm": 1.0, "precision": "fp16"},
            "optim": {"lr": 3e-3, "weight_decay": 0.3, "norm_weight_decay": None, "warmup_epochs": 30,
                      "warmup_start": 0.033, **ADAMW},
        },
        88_224_232,
    ),
    "imagenet:convnext_atto": (
        SECOND
        | {"train": SECOND["train"] | {"epochs": 90, "batch_size": 4096},
           "optim": {"lr": 0.016, "weight_decay": 0.05, "norm_weight_decay": 0.0, "warmup_epochs": 5, **ADAMW}},
        None,
    ),
    "imagenet:superclass": (
        {"data": SECOND["data"] | {"hierarchy": "living_9", "labels": "superclass"},
         "train": SECOND["train"] | {"epochs": 200, "batch_size": 4096}, "optim": {"lr": 0.016}},
        None,
    ),
    "cifar:superclass": (
        {"data": {"name": "cifar100", "labels": "superclass"}, "train": {"epochs": 200, "batch_size": 4096},
         "optim": {"lr": 0.016, "weight_decay": 0.05, "norm_weight_decay": 0.0, "warmup_epochs": 5, **ADAMW}},
        None,
    ),
    "cifar:long_tail": (
        {"data": {"name": "cifar10", "imbalance": 100, "train_images": None, "val_fraction": 0.0, "crop": "pad",
                  "hflip": 0.5},
         "train": {"epochs": 100, "batch_size": 256},
         "optim": {"lr": 0.016, "weight_decay": 0.05, "norm_weight_decay": 0.0, "warmup_epochs": 10, **ADAMW}},
        464_154,
    ),
}  # fmt: skip


@pytest.mark.parametrize("address", SHEET)
def test_a_recipe_is_the_published_one(address: str) -> None:
    recipe, (said, parameters) = load_recipe(address), SHEET[address]
    for part, values in said.items():
        found = getattr(recipe, part)
        assert {name: getattr(found, name) for name in values} == values
    assert recipe.vcreg is None and isinstance(recipe.data, Data)
    assert isinstance(recipe.optim, Optim) and isinstance(recipe.train, Train)
    if parameters is not None:
        model = timm.create_model(recipe.model.name, num_classes=1000 if "imagenet" in address else 10,
                                  **recipe.model.kwargs)  # fmt: skip
        assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("address", SHEET)
def test_with_vcreg_a_recipe_says_what_no_source_confirms(address: str) -> None:
    plain, recipe = load_recipe(address), load_recipe(f"{address}_vcreg")
    assert isinstance(recipe.vcreg, VCReg) and recipe.where == "blocks"
    assert {"vcreg.alpha", "vcreg.beta", "vcreg.delta", "vcreg.eps"} <= set(recipe.assumed)
    assert set(plain.assumed) <= set(recipe.assumed)
