"""Goes the way of a training up to its first step, and describes it. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from ..config import Recipe, VCReg
from ..config.tagged import tag_of
from ..data.module import DataModule
from ..errors import counted, some
from ..regularizer.attachment import Attachment, attach
from ..training.schedule import fitted_batch, lr_at, peak_lr, warmup_of
from .accelerator import make_accelerator
from .build import build, example_input, with_view_of_weights
from .evaluate import evaluation_context

# A run of fewer optimizer steps than this is told of.
_FEW_STEPS = 100
# How many of the sites are listed.
_SITES = 12


def preview(recipe: Recipe) -> dict[str, str]:
    """Describes a training of the recipe on this machine: a name and a text for each part of it.

    The data are read, the network is built and the regularizer attached, as `train` does. Errors: those of `train`
    before its first step.
    """
    recipe.check()
    accelerator = make_accelerator(recipe)
    notes: list[str] = []
    recipe = with_view_of_weights(recipe, notes.append)
    data, network = build(recipe, notes.append)
    recipe = fitted_to(recipe, data, accelerator.num_processes, notes.append)
    context = evaluation_context(recipe, data, network, accelerator)
    attachment = attached(recipe, network, data)
    batches = data.train_batches(recipe.train, accelerator.process_index, accelerator.num_processes, recipe.task.views)
    each = len(batches) // recipe.train.accumulation
    return {
        "recipe": headline(recipe, data, network, attachment),
        "device": f"{accelerator.num_processes} x {accelerator.device}, precision {recipe.train.precision}",
        "steps": _steps(recipe, each),
        "learning rate": _rates(recipe, each),
        "evaluations": ", ".join(f"{tag_of(one)} on {context.data(one)}" for one in recipe.evals) or "none",
        "regularizer": _sites(attachment),
        "weights kept": f"of the {recipe.train.keep} epoch",
        **({"notes": "\n".join(notes)} if notes else {}),
    }


def fitted_to(recipe: Recipe, data: DataModule, processes: int, log: Callable[[str], None]) -> Recipe:
    """The recipe with a batch that leaves steps enough for its data; says what is short."""
    train, samples = recipe.train, data.size("train")
    size = fitted_batch(train, samples, processes * train.accumulation)
    steps = samples // size * train.epochs
    if size != train.batch_size:
        log(f"batch: {size} {data.noun} a step, not {train.batch_size}: {counted(steps, 'step')} in all")
    if 0 < steps < _FEW_STEPS and train.max_steps is None:
        epochs = -(-_FEW_STEPS // (samples // size))
        log(
            f"warning: {counted(steps, 'step')} in all ({samples} {data.noun}, {size} a step, {train.epochs} epochs), "
            f"which is little to learn from: --set train.epochs={epochs} gives {_FEW_STEPS}"
        )
    if (warmup := warmup_of(recipe.optim, train.epochs)) < recipe.optim.warmup_epochs:
        log(f"warmup: {warmup:g} of {train.epochs} epochs, not {recipe.optim.warmup_epochs}")
    return replace(recipe, train=replace(train, batch_size=size))


def attached(recipe: Recipe, network: nn.Module, data: DataModule) -> Attachment | None:
    """The attachment of the recipe's regularizer, None for a baseline."""
    if recipe.vcreg is None:
        return None
    return attach(network, recipe.vcreg, recipe.where, example_input=example_input(data))  # type: ignore[arg-type]


def headline(recipe: Recipe, data: DataModule, network: nn.Module, attachment: Attachment | None) -> str:
    """Recipe, network, regularizer and data in one line."""
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    sites = 0 if attachment is None else len(attachment.sites)
    kind = "VCReg" if isinstance(recipe.vcreg, VCReg) else recipe.vcreg and tag_of(recipe.vcreg)
    regularizer = f"{kind} at {sites} site{'s' * (sites != 1)} ({recipe.where})" if sites else "plain"
    return (
        f"{recipe.name}: {recipe.model.name}, {parameters:.2f}M parameters, {regularizer}; "
        f"{data}: {data.size('train')} train, {data.size('val')} val, {data.size('test')} test, "
        f"{data.num_classes} classes"
    )


def _steps(recipe: Recipe, each: int) -> str:
    train = recipe.train
    total = min(train.epochs * each, train.max_steps or train.epochs * each)
    parts = f", {train.accumulation} micro-batches a step" if train.accumulation > 1 else ""
    return f"{total:,}: {train.epochs} epochs x {each:,} steps of {train.batch_size} samples{parts}"


def _rates(recipe: Recipe, each: int) -> str:
    """The rate at the first step, at its peak, and at the last step."""
    epochs, peak = recipe.train.epochs, peak_lr(recipe.optim, recipe.train.batch_size)
    if not epochs:
        return "none is used"
    first, last = (lr_at(recipe.optim, step, each, epochs, peak) for step in (0, epochs * each - 1))
    return f"{first:.3g} at first, {peak:.3g} at its peak, {last:.3g} at last ({recipe.optim.schedule})"


def _sites(attachment: Attachment | None) -> str:
    if attachment is None:
        return "none"
    return some([site.name or "the model" for site in attachment.sites], most=_SITES)
