"""Who is decayed and how fast each layer learns, against torchvision's split and layers counted by hand."""

from __future__ import annotations

import copy
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from vcreg_hub.config import Optim
from vcreg_hub.errors import ConfigError, UnknownNameError
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.training.optim import _layer_ids, _parameter_groups, build_optimizer, says_its_layers


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=10)


def hf_model(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers as t

    if name == "resnet":
        return t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 3], layer_type="basic", num_labels=4)
        )
    if name == "convnext":
        return t.ConvNextForImageClassification(
            t.ConvNextConfig(
                hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 3, 1], num_labels=4, layer_scale_init_value=1e-6
            )
        )
    sizes = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    if name == "vit":
        return t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=8, num_labels=4, **sizes))
    video = dict(image_size=32, num_frames=4, **sizes)
    if name == "videomae":
        return t.VideoMAEForVideoClassification(t.VideoMAEConfig(patch_size=8, tubelet_size=2, num_labels=4, **video))
    return t.VivitForVideoClassification(t.VivitConfig(tubelet_size=[2, 8, 8], num_labels=4, **video))


def blocks_of(model: nn.Module) -> list[str]:
    return [] if says_its_layers(model) else [site.name for site in find_blocks(model, "blocks")]


def names_by_group(model: nn.Module, optim: Optim) -> dict[str, dict]:  # type: ignore[type-arg]
    """{parameter name: its group}; fails when a parameter is in two groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, dict] = {}  # type: ignore[type-arg]
    for group in _parameter_groups(model, optim, blocks_of(model)):
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = group
    return found


TIMM = ("convnext_atto", "resnet10t", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnextv2_atto")
MODELS = {
    **{f"timm {n}": (timm_model, n) for n in TIMM},
    **{f"hf {n}": (hf_model, n) for n in ("resnet", "convnext", "vit", "videomae", "vivit")},
    **{f"torchvision {n}": (torchvision.models.get_model, n) for n in ("resnet18", "convnext_tiny", "vit_b_32")},
}
EVERYTHING = Optim(weight_decay=0.05, norm_weight_decay=0.01, bias_weight_decay=0.02, layer_decay=0.7)


@pytest.mark.parametrize(("make", "name"), MODELS.values(), ids=MODELS)
def test_every_trainable_parameter_is_in_one_group(make, name: str) -> None:  # type: ignore[no-untyped-def]
    model = make(name)
    frozen = [p for i, p in enumerate(model.parameters()) if i % 7 == 3]
    for parameter in frozen:
        parameter.requires_grad_(False)
    expected = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(names_by_group(model, EVERYTHING)) == expected
    assert set(names_by_group(model, Optim())) == expected


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_the_norm_group_is_torchvisions(name: str) -> None:
    from torchvision.ops._utils import split_normalization_params

    model = torchvision.models.get_model(name)
    norm, other = split_normalization_params(model)
    groups = _parameter_groups(model, Optim(weight_decay=0.05, norm_weight_decay=0.0))
    ours = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert ours["norm"] == {id(p) for p in norm}
    assert ours["weight"] | ours["bias"] == {id(p) for p in other}
    assert {group["name"]: group["weight_decay"] for group in groups} == {"norm": 0.0, "weight": 0.05, "bias": 0.05}


def test_what_keeps_its_decay_and_what_does_not() -> None:
    vit, convnext = timm_model("vit_tiny_patch16_224"), timm_model("convnextv2_atto")
    plain, bare = Optim(norm_weight_decay=0.0), Optim(norm_weight_decay=0.0, bias_weight_decay=0.0)
    kept = {name for name, group in names_by_group(vit, plain).items() if group["weight_decay"]}
    assert {"cls_token", "pos_embed", "blocks.0.attn.qkv.bias", "head.bias"} <= kept and "norm.weight" not in kept
    bared = {name for name, group in names_by_group(vit, bare).items() if group["weight_decay"]}
    assert "head.bias" not in bared and {"cls_token", "head.weight"} <= bared
    # Global response normalisation is timm's own class, with 1-D parameters.
    groups = names_by_group(convnext, plain)
    assert groups["stages.0.blocks.0.mlp.grn.weight"]["name"] == "norm"
    assert groups["stages.0.blocks.0.conv_dw.weight"]["name"] == "weight"


def test_norm_layers_that_carry_an_activation_count() -> None:
    groups = names_by_group(timm_model("mobilenetv3_small_050"), Optim(norm_weight_decay=0.0))
    assert groups["bn1.weight"]["name"] == "norm"


def scales(model: nn.Module, decay: float = 0.5) -> dict[str, float]:
    groups = names_by_group(model, Optim(layer_decay=decay))
    return {name: group["lr_scale"] for name, group in groups.items()}


def test_layers_of_a_timm_transformer() -> None:
    found = scales(timm_model("vit_tiny_patch16_224"))  # 12 blocks: decay ** (13 - i)
    assert found["patch_embed.proj.weight"] == found["cls_token"] == 0.5**13
    for k in range(12):
        assert found[f"blocks.{k}.mlp.fc1.weight"] == 0.5 ** (13 - (k + 1))
    # timm counts the last norm with the last block.
    assert found["head.weight"] == 1.0 and found["norm.weight"] == 0.5


@pytest.mark.parametrize(
    ("name", "stem", "block", "count", "top"),
    [
        ("vit", ["vit.embeddings.cls_token", "vit.embeddings.patch_embeddings.projection.weight"], None, 3,
         ["vit.layernorm.weight", "classifier.weight"]),
        ("videomae", ["videomae.embeddings.patch_embeddings.projection.weight"], None, 3,
         ["fc_norm.weight", "classifier.weight"]),
        ("vivit", ["vivit.embeddings.cls_token"], None, 3, ["vivit.layernorm.weight", "classifier.weight"]),
        ("convnext", ["convnext.embeddings.patch_embeddings.weight"], None, 7,
         ["convnext.layernorm.weight", "classifier.weight"]),
        ("resnet", ["resnet.embedder.embedder.convolution.weight"], None, 5, ["classifier.1.weight"]),
    ],
)  # fmt: skip
def test_layers_of_transformers_models(name: str, stem: list[str], block: None, count: int, top: list[str]) -> None:
    found = scales(hf_model(name))
    assert {found[n] for n in stem} == {0.5 ** (count + 1)}
    assert {found[n] for n in top} == {1.0}
    assert sorted(set(found.values())) == [0.5 ** (count + 1 - i) for i in range(count + 2)]


@pytest.mark.parametrize(("name", "count"), [("resnet18", 8), ("convnext_tiny", 18), ("vit_b_32", 12)])
def test_layers_of_torchvision_models(name: str, count: int) -> None:
    model = torchvision.models.get_model(name)
    ids = _layer_ids(model, blocks_of(model))
    assert sorted(set(ids.values())) == list(range(count + 2))
    order = list(dict(model.named_parameters()))
    assert ids[order[0]] == 0 and ids[order[-1]] == count + 1
    if name == "vit_b_32":
        assert ids["class_token"] == ids["encoder.pos_embedding"] == 0
        assert ids["encoder.layers.encoder_layer_4.mlp.0.weight"] == 5
    if name == "convnext_tiny":  # a downsampling layer goes with the block it feeds
        assert ids["features.2.1.weight"] == ids["features.3.0.block.0.weight"] == 4


def quadratic(model: nn.Module) -> torch.Tensor:
    return F.mse_loss(model(torch.ones(4, 3)), torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("optim", "reference"),
    [
        (Optim(betas=(0.8, 0.95), eps=1e-6), lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.95), 1e-6, 0.05)),
        (Optim("momentum", momentum=0.8), lambda p: torch.optim.SGD(p, 0.1, 0.8, weight_decay=0.05)),
        (Optim("sgd"), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.05, nesterov=True)),
        (Optim("adam"), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.05)),
    ],
)  # fmt: skip
def test_the_optimizer_steps_as_torchs(optim: Optim, reference) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    other = copy.deepcopy(one)
    ours, theirs = build_optimizer(one, optim, 0.1), reference(other.parameters())
    for _ in range(5):
        for model, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            quadratic(model).backward()
            optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_each_layer_learns_at_its_own_rate() -> None:
    optimizer = build_optimizer(timm_model("vit_tiny_patch16_224"), Optim(layer_decay=0.75), 1e-3)
    rates = {group["lr_scale"]: group["lr"] for group in optimizer.param_groups}
    assert len(rates) == 14 and all(lr == pytest.approx(1e-3 * scale) for scale, lr in rates.items())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adamw'"):
        build_optimizer(nn.Linear(1, 1), Optim("adamww"), 0.1)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(nn.Linear(1, 1).requires_grad_(False), Optim(), 0.1)
