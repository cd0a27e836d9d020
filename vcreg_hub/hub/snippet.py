"""The few lines on a card that load its weights. A test runs them as they are printed."""

from __future__ import annotations

from typing import Any


def load_snippet(record: dict[str, Any]) -> str:
    """Python that loads the weights of `record` and computes logits, from its repo or from the card's own folder."""
    if record["library"] == "transformers":
        return _transformers(record)
    return _torchvision(record) if record["library"] == "torchvision" else _timm(record)


def transformers_snippet(record: dict[str, Any]) -> str | None:
    """The same weights through transformers' wrapper of timm, for a stock timm architecture; else None."""
    if record["library"] != "timm" or record.get("packaged"):
        return None
    return "\n".join(
        [
            "from transformers import AutoModelForImageClassification",
            "",
            f"model = AutoModelForImageClassification.from_pretrained({_quoted(record['repo_id'] or '.')}).eval()",
        ]
    )


def _timm(record: dict[str, Any]) -> str:
    source = f"hf-hub:{record['repo_id']}" if record["repo_id"] else "local-dir:."
    own = ["import vcreg_hub  # this architecture is not timm's: the import registers it"]
    if record.get("packaged"):
        source, own = record["name"], ["import vcreg_hub  # registers its names with timm, and holds these weights"]
    return "\n".join(
        [
            "import timm",
            "import torch",
            *(own if record["library"] == "vcreg_hub" or record.get("packaged") else []),
            "",
            f"model = timm.create_model({_quoted(source)}, pretrained=True).eval()",
            "config = timm.data.resolve_model_data_config(model)",
            "transform = timm.data.create_transform(**config, is_training=False)",
            'images = torch.rand(1, *config["input_size"])  # or transform(a PIL image).unsqueeze(0)',
            "with torch.no_grad():",
            "    logits = model(images)  # (1, classes)",
        ]
    )


def _torchvision(record: dict[str, Any]) -> str:
    if record["repo_id"]:
        find = [f"folder = snapshot_download({_quoted(record['repo_id'])})"]
    else:
        find = ['folder = "."']
    channels = int(record["results"]["data"].get("in_chans") or 3)
    # torchvision's constructors know three channels only.
    refit = [
        "name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))",
        f"sizes = ({channels}, first.out_channels, first.kernel_size, first.stride, first.padding)",
        "model.set_submodule(name, torch.nn.Conv2d(*sizes, bias=first.bias is not None))",
    ]
    return "\n".join(
        [
            "import json",
            "from pathlib import Path",
            "",
            "import torch",
            "import torchvision",
            *(["from huggingface_hub import snapshot_download"] if record["repo_id"] else []),
            "from safetensors.torch import load_file",
            "",
            *find,
            'config = json.loads(Path(folder, "config.json").read_text())',
            'model = torchvision.models.get_model(config["architecture"], **config["model_args"]).eval()',
            *(refit if channels != 3 else []),
            'model.load_state_dict(load_file(Path(folder, "model.safetensors")))',
            'size = config["preprocessing"]["image_size"]',
            "with torch.no_grad():",
            f"    logits = model(torch.rand(1, {channels}, size, size))  # (1, classes)",
        ]
    )


def _transformers(record: dict[str, Any]) -> str:
    video = record["task"] == "video-classification"
    kind = record["loader"]
    processor = "AutoVideoProcessor" if video else "AutoImageProcessor"
    names = sorted([processor, kind] if record["processor"] else [kind])
    lines = ["import torch", f"from transformers import {', '.join(names)}"]
    if record.get("packaged"):
        source = "folder"
        lines += ["from vcreg_hub.checkpoints.find import find_weights", ""]
        lines += [f"folder = find_weights({_quoted(record['name'])}).folder"]
    else:
        source = _quoted(record["repo_id"] or ".")
        lines += [""]
    if record["processor"]:
        use = "list of frames" if video else "PIL image"
        lines += [f'processor = {processor}.from_pretrained({source})  # processor(a {use}, return_tensors="pt")']
    lines += [f"model = {kind}.from_pretrained({source}).eval()", "config = model.config"]
    if video:
        lines += ["pixels = torch.rand(1, config.num_frames, 3, config.image_size, config.image_size)"]
    else:
        size = record["results"]["data"].get("image_size") or 224
        lines += [f"pixels = torch.rand(1, config.num_channels, {int(size)}, {int(size)})"]
    return "\n".join(
        [*lines, "with torch.no_grad():", "    logits = model(pixel_values=pixels).logits  # (1, classes)"]
    )


def _quoted(text: str) -> str:
    """A Python string literal. What comes here is a repo id or a dot, which hold neither quotes nor line breaks."""
    return f'"{text}"'
