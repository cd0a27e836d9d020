"""VideoMAE and VideoMAEv2 checkpoints of the original code (`.pth`) as transformers' VideoMAE.

The original keeps query, key and value in one matrix with biases for query and value only, and names things
as timm does. VideoMAEv2's fine-tuned and distilled encoders have the same layout, so they become the same
native class. One number cannot be carried over: the original's last norm has eps 1e-6, transformers' 1e-5
without a way to say otherwise.
"""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError, WeightsNotFoundError, first_line

# Heads of the original's encoders by width. The head size is 64, also for ViT-S, whose heads some
# converters get wrong.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
_RENAMED = {
    "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "fc_norm": "fc_norm",
    "head": "classifier",
}
_IN_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_QKV = re.compile(r"blocks\.(\d+)\.attn\.(qkv\.weight|q_bias|v_bias)")


def read_pth(path: str | Path) -> dict[str, Tensor]:
    """The encoder's tensors of an original checkpoint, without prefixes; a pretraining decoder is left out.

    The file is a pickle and is read with `weights_only=True`, so that it cannot run code.
    Errors: WeightsNotFoundError for no such file, UsageError for a file that is none of these checkpoints.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsNotFoundError(f"there is no file {path}")
    try:
        # The originals keep their command line beside the weights: plain values in a Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = first_line(error)
        raise UsageError(f"{path} is no checkpoint that can be read without running its code: {first}") from None
    for key in ("module", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} holds no state dict: expected tensors by name, or those under 'module' or 'model'")
    tensors = {re.sub(r"^(module\.|encoder\.|backbone\.)+", "", name): value for name, value in content.items()}
    strange = re.compile(r"^(decoder\.|encoder_to_decoder\.|mask_token$|pos_embed$)")
    tensors = {name: value for name, value in tensors.items() if not strange.match(name)}
    if "patch_embed.proj.weight" not in tensors or "blocks.0.attn.qkv.weight" not in tensors:
        raise UsageError(f"{path} is no VideoMAE checkpoint of the original code: it has no patch_embed and blocks")
    return tensors


def settings_of(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The settings of transformers' VideoMAEConfig by the tensors' shapes, without frames and image size: positions
    are fixed and not stored. Errors: UsageError for a width whose number of heads is not known."""
    width, channels, tubelet, patch, _ = tensors["patch_embed.proj.weight"].shape
    if width not in HEADS:
        raise UsageError(f"an encoder of width {width}: the original code has none such ({sorted(HEADS)})")
    return {
        "hidden_size": width,
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": patch,
        "num_hidden_layers": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        "num_attention_heads": HEADS[width],
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[0],
        "qv_bias": "blocks.0.attn.q_bias" in tensors,
        "use_mean_pooling": True,
        "layer_norm_eps": 1e-6,
    }


def to_native(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under transformers' names for VideoMAE in memory.

    A norm after the last block, which only pretraining has, is left out: classifiers pool first and have
    `fc_norm`. Errors: UsageError for a tensor whose place is not known.
    """
    native: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in ("norm.weight", "norm.bias"):
            continue
        if match := _QKV.fullmatch(name):
            native |= _attention(f"videomae.encoder.layer.{match[1]}.attention.attention", match[2], value)
        elif (match := _BLOCK.fullmatch(name)) and match[2] in _IN_BLOCK:
            native[f"videomae.encoder.layer.{match[1]}.{_IN_BLOCK[match[2]]}.{match[3]}"] = value
        elif name.rpartition(".")[0] in _RENAMED:
            module, _, kind = name.rpartition(".")
            native[f"{_RENAMED[module]}.{kind}"] = value
        else:
            raise UsageError(f"tensor {name!r} has no place in transformers' VideoMAE")
    return native


def _attention(place: str, kind: str, value: Tensor) -> dict[str, Tensor]:
    if kind == "qkv.weight":
        parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
        return {f"{place}.{part}.weight": weight.clone() for part, weight in parts}
    return {f"{place}.{'query' if kind == 'q_bias' else 'value'}.bias": value}
