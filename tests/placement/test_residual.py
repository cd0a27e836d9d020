"""The rule: block counts against published depths, and networks made to try it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vcreg_hub.errors import BlocksNotFoundError
from vcreg_hub.models.build import build_on_meta
from vcreg_hub.placement.residual import residual_blocks
from vcreg_hub.placement.sites import Site, describe_sites, find_blocks
from vcreg_hub.placement.tracing import trace

# Architecture: number of blocks, first block, channel axes. Counted by hand from the papers' depths.
TIMM = {
    "resnet50": (16, "layer1.0", {1}),
    "resnet14t": (4, "layer1.0", {1}),  # every block has a projection shortcut
    "resnetv2_50": (16, "stages.0.blocks.0", {1}),
    "regnety_016": (27, "s1.b1", {1}),  # no list holds the blocks
    "convnext_tiny": (18, "stages.0.blocks.0", {1}),
    "convnext_atto": (12, "stages.0.blocks.0", {1}),
    "vit_base_patch32_224": (12, "blocks.0", {-1}),
    "deit_tiny_distilled_patch16_224": (12, "blocks.0", {-1}),
    "swin_tiny_patch4_window7_224": (12, "layers.0.blocks.0", {-1}),
    "efficientnet_b0": (15, "blocks.1.0", {1}),  # 16 with the first depthwise block, which has no skip
    "mvitv2_tiny": (10, "stages.0.blocks.0", {-1}),
    "hiera_tiny_224": (12, "blocks.0", {-1}),
    "maxvit_tiny_tf_224": (11, "stages.0.blocks.0", {1}),
    "mixer_b16_224": (12, "blocks.0", {-1}),
    "poolformer_s12": (12, "stages.0.blocks.0", {1}),
    "pvt_v2_b0": (8, "stages.0.blocks.0", {-1}),
    "twins_pcpvt_small": (16, "blocks.0.0", {-1}),  # without the position encodings, as pvt_v2
    "twins_svt_small": (18, "blocks.0.0", {-1}),
    "iformer_t": (21, "stages.0.blocks.0", {1}),
    "nest_tiny": (12, "levels.0.transformer_encoder.0", {-1}),
    "mobilevitv2_050": (15, "stages.0.0", {1}),
    "mambaout_femto": (18, "stages.0.blocks.0", {-1}),
    "tiny_vit_5m_224": (12, "stages.0.blocks.0", {1, -1}),
    "repvit_m0_9": (23, "stages.0.blocks.0", {1}),  # three of them beside their stage's list
    "coat_tiny": (14, "serial_blocks1.0", {-1}),
    "hrnet_w18_small": (23, "layer1.0", {1}),
    "repvgg_a0": (22, "stem", {1}),
    "densenet121": (58, "features.denseblock1.denselayer1", {1}),
    "inception_v3": (11, "Mixed_5b", {1}),
    "mobilenetv1_100": (13, "blocks.0.0", {1}),
}
TORCHVISION = {
    "resnet50": (16, "layer1.0", 1),
    "convnext_tiny": (18, "features.1.0", 1),
    "vit_b_32": (12, "encoder.layers.encoder_layer_0", -1),
    "swin_t": (12, "features.1.0", -1),
    "maxvit_t": (11, "blocks.0.layers.0", 1),
    "r3d_18": (8, "layer1.0", 1),
    "swin3d_t": (12, "features.0.0", -1),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def names(sites: list[Site]) -> list[str]:
    return [site.name for site in sites]


@pytest.mark.parametrize("name", TIMM)
def test_timm_architectures(name):
    count, first, axes = TIMM[name]
    model = build_on_meta(name)
    sites = find_blocks(model)
    assert (len(sites), sites[0].name) == (count, first)
    assert {site.channel_axis for site in sites} == axes
    assert all(model.get_submodule(site.name) is site.module for site in sites)
    assert len(set(names(sites))) == len(sites)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_architectures(name):
    count, first, axis = TORCHVISION[name]
    sites = find_blocks(build_on_meta(f"torchvision:{name}"))
    assert (len(sites), sites[0].name) == (count, first)
    assert {site.channel_axis for site in sites} == {axis}


def test_a_torchvision_model_that_cannot_be_built_on_meta():
    assert len(find_blocks(build_on_meta("torchvision:regnet_y_400mf"))) == 16


def small(kind: str):
    """Configs of transformers' classes, small but with several stages and fewer layers than any default."""
    import transformers as t

    vit = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, num_labels=5)
    return {
        "resnet": lambda: t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5)
        ),
        "convnext": lambda: t.ConvNextForImageClassification(
            t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 3, 1], image_size=64, num_labels=5)
        ),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=16, **vit)),
        "swin": lambda: t.SwinForImageClassification(
            t.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4)
        ),
        "videomae": lambda: t.VideoMAEForVideoClassification(
            t.VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, num_channels=1, **vit)
        ),
        "vivit": lambda: t.VivitForVideoClassification(
            t.VivitConfig(image_size=32, num_frames=4, tubelet_size=[2, 16, 16], **vit)
        ),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "prefix", "count", "axis", "head"),
    [
        ("resnet", "resnet.encoder.stages.", 3, 1, "classifier.1"),
        ("convnext", "convnext.encoder.stages.", 7, 1, "classifier"),
        ("vit", "vit.", 3, -1, "classifier"),
        ("swin", "swin.encoder.layers.", 4, -1, "classifier"),
        ("videomae", "videomae.encoder.layer.", 3, -1, "classifier"),
        ("vivit", "vivit.", 3, -1, "classifier"),
    ],
)
def test_transformers_classes(kind, prefix, count, axis, head):
    with torch.device("meta"):
        model = small(kind)
    sites = find_blocks(model)
    assert len(sites) == count and all(name.startswith(prefix) for name in names(sites))
    assert {site.channel_axis for site in sites} == {axis}
    assert find_blocks(model, "final") == [Site(head, model.get_submodule(head), -1, "input")]


def test_transformers_config_by_path(tmp_path):
    small("vit").config.save_pretrained(tmp_path)
    for name in (f"hf:{tmp_path}", f"hf:{tmp_path}/config.json"):
        model = build_on_meta(name)
        rows = describe_sites(model, find_blocks(model))
        assert [row["shape"] for row in rows] == [(1, 5, 16)] * 3


# The rule, on networks that no library has


class Residual(nn.Module):
    def __init__(self, width: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.shortcut = shortcut

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class Plain(nn.Module):
    """No block: all that is added are learned and fixed positions."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 6, 8))
        self.register_buffer("angles", torch.zeros(2, 6, 8))
        self.table = [torch.zeros(2, 6, 8)]
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x + self.position) + self.angles
        return self.head(self.second(x + self.table[0]).mean(1))


class Joined(nn.Module):
    """The skip is written with a module that only adds: the block is who calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.add, self.linear = Add(), nn.Linear(8, 8)

    def forward(self, x):
        return self.add(x, self.linear(x))


class Add(nn.Module):
    def forward(self, a, b):
        return a + b


def test_skip_projection_and_neither():
    x = torch.zeros(2, 6, 8)
    skips = nn.Sequential(nn.Linear(8, 8), Residual(8, nn.Identity()), Residual(8, nn.Linear(8, 8)))
    assert names(find_blocks(skips, example_input=x)) == ["1", "2"]  # the second by its class
    projections = nn.Sequential(Residual(8, nn.Linear(8, 8)), nn.Linear(8, 8))
    assert residual_blocks(trace(projections, x))[0] == "projection"
    assert names(find_blocks(projections, example_input=x)) == ["0"]
    with pytest.raises(BlocksNotFoundError):
        find_blocks(Plain(), example_input=x)
    assert names(find_blocks(nn.Sequential(Joined(), nn.ReLU()), example_input=x)) == ["0"]


def test_skips_in_parts_lift_to_the_element_of_the_list():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Residual(8, nn.Identity()), Residual(8, nn.Identity())

        def forward(self, x):
            return self.two(self.one(x)), x.shape  # a tuple means its first floating-point tensor

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, *, tokens):
            for block in self.blocks:
                tokens, _ = block(tokens)
            return {"logits": tokens}

    assert names(find_blocks(Net(), example_input={"tokens": torch.zeros(2, 6, 8)})) == ["blocks.0", "blocks.1"]


def test_the_fused_transformer_path_does_not_hide_the_skip():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3)
    assert torch.backends.mha.get_fastpath_enabled()
    assert names(find_blocks(encoder, example_input=torch.zeros(2, 7, 16))) == [f"layers.{i}" for i in range(3)]
    assert torch.backends.mha.get_fastpath_enabled()


def test_channel_axis_does_not_need_square_maps():
    for name, shape, axis in [("convnext_atto", (1, 3, 64, 96), 1), ("mambaout_femto", (1, 3, 64, 96), -1)]:
        sites = find_blocks(build_on_meta(name), example_input=torch.zeros(shape))
        assert {site.channel_axis for site in sites} == {axis}
