"""Writes a run folder as a folder for plain timm or plain transformers: the unit of publishing.

    config.json           timm's (stock architecture, preprocessing, class names, licence) or transformers' own
    model.safetensors     the plain network's state dict
    (video_)preprocessor_config.json   for a transformers network
    recipe.json results.json env.json and the plots, as the run has them, without this machine's paths; results.json
                          also holds the SHA-256 of the others, the plots aside, the network's size, and what
                          the card draws of metrics.csv

The card is written into that folder afterwards, by `card.write_card`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

from ..checkpoints.checksums import EXPORTED
from ..checkpoints.find import refuse_only_pickles
from ..config import to_dict
from ..errors import RunFolderError, UsageError
from ..files import JSON, replacing_folder, sha256, write_json
from ..models.build import library_of, load_network
from ..models.checkpoint import run_network, run_view
from ..models.libraries.library import Preprocessing
from ..models.outputs import logits
from ..rundir import RunDir
from .licence import known_licence
from .pictures import recorded
from .privacy import private_fields, without_paths, write_pixels

# Every name that an export folder can have.
_EXPORTED = re.compile(
    r"README\.md|SHA256SUMS|\.eval_results|(config|recipe|results|env|seeds|(video_)?preprocessor_config)\.json"
    r"|model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|[^/]+\.png"
)


def write_export(
    run: str | Path, to: str | Path, *, licence: str, weights: str = "model", overwrite: bool = False
) -> Path:
    """Write the folder `to` for the finished run in the folder `run`; returns `to`.

    The folder is complete under another name before it takes its place, and it has been loaded back by the library
    that its users will load it with: the logits of a fixed input are those of the run's network, bit for bit (those of
    a converted torchvision network up to float32 rounding).

    licence: of the weights, an identifier of the Hub's list; there is no default. weights: which file of the run:
    `model`, or `last` / `best` where it kept those (its results speak of `model`, so they come without metrics then).
    A torchvision network becomes the timm network that computes the same, where there is one; else its own tensors are
    exported with a config.json that says how to load them. overwrite: replace a folder that is there.

    Errors: RunFolderError for a file that is missing, broken or does not fit the recipe; UsageError for a licence the
    Hub does not know, a `to` that is not empty, or a name of this machine or login, or a path, in what would be copied.
    """
    licence = known_licence(licence)
    source, to = RunDir(run), Path(to)
    file = source.path / f"{weights}.safetensors"
    if not file.is_file():
        refuse_only_pickles(source.path)
    _check_target(to, overwrite)
    recipe, results, env = source.recipe(), source.results(), source.env()
    view = run_view(recipe, results)
    if not file.is_file():
        there = sorted(path.stem for path in source.path.glob("*.safetensors"))
        raise RunFolderError(f"{source.path} has no {file.name}; it has {', '.join(there) or 'no weights'}")
    if weights != "model":
        results = {**results, "metrics": [], "training": {**results.get("training", {}), "selected": weights}}
    model = run_network(recipe.model, view, file)
    with replacing_folder(to) as folder:
        written = library_of(recipe.model.name).save(folder, model, recipe.model, view, licence)
        refuse_other_logits(load_network(folder), written, view)
        write_json(folder / "recipe.json", without_paths(to_dict(recipe)))
        write_json(folder / "env.json", env)
        # What is published or loaded later can then be compared with what was loaded back here.
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        told = {**results, "network": network_size(written, view), **recorded(source.epochs())}
        write_json(folder / "results.json", {**told, EXPORTED: hashes})
        for plot in source.path.glob("*.png"):
            write_pixels(plot, folder / plot.name)
        _refuse_private(folder)
    return to


def _refuse_private(folder: Path) -> None:
    """UsageError that names the file and field, when a JSON file of the folder gives this machine or login away."""
    for path in sorted(folder.glob("*.json")):
        found = [f"{field}: {what}" for field, what in private_fields(json.loads(path.read_text(encoding="utf-8")))]
        if found:
            raise UsageError(f"{path.name} would publish {'; '.join(found[:5])}. Change it in the run folder first")


@torch.no_grad()
def refuse_other_logits(loaded: nn.Module, model: nn.Module, view: Preprocessing) -> None:
    """RunFolderError unless the exported network computes what `model` does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *_sample_shape(model, view), generator=generator)
    expected, found = logits(model.eval()(x)), logits(loaded(x))
    if expected.shape != found.shape or not torch.equal(expected, found):
        raise RunFolderError(
            "the exported folder does not give the network's logits when it is loaded back "
            f"({tuple(found.shape)}, expected {tuple(expected.shape)}); nothing was exported"
        )


@torch.no_grad()
def network_size(model: nn.Module, view: Preprocessing) -> JSON:
    """What results.json says of a network: "parameters" without buffers; "macs", the multiply-adds of one sample's
    forward pass in convolutions, matrix products and attention; "input", the shape of a sample."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = _sample_shape(model, view)
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2, "input": list(shape)}


def _sample_shape(model: nn.Module, view: Preprocessing) -> tuple[int, ...]:
    """(channels, size, size) of an image; frames first of a clip."""
    frames = getattr(getattr(model, "config", None), "num_frames", None)
    return (*(() if frames is None else (frames,)), view.in_chans, view.image_size, view.image_size)


def _check_target(to: Path, overwrite: bool) -> None:
    """Only an export is ever replaced: a folder that holds anything else belongs to somebody."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"{to} exists already: give another folder, or overwrite it (--overwrite)")
    foreign = [to.name] if not to.is_dir() else sorted(p.name for p in to.iterdir() if not _EXPORTED.fullmatch(p.name))
    if foreign or not (to / "config.json").is_file():
        named = ", ".join(foreign[:5]) or "no config.json"
        raise UsageError(f"{to} is not an export ({named}) and is left as it is: give another folder")
