"""Exports a network of another program: its weights, and a card of known and unknown facts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints.checksums import EXPORTED
from ..config import Model, to_dict
from ..env import describe_env
from ..errors import UsageError
from ..files import replacing_folder, scratch_folder, sha256, write_json, write_text
from ..models.build import library_of, load_network, load_snippets, loader_of, read_config
from ..models.checkpoint import load_checkpoint, run_network, run_view
from ..models.libraries.library import Preprocessing, SnippetSource
from ..models.outputs import logits
from ..placement.dry_run import unwrap
from ..releases import CARD, MODULE, WEIGHTS
from ..rundir import RunDir
from .bundle import SCRATCH
from .card_sections import vcreg_table
from .export import network_size, refuse_other_logits
from .licence import check_licence
from .markdown import one_line, prose


def export_module(
    network: nn.Module,
    to: str | Path,
    repo_id: str | None,
    *,
    licence: str | None,
    licence_name: str | None = None,
    licence_link: str | None = None,
    architecture: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    stated: Mapping[str, str] | None = None,
) -> Path:
    """Write the folder `to` for a network of timm, transformers or torchvision; returns `to`. `network` stays as it is.

    The folder is loaded back by its library, and gives the network's logits bit for bit. Its card says what can be read
    off the network, repeats what `stated` says ("data": "Food-101") as its publisher's words, and names what nobody
    recorded: data, recipe, seeds, results.
    repo_id: None for a folder that is not published yet. architecture: a recipe's model name; None for what timm's or
    transformers' networks say themselves. kwargs: what it was built with; None for what timm notes. classes: names in
    the order of the logits. preprocessing: in place of the network's own.
    Errors: UsageError for no licence, an architecture that is not known, other class names than logits, or a `to` that
    is not empty; RunFolderError where what is loaded back computes something else.
    """
    licence = check_licence(licence, licence_name, licence_link)
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} exists already: give another folder")
    attachment = getattr(unwrap(network), "vcreg", None)
    model: Any = copy.deepcopy(unwrap(network)).cpu()
    if getattr(model, "vcreg", None) is not None:
        model.vcreg.detach()
    checkpoint = load_checkpoint(model, preprocessing)
    view = checkpoint.view
    name = architecture or _architecture(model)
    count = logits(model(_example(view))).shape[1]
    names = list(classes or view.classes or map(str, range(count)))
    if len(names) != count:
        raise UsageError(f"{len(names)} class names were given, but the network has {count} logits")
    view = replace(view, classes=names)
    cfg = Model(name, kwargs=_arguments(model) if kwargs is None else dict(kwargs))
    with replacing_folder(to) as folder:
        written = library_of(name).save(folder, model, cfg, view, licence)
        refuse_other_logits(load_network(folder), written, view)
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        about = {key: value for key, value in asdict(view).items() if value is not None}
        results = {"format": 1, "origin": MODULE, "metrics": [], "training": {}, "data": about, EXPORTED: hashes}
        write_json(folder / "results.json", results)
        how = "as its publisher gave it" if preprocessing else "as the network's configuration states"
        how = "assumed: the network does not say" if checkpoint.assumed else how
        named = {"licence": licence, "licence_name": licence_name, "licence_link": licence_link}
        write_text(folder / CARD, _card(folder, repo_id, model, name, view, how, attachment, dict(stated or {}), named))
    return to


def export_imported(run: str | Path, to: str | Path, repo_id: str | None, **licence: str | None) -> Path:
    """`export_module` for a run folder of `vcreg import`: what is stated of it is the file that it was made from."""
    folder = RunDir(run)
    recipe, results = folder.recipe(), folder.results()
    view = run_view(recipe, results)
    network = run_network(recipe.model, view, folder.path / WEIGHTS)
    about = results.get("training", {}).get("imported", {})
    words = (f"{key} {value}" for key, value in about.items() if key not in ("file", "left_out"))
    stated = {"weights": f"of the file {about.get('file')} ({', '.join(words)})"}
    told: Any = licence
    return export_module(
        network, to, repo_id, architecture=recipe.model.name, kwargs=recipe.model.kwargs, classes=view.classes,
        preprocessing=view, stated=stated, **told,
    )  # fmt: skip


def imported_card(run: str | Path, repo_id: str | None, **licence: str | None) -> str:
    """The card that `export_imported` writes."""
    with scratch_folder(SCRATCH) as scratch:
        return (export_imported(run, scratch / "export", repo_id, **licence) / CARD).read_text(encoding="utf-8")


def _architecture(model: Any) -> str:
    """The network's name in a recipe. Errors: UsageError where its library does not say."""
    stated = getattr(model, "pretrained_cfg", None)
    if isinstance(stated, dict) and stated.get("architecture"):
        return str(stated["architecture"])
    if hasattr(model, "config") and hasattr(model.config, "model_type"):
        return f"hf:{model.config.model_type}"
    raise UsageError(
        f"a {type(model).__name__} does not say which architecture it is, so nobody could load its weights: give "
        "architecture='torchvision:<name>', or build it with timm or transformers"
    )


def _arguments(model: Any) -> dict[str, Any]:
    """The arguments that timm built the network with, as far as it notes them."""
    noted = getattr(model, "_model_args", None)
    decided = ("num_classes", "in_chans", "img_size", "vcreg", "where", "pretrained_cfg", "pretrained_cfg_overlay")
    return {key: value for key, value in dict(noted or {}).items() if key not in decided}


def _example(view: Preprocessing) -> Any:
    import torch

    clip = () if view.frames is None else (view.frames,)
    return torch.zeros(1, *clip, view.in_chans, view.image_size, view.image_size)


def _card(
    folder: Path,
    repo_id: str | None,
    model: nn.Module,
    name: str,
    view: Preprocessing,
    how: str,
    attachment: Any,
    stated: dict[str, str],
    licence: dict[str, str | None],
) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    config, title = read_config(folder), (repo_id or name).rpartition("/")[2]
    loader = loader_of(config, name, video=view.frames is not None)
    processor = any(folder.glob("*preprocessor_config.json"))
    snippet, *others = load_snippets(
        SnippetSource(title, repo_id, loader, processor, False, view.in_chans, view.image_size)
    ).items()
    size = network_size(model, view)
    task = f"{'video' if loader.video else 'image'}-classification"
    extra: dict[str, Any] = {
        f"license_{part}": licence[f"licence_{part}"] for part in ("name", "link") if licence["licence"] == "other"
    }
    data = ModelCardData(
        license=licence["licence"],
        library_name="pytorch" if loader.library == "torchvision" else loader.library,
        pipeline_tag=task,
        tags=[*(["vcreg", "arxiv:2306.13292"] if attachment is not None else []), task, loader.library],
        **extra,
    )
    packages = describe_env(1).get("packages") or {}
    context: dict[str, Any] = {
        "title": prose(title),
        "architecture": prose(loader.architecture),
        "task": task.replace("-", " "),
        "values": f"{size['parameters']:,} parameters, {size['macs'] / 1e9:.4g} GMACs for one sample",
        "snippet": snippet[1],
        "snippets": others,
        "source": prose(f"hf-hub:{repo_id}") if repo_id else "local-dir:.",
        "sha256": sha256(folder / WEIGHTS),
        "view": f"{_view(view)} ({how})",
        "classes": ", ".join(map(prose, view.classes)) if len(view.classes) <= 200 else "",
        "class_count": len(view.classes),
        "vcreg": None if attachment is None else vcreg_table(_settings(attachment), f"{len(attachment.sites)} places"),
        "sites": [] if attachment is None else [one_line(site.name) for site in attachment.sites],
        "stated": {prose(key): prose(value) for key, value in stated.items()},
        "packages": ", ".join(f"{prose(key)} {prose(value)}" for key, value in packages.items()),
    }
    template = resources.files(__package__).joinpath("module_card.md.j2").read_text(encoding="utf-8")
    return str(ModelCard.from_template(data, template_str=template, **context))


def _settings(attachment: Any) -> dict[str, Any]:
    return json.loads(json.dumps(to_dict(attachment.cfg)))


def _view(view: Preprocessing) -> str:
    how = "both sides" if view.fit == "squash" else "short side"
    clip = "" if view.frames is None else f"{view.frames} frames of "
    return (
        f"{clip}{view.in_chans} x {view.image_size} x {view.image_size} pixels: {how} to {view.resize} "
        f"({view.interpolation}), centre crop, mean {view.mean}, standard deviation {view.std}"
    )
