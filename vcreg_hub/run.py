"""The walk: recipe -> data -> model -> attach -> fit -> evaluate -> run folder."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from .config import Recipe, differences, override, to_dict
from .env import describe_env
from .errors import ConfigError, UsageError, WeightsNotFoundError, unknown_name
from .evals import METRICS
from .rundir import RunDir, replacing, write_json
from .tracker import check_tracker, start_tracker

Say = Callable[[str], None]


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    bar: bool = False,
    say: Say = print,
    tracker: str | None = None,
) -> RunDir:
    """Train and evaluate one recipe; returns its run folder (without `out` a dated one below runs/).

    A folder that holds an unfinished run of the same recipe is resumed from its last whole epoch; one that holds the
    finished run is returned as it is. Under several processes (`accelerate launch`, `torchrun`) each calls this.

    Errors: UsageError when the folder holds another recipe's run and `overwrite` is false; DataError, ConfigError,
    DivergedError from the steps; nothing already saved is lost by any of them.
    """
    _check_names(recipe)
    check_tracker(tracker)
    accelerator = make_accelerator(recipe)
    folder = RunDir(out if out is not None else _agreed(default_folder(recipe)))
    say = say if accelerator.is_main_process else _silent
    _claim(folder, recipe, overwrite, accelerator)
    if folder.complete():
        folder.results()  # a damaged one must not pass for a finished run
        say(f"{folder.path} is complete already; --overwrite runs it again")
        return folder
    if tracker is not None:
        start_tracker(accelerator, tracker, folder.path, to_dict(recipe))
    say(f"processes: {accelerator.num_processes}, device: {accelerator.device}, precision: {recipe.train.precision}")
    images, model = build(recipe)
    attachment = _attach(recipe, model, images.in_chans)
    say(_describe(recipe, images, model, attachment))
    final, progress, regularizer = _fit(recipe, images, model, attachment, folder, accelerator, bar, say)
    selected = _select(folder, final, recipe.train.keep, progress)
    metrics = evaluate(recipe, images, final, accelerator, selected)
    if accelerator.is_main_process:
        _finish(folder, recipe, images, metrics, progress, selected, regularizer, accelerator.num_processes)
    accelerator.wait_for_everyone()
    if tracker is not None:
        accelerator.end_training()
    return folder


def load_run(path: str | Path) -> tuple[Recipe, Any, nn.Module]:
    """The recipe, images and plain trained network of a finished run. Errors: RunFolderError."""
    folder = RunDir(path)
    recipe = folder.recipe()
    tensors = folder.tensors()
    images, model = build(replace(recipe, model=replace(recipe.model, pretrained=False)))
    model.load_state_dict(tensors)
    return recipe, images, model


def evaluate_run(path: str | Path, settings: Sequence[str] = (), *, save: bool = False) -> list[dict[str, Any]]:
    """Evaluate a finished run's weights again, under its recipe with `settings` (`eval.*` and `data.*`) applied.

    save: put the rows into the run's results.json, in place of older rows of the same metric, data and split.
    Errors: UsageError for a setting that would change what was trained; RunFolderError.
    """
    folder = RunDir(path)
    trained = folder.recipe()
    recipe = override(trained, settings)
    _check_names(recipe)
    foreign = [name for name in differences(trained, recipe) if not name.startswith(("eval.", "data."))]
    if foreign:
        raise UsageError(f"an evaluation changes eval.* and data.* only, not {', '.join(foreign)}")
    _, images, model = load_run(path)
    if recipe.data != trained.data:
        from .data.images import load_images

        images = load_images(recipe.data)
    results = folder.results()
    rows = evaluate(recipe, images, model, make_accelerator(recipe), results["training"]["selected"])
    if save:
        keys = ("metric", "dataset", "dataset_config", "split")
        fresh = {tuple(row[key] for key in keys) for row in rows}
        kept = [row for row in results["metrics"] if tuple(row[key] for key in keys) not in fresh]
        write_json(folder.path / "results.json", results | {"metrics": kept + rows})
    return rows


def default_folder(recipe: Recipe) -> Path:
    """runs/<date>-<name>: the newest unfinished run of the same recipe there, else a new name."""
    started = sorted(Path("runs").glob(f"*-{recipe.name}*/recipe.json"), reverse=True)
    for found in started:
        folder = RunDir(found.parent)
        if not folder.complete() and folder.recipe() == recipe:
            return folder.path
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{recipe.name}"


def smoke_test(recipe: Recipe) -> Recipe:
    """The recipe cut down to two steps on synthetic images of its own shapes, for a CPU: everything is passed through
    once, and no number it gives means anything."""
    train = replace(
        recipe.train,
        epochs=1,
        max_steps=2,
        batch_size=4 * recipe.train.accumulation * int(os.environ.get("WORLD_SIZE", "1")),
        precision="no",
    )
    data = replace(recipe.data, name=f"synthetic:{recipe.data.name}", root=None, workers=0, train_images=None)
    return replace(
        recipe,
        name=f"{recipe.name}_smoke",
        model=replace(recipe.model, pretrained=False),
        data=data,
        train=train,
        optim=replace(recipe.optim, warmup_epochs=0),
        eval=replace(recipe.eval, batch_size=8),
    )


def build(recipe: Recipe) -> tuple[Any, nn.Module]:
    """Images and plain network of a recipe. Twins that differ only in `vcreg` start from the same weights."""
    from accelerate.utils import set_seed

    from .data.images import load_images
    from .models.factory import build_model

    images = load_images(recipe.data)
    set_seed(recipe.train.seed)
    try:
        model = build_model(
            recipe.model,
            num_classes=images.num_classes,
            in_chans=images.in_chans,
            image_size=recipe.data.image_size,
        )
    except OSError as error:  # what huggingface_hub raises offline, and torch on a failed download
        raise WeightsNotFoundError(
            f"the pretrained weights of {recipe.model.name} could not be had ({str(error).strip().splitlines()[0]}); "
            "give a folder or file with --set model.pretrained=PATH, or --set model.pretrained=false for a random start"
        ) from error
    if recipe.train.channels_last:
        import torch

        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return images, model


def evaluate(recipe: Recipe, images: Any, model: nn.Module, accelerator: Any, selected: str) -> list[dict[str, Any]]:
    """Every metric of the recipe's protocols, as rows of results.json. selected: which weights these are."""
    rows = []
    model = model.to(accelerator.device)
    for name in recipe.eval.protocols:
        labels, pairs = PROTOCOLS[name](recipe, images, model, accelerator)
        rows += [
            {
                "metric": metric,
                "value": round(float(value), 6),
                "unit": METRICS[metric].unit,
                "higher_is_better": METRICS[metric].higher_is_better,
                "dataset": recipe.data.name,
                "dataset_config": labels,
                "split": recipe.eval.split,
                "protocol": f"{METRICS[metric].meaning}; {selected}",
                "seed": recipe.train.seed,
            }
            for metric, value in pairs
        ]
    return rows


def _classification(
    recipe: Recipe, images: Any, model: nn.Module, accelerator: Any
) -> tuple[str, Iterator[tuple[str, float]]]:
    from .evals import classification

    batches = _batches(recipe, images, recipe.eval.split, accelerator)
    return recipe.data.labels, classification.evaluate(model, batches, accelerator, images.num_classes)


def _probe(recipe: Recipe, images: Any, model: nn.Module, accelerator: Any) -> tuple[str, Iterator[tuple[str, float]]]:
    from .data.images import load_images
    from .evals import probe
    from .evals.features import extract

    labels = recipe.eval.probe_labels
    # The same images under other labels: splits depend on the seed alone, never on the label set.
    probed = images if labels == recipe.data.labels else load_images(replace(recipe.data, labels=labels))
    fit_on = extract(model, _batches(recipe, probed, "train", accelerator), accelerator)
    test_on = extract(model, _batches(recipe, probed, recipe.eval.split, accelerator), accelerator)
    return labels, probe.evaluate(fit_on, test_on, recipe.eval.probe_lambda)


PROTOCOLS: dict[str, Callable[..., tuple[str, Iterator[tuple[str, float]]]]] = {
    "classification": _classification,
    "probe": _probe,
}


def make_accelerator(recipe: Recipe) -> Any:
    """accelerate's Accelerator for this recipe, checked against what the launcher promised.

    Errors: ConfigError for a precision the device lacks, a batch size that processes and accumulation do not divide,
    or processes that do not know of each other.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    train = recipe.train
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    if train.precision == "fp16" and not accelerated:
        raise ConfigError("train.precision=fp16 needs a GPU; here pass --set train.precision=bf16 or no")
    # A second run of this Python process may want another precision; the processes' own connection stays.
    AcceleratorState._reset_state()
    # Without cpu=True two processes that torchrun started on a CPU machine would train apart and never meet.
    accelerator = Accelerator(cpu=not accelerated, mixed_precision=train.precision)
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != promised:
        raise ConfigError(
            f"the launcher started {promised} processes but accelerate joined {accelerator.num_processes}; "
            "start with `accelerate launch` on GPUs, or `torchrun` on a CPU"
        )
    if str(accelerator.distributed_type).rpartition(".")[2] in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise ConfigError("sharded training (FSDP, DeepSpeed) is not supported: a run folder holds whole weights")
    shares = accelerator.num_processes * train.accumulation
    if train.batch_size % shares:
        raise ConfigError(
            f"train.batch_size={train.batch_size} is not divisible by {accelerator.num_processes} processes "
            f"x {train.accumulation} accumulation steps"
        )
    return accelerator


def _check_names(recipe: Recipe) -> None:
    """What is only needed at the end is looked up at the start: a typo must not cost a training."""
    from .train.tasks import TASKS

    for name in recipe.eval.protocols:
        if name not in PROTOCOLS:
            raise unknown_name("evaluation protocol", name, PROTOCOLS)
    if recipe.task not in TASKS:
        raise unknown_name("task", recipe.task, TASKS)


def _agreed(path: Path) -> Path:
    """The first process's path: each has its own clock."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([path])[0]


def _claim(folder: RunDir, recipe: Recipe, overwrite: bool, accelerator: Any) -> None:
    """Take the folder for this recipe; every process comes to the same answer before any of them writes.

    A folder that holds anything but a run is never taken, and replacing a run removes the run's own files alone.
    """
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


def _attach(recipe: Recipe, model: nn.Module, channels: int) -> Any:
    if recipe.vcreg is None:
        return None
    import torch

    from .hooks import attach

    size = recipe.data.image_size
    return attach(model, recipe.vcreg, recipe.where, example_input=torch.zeros(1, channels, size, size))


def _fit(
    recipe: Recipe,
    images: Any,
    model: nn.Module,
    attachment: Any,
    folder: RunDir,
    accelerator: Any,
    bar: bool,
    say: Say,
) -> tuple[nn.Module, Any, list[dict[str, Any]]]:
    """The trained network to evaluate, how far training went, and what the regularizer saw last at each site."""
    from .data.loader import train_loader
    from .evals import classification
    from .train.loop import fit
    from .train.tasks import build_task

    rank, world = accelerator.process_index, accelerator.num_processes
    batches = train_loader(images, recipe.data, recipe.train, rank=rank, world=world)
    held_out: Any = _batches(recipe, images, "val", accelerator) if len(images.val) else None

    def validate(network: nn.Module) -> dict[str, float]:
        return dict(classification.evaluate(network, held_out, accelerator, images.num_classes))

    def report(row: dict[str, Any]) -> None:
        say("  ".join(f"{name} {_short(value)}" for name, value in row.items()))
        if accelerator.trackers:
            accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=row["step"])

    if recipe.train.gradient_checkpointing:
        _checkpoint_gradients(model)
    final, progress = fit(
        recipe,
        model,
        build_task(recipe),
        batches,
        folder=folder,
        accelerator=accelerator,
        watch=attachment.watch if attachment is not None else _same,
        validate=validate if held_out is not None else None,
        observe=lambda: _regularizer_row(attachment),
        report=report,
        bar=bar and accelerator.is_main_process,
    )
    sites = [] if attachment is None else attachment.statistics()
    if attachment is not None:
        attachment.detach()
    return final, progress, sites


def _batches(recipe: Recipe, images: Any, split: str, accelerator: Any) -> Any:
    """A split under the test view, each process's share of it."""
    from .data.loader import test_loader

    return accelerator.prepare(test_loader(images, recipe.data, split, recipe.eval.batch_size))


def _select(folder: RunDir, final: nn.Module, keep: str, progress: Any) -> str:
    """Load the weights to keep into `final`; says which they are."""
    if keep == "last" or progress.best_epoch is None or progress.best_epoch == progress.epoch:
        return "last epoch"
    final.load_state_dict(folder.tensors("best.safetensors"))
    return f"epoch {progress.best_epoch}, best on the held-out training images"


def _finish(
    folder: RunDir,
    recipe: Recipe,
    images: Any,
    metrics: list[dict[str, Any]],
    progress: Any,
    selected: str,
    regularizer: list[dict[str, Any]],
    processes: int,
) -> None:
    """Write what makes a run complete, model.safetensors first and results.json last."""
    keep, other = ("last", "best") if selected == "last epoch" else ("best", "last")
    with replacing(folder.path / "model.safetensors") as temporary:
        shutil.copyfile(folder.path / f"{keep}.safetensors", temporary)
    write_json(folder.path / "env.json", describe_env(processes))
    training = {
        "epochs": progress.epoch,
        "steps": progress.step,
        "seconds": round(progress.seconds, 2),
        "selected": selected,
        "averaged": recipe.train.ema_decay is not None,
    }
    results = {
        "format": 1,
        "metrics": metrics,
        "training": training,
        "data": describe_data(recipe, images),
        "regularizer": regularizer,
    }
    write_json(folder.path / "results.json", results)
    (folder.path / f"{keep}.safetensors").unlink()
    if other == "best" and progress.best_epoch == progress.epoch:
        (folder.path / "best.safetensors").unlink(missing_ok=True)
    shutil.rmtree(folder.path / "state", ignore_errors=True)


def describe_data(recipe: Recipe, images: Any) -> dict[str, Any]:
    """What a publisher must know of the data: sizes, classes and the preprocessing of the test view."""
    data = recipe.data
    return {
        "name": data.name,
        "labels": data.labels,
        "train": len(images.train),
        "val": len(images.val),
        "test": len(images.test),
        "classes": list(images.class_names),
        "in_chans": images.in_chans,
        "mean": list(data.mean or images.mean),
        "std": list(data.std or images.std),
        "image_size": data.image_size,
        "resize": data.resize,
        "interpolation": data.interpolation,
    }


def _regularizer_row(attachment: Any) -> dict[str, float]:
    """Means over the sites of the last step's statistics, for an epoch's row."""
    if attachment is None:
        return {}
    sites = [site for site in attachment.statistics() if site["backwards"]]
    names = [name for name, value in sites[0].items() if isinstance(value, float)] if sites else []
    return {f"vcreg_{name}": round(sum(site[name] for site in sites) / len(sites), 6) for name in names}


def _checkpoint_gradients(model: nn.Module) -> None:
    timm_s, transformers_s = (
        getattr(model, n, None) for n in ("set_grad_checkpointing", "gradient_checkpointing_enable")
    )
    if callable(timm_s):
        timm_s(True)
    elif callable(transformers_s):
        transformers_s(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise ConfigError(
            f"train.gradient_checkpointing: {type(model).__name__} offers none; timm and transformers models do"
        )


def _describe(recipe: Recipe, images: Any, model: nn.Module, attachment: Any) -> str:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    regularizer = "plain" if attachment is None else f"VCReg at {len(attachment.sites)} sites ({recipe.where})"
    return (
        f"{recipe.name}: {recipe.model.name}, {parameters:.2f}M parameters, {regularizer}; "
        f"{recipe.data.name}/{recipe.data.labels}: {len(images.train)} train, {len(images.val)} val, "
        f"{len(images.test)} test, {images.num_classes} classes"
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _same(loss: Any) -> Any:
    return loss


def _silent(_text: str) -> None:
    """Other processes say nothing."""
