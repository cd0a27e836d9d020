"""The training of a run: the loop of `train.loop`, with the regularizer attached and the run's own reporting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..rundir import RunDir
from .material import Material
from .outcome import Outcome

Say = Callable[[str], None]


def attach_regularizer(material: Material, model: nn.Module) -> Any:
    """The attachment of the recipe's regularizer, None for a plain twin."""
    recipe = material.recipe
    if recipe.vcreg is None:
        return None
    from ..regularizer.attachment import attach

    return attach(model, recipe.vcreg, recipe.where, example_input=material.example_input())


def train_model(
    material: Material, model: nn.Module, attachment: Any, folder: RunDir, accelerator: Any, bar: bool, say: Say
) -> Outcome:
    """Train `model` in place, or go on where `folder` stopped; the regularizer is taken off afterwards."""
    from ..evals import classification
    from ..training.loop import fit
    from ..training.tasks import build_task

    recipe, sets = material.recipe, material.sets
    batches = material.train_batches(accelerator.process_index, accelerator.num_processes)
    held_out: Any = material.batches("val", accelerator) if len(sets.val) else None

    def validate(network: nn.Module) -> dict[str, float]:
        return dict(classification.evaluate(network, held_out, accelerator, sets.num_classes))

    def report(row: dict[str, Any]) -> None:
        say("  ".join(f"{name} {_short(value)}" for name, value in row.items()))
        if accelerator.trackers:
            accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=row["step"])

    def check() -> None:
        refuse_failed_clips(material, accelerator)

    if recipe.train.gradient_checkpointing:
        checkpoint_gradients(model)
    try:
        final, progress = fit(
            recipe,
            model,
            build_task(recipe),
            batches,
            folder=folder,
            accelerator=accelerator,
            watch=attachment.watch if attachment is not None else _same,
            validate=validate if held_out is not None else None,
            check=check,
            observe=lambda: _regularizer_row(attachment),
            report=report,
            bar=bar and accelerator.is_main_process,
        )
    finally:
        if recipe.train.compile:
            # torch keeps compiled code by class: the next network of this one would run it, with or without hooks.
            torch.compiler.reset()
    sites = [] if attachment is None else attachment.statistics()
    if attachment is not None:
        attachment.detach()
    return Outcome(final, progress, sites)


def refuse_failed_clips(material: Material, accelerator: Any) -> None:
    """Errors: UnreadableVideoError, on every process alike, when more clips than `video.max_failed` could not be read
    for training and validation by all processes together."""
    video = material.recipe.video
    if video is None:
        return
    from ..data.video.decode import UnreadableVideoError

    lost = material.undecodable(accelerator)
    paths = [*lost.get("train", ()), *lost.get("val", ())]
    if len(paths) > video.max_failed:
        raise UnreadableVideoError(
            f"{len(paths)} clips failed to decode, video.max_failed is {video.max_failed}: {', '.join(paths[:5])}"
            + (" ..." if len(paths) > 5 else "")
        )


def checkpoint_gradients(model: nn.Module) -> None:
    """Recompute activations in the backward pass. Errors: ConfigError for a model that offers no such thing."""
    timm_s = getattr(model, "set_grad_checkpointing", None)
    # transformers 5.23 has renamed its own, and warns of the old name.
    renamed = getattr(model, "activation_checkpointing_enable", None)
    transformers_s = getattr(model, "gradient_checkpointing_enable", None)
    if callable(timm_s):
        timm_s(True)
    elif callable(renamed):
        renamed(activation_checkpointing_kwargs={"use_reentrant": False})
    elif callable(transformers_s):
        transformers_s(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise ConfigError(
            f"train.gradient_checkpointing: {type(model).__name__} offers none; timm and transformers models do"
        )


def _regularizer_row(attachment: Any) -> dict[str, float]:
    """Means over the sites of the last step's statistics, for an epoch's row. A site that saw fewer than two rows has
    none, and is left out."""
    if attachment is None:
        return {}
    found: dict[str, list[float]] = {}
    for site in attachment.statistics():
        for name, value in site.items():
            if isinstance(value, float):
                found.setdefault(name, []).append(value)
    return {f"vcreg_{name}": round(sum(values) / len(values), 6) for name, values in found.items()}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _same(loss: Any) -> Any:
    return loss
