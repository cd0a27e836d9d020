"""Original checkpoints against a small forward of the original layout, written here from its description."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vcreg_hub.errors import UsageError, WeightsNotFoundError
from vcreg_hub.models.outputs import features
from vcreg_hub.models.video import build_video_model
from vcreg_hub.models.video_networks import NORMALISATION, video_processor
from vcreg_hub.models.videomae_original import HEADS, read_pth, settings_of, to_native

WIDTH, DEPTH, PATCH, TUBELET, SIZE, FRAMES = 384, 2, 8, 2, 16, 4
SETTINGS = {"num_hidden_layers": DEPTH, "intermediate_size": 96, "image_size": SIZE, "patch_size": PATCH}


def original(classes: int = 7, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Random values in every tensor of a fine-tuned original: none zero, so that none can be lost unseen."""
    draws = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws) * 0.1

    tensors = {
        "patch_embed.proj.weight": values(width, 3, TUBELET, PATCH, PATCH),
        "patch_embed.proj.bias": values(width),
    }
    for i in range(DEPTH):
        shapes = {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            "attn.qkv.weight": (3 * width, width), "attn.q_bias": (width,), "attn.v_bias": (width,),
            "attn.proj.weight": (width, width), "attn.proj.bias": (width,), "mlp.fc1.weight": (96, width),
            "mlp.fc1.bias": (96,), "mlp.fc2.weight": (width, 96), "mlp.fc2.bias": (width,),
        }  # fmt: skip
        tensors |= {f"blocks.{i}.{name}": values(*shape) for name, shape in shapes.items()}
    head = {
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    return tensors | {name: values(*shape) for name, shape in head.items()}


def original_features(tensors: dict, clips: torch.Tensor, heads: int, last_eps: float) -> torch.Tensor:
    """clips (n, c, t, h, w), the original's order of axes, to fc_norm of the mean token (n, width), in
    float64."""
    t = {name: value.double() for name, value in tensors.items()}
    x = F.conv3d(clips.double(), t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], (TUBELET, PATCH, PATCH))
    x = x.flatten(2).transpose(1, 2)
    n, tokens, width = x.shape
    angles = np.arange(tokens)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    angles[:, 0::2], angles[:, 1::2] = np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])
    x = x + torch.from_numpy(angles)
    for i in range(DEPTH):
        b = {name.removeprefix(f"blocks.{i}."): value for name, value in t.items() if name.startswith(f"blocks.{i}.")}
        h = F.layer_norm(x, (width,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        bias = torch.cat([b["attn.q_bias"], torch.zeros(width).double(), b["attn.v_bias"]])
        qkv = F.linear(h, b["attn.qkv.weight"], bias).view(n, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
        h = (weights @ qkv[2]).transpose(1, 2).reshape(n, tokens, width)
        x = x + F.linear(h, b["attn.proj.weight"], b["attn.proj.bias"])
        h = F.layer_norm(x, (width,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, b["mlp.fc1.weight"], b["mlp.fc1.bias"]))
        x = x + F.linear(h, b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    return F.layer_norm(x.mean(1), (width,), t["fc_norm.weight"], t["fc_norm.bias"], last_eps)


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "vit_s.pth"
    torch.save({"module": original(), "args": argparse.Namespace(lr=1e-3, model="vit_small")}, path)
    return path


def test_features_and_logits_are_the_originals(pth: Path) -> None:
    tensors = original()
    model = build_video_model("videomaev2_small", pretrained=str(pth), num_frames=FRAMES, **SETTINGS).eval().double()
    assert model.config.num_attention_heads == 6 and model.config.num_labels == 7
    clips = torch.randn(2, FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        found = features(model, clips)
        wanted = original_features(tensors, clips.transpose(1, 2), heads=6, last_eps=1e-5)
        assert torch.allclose(found, wanted, atol=1e-10)
        logits = wanted @ tensors["head.weight"].T.double() + tensors["head.bias"].double()
        assert torch.allclose(model(clips).logits, logits, atol=1e-10)

        exact = original_features(tensors, clips.transpose(1, 2), heads=6, last_eps=1e-6)
        assert (found - exact).abs().max() < 1e-3 * exact.abs().max(), "what the other eps of the last norm changes"
        for heads in (4, 8, 16):
            other = original_features(tensors, clips.transpose(1, 2), heads=heads, last_eps=1e-5)
            assert (found - other).abs().max() > 1e-3, "another number fits every tensor, but is another network"


def test_query_and_value_biases_arrive(pth: Path) -> None:
    model = build_video_model("videomaev2_small", pretrained=str(pth), num_frames=FRAMES, **SETTINGS)
    tensors = original()
    for i, layer in enumerate(model.videomae.encoder.layer):
        inner = layer.attention.attention
        assert inner.query.bias.abs().min() > 0 and inner.value.bias.abs().min() > 0 and inner.key.bias is None
        assert torch.equal(inner.query.bias, tensors[f"blocks.{i}.attn.q_bias"])
        assert torch.equal(inner.value.bias, tensors[f"blocks.{i}.attn.v_bias"])


def test_every_tensor_is_used_and_nothing_is_left_random(pth: Path) -> None:
    model = build_video_model("videomaev2_small", pretrained=str(pth), num_frames=FRAMES, **SETTINGS)
    given = sum(value.double().sum().item() for value in original().values())
    kept = sum(value.double().sum().item() for value in model.state_dict().values())
    assert kept == pytest.approx(given, abs=1e-6)
    assert set(to_native(original())) == set(model.state_dict())


def test_another_class_count_gets_a_fresh_small_head(pth: Path) -> None:
    options = {"num_frames": FRAMES, **SETTINGS}
    model = build_video_model("videomaev2_small", 3, str(pth), head_init_scale=0.001, **options)
    assert model.classifier.weight.shape == (3, WIDTH) and model.classifier.weight.abs().max() < 1e-3
    assert torch.equal(model.fc_norm.weight, original()["fc_norm.weight"])
    same = build_video_model("videomaev2_small", 7, str(pth), head_init_scale=0.001, **options)
    assert torch.equal(same.classifier.weight, original()["head.weight"]), "a head that was trained is not scaled"


def test_pretraining_checkpoints_lose_decoder_and_norm(tmp_path: Path) -> None:
    encoder = {name: value for name, value in original().items() if not name.startswith(("head", "fc_norm"))}
    content = {f"encoder.{name}": value for name, value in encoder.items()}
    content |= {"encoder.norm.weight": torch.ones(WIDTH), "encoder.norm.bias": torch.zeros(WIDTH)}
    content |= {"decoder.blocks.0.norm1.weight": torch.ones(4), "encoder_to_decoder.weight": torch.ones(4, 4)}
    content |= {"mask_token": torch.zeros(1, 1, 4)}
    torch.save({"model": content}, tmp_path / "pretrain.pth")
    model = build_video_model("videomae_small", 5, str(tmp_path / "pretrain.pth"), num_frames=FRAMES, **SETTINGS)
    assert torch.equal(model.videomae.encoder.layer[1].intermediate.dense.weight, encoder["blocks.1.mlp.fc1.weight"])
    with pytest.raises(UsageError, match="say num_classes"):
        build_video_model("videomae_small", None, str(tmp_path / "pretrain.pth"), num_frames=FRAMES, **SETTINGS)


def test_its_folder_is_plain_transformers(pth: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor, VideoMAEForVideoClassification

    model = build_video_model("videomae_small", pretrained=str(pth), num_frames=FRAMES, **SETTINGS).eval()
    model.save_pretrained(tmp_path / "native")
    video_processor(model, *NORMALISATION["imagenet"]).save_pretrained(tmp_path / "native")
    plain = AutoModelForVideoClassification.from_pretrained(tmp_path / "native").eval()
    assert type(plain) is VideoMAEForVideoClassification
    clips = torch.randn(1, FRAMES, 3, SIZE, SIZE)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert torch.allclose(plain(clips).logits, model(clips).logits, atol=1e-5)
    assert tuple(AutoVideoProcessor.from_pretrained(tmp_path / "native").image_mean) == (0.485, 0.456, 0.406)
    again = build_video_model("videomaev2_small", pretrained=str(tmp_path / "native"), **SETTINGS).eval()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_settings_come_from_the_shapes() -> None:
    settings = settings_of(original())
    assert settings["hidden_size"] == WIDTH and settings["num_attention_heads"] == 6
    assert settings["num_hidden_layers"] == DEPTH and settings["intermediate_size"] == 96
    assert (settings["tubelet_size"], settings["patch_size"], settings["num_channels"]) == (TUBELET, PATCH, 3)
    assert settings["layer_norm_eps"] == 1e-6 and settings["qv_bias"] and settings["use_mean_pooling"]
    assert all(width // heads in (64, 80, 88) for width, heads in HEADS.items())
    with pytest.raises(UsageError, match="width 100"):
        settings_of(original(width=100))


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


WRONG = {
    "absent": (None, WeightsNotFoundError, "there is no file"),
    "code": ({"module": {"x": Malicious()}}, UsageError, "without running its code"),
    "no tensors": ({"module": {"x": 3}}, UsageError, "no state dict"),
    "another model": ({"conv1.weight": torch.zeros(1)}, UsageError, "no VideoMAE checkpoint"),
    "extra": ({**original(), "blocks.0.attn.rel_pos": torch.zeros(1)}, UsageError, "no place"),
    "missing": ({k: v for k, v in original().items() if "q_bias" not in k}, UsageError, "do not fit|no place|missing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_none_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, kind, message = WRONG[case]
    if content is not None:
        torch.save(content, "x.pth")
    with pytest.raises(kind, match=message):
        build_video_model("videomaev2_small", 7, "x.pth", num_frames=FRAMES, **SETTINGS)
    assert not Path("it-ran").exists()


def test_a_broken_download_and_another_architecture(pth: Path, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(UsageError, match="without running its code"):
        read_pth(tmp_path / "page.pth")
    with pytest.raises(UsageError, match="not a videomaev2_base: it has hidden_size 384 instead of 768"):
        build_video_model("videomaev2_base", pretrained=str(pth))
    with pytest.raises(UsageError, match="vivit_base is a vivit"):
        build_video_model("vivit_base", pretrained=str(pth))
