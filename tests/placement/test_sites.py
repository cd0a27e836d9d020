"""Placements, globs, axes, inputs and wrappers; and a model that is left as it was found."""

from __future__ import annotations

import copy
import re

import pytest
import timm
import torch
import torchvision
from torch import nn

from vcreg_hub.errors import BlocksNotFoundError, UnknownNameError, UsageError
from vcreg_hub.models.build import build_on_meta
from vcreg_hub.placement.sites import Site, describe_sites, find_blocks
from vcreg_hub.placement.tracing import trace
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def names(sites: list[Site]) -> list[str]:
    return [site.name for site in sites]


# Placements (Table 7)


def test_final_is_the_input_of_the_classifier():
    for name, heads, axis in [
        ("resnet50", ["fc"], -1),
        ("convnext_atto", ["head.fc"], -1),
        ("vit_base_patch32_224", ["head"], -1),
        ("resnetv2_50", ["head.fc"], 1),  # a 1x1 convolution on (n, c, 1, 1)
        ("crossvit_tiny_240", ["head.0", "head.1"], -1),
        ("deit_tiny_distilled_patch16_224", ["head", "head_dist"], -1),
        ("caformer_s18", ["head.fc"], -1),  # the whole perceptron that timm calls the classifier
        ("samvit_base_patch16_224", ["head.fc"], -1),  # timm names a head that pools; the layer inside counts
        ("vgg11", ["head.fc"], -1),  # has no blocks, and needs none
        ("torchvision:mobilenet_v3_small", ["classifier.3"], -1),
        ("torchvision:vit_b_32", ["heads.head"], -1),
    ]:
        sites = find_blocks(build_on_meta(name), "final")
        assert (names(sites), {(s.channel_axis, s.side) for s in sites}) == (heads, {(axis, "input")}), name


def test_final_without_a_classifier():
    pooled = find_blocks(build_on_meta("resnet18", num_classes=0), "final")
    assert names(pooled) == ["fc"] and type(pooled[0].module) is nn.Identity
    # Attention pooling ends in a linear layer that is no classifier.
    assert names(find_blocks(build_on_meta("vit_base_patch16_siglip_224"), "final")) == ["head"]
    with pytest.raises(BlocksNotFoundError, match="no classifier in ResNet"):  # a map leaves the network, no vector
        find_blocks(build_on_meta("resnet18", num_classes=0, global_pool=""), "final")
    for name in ("resnet18", "vit_tiny_patch16_224"):
        with pytest.raises(BlocksNotFoundError, match=r"no classifier in Feature.*num_classes > 0"):
            find_blocks(build_on_meta(name, features_only=True), "final")


def test_downsample_lies_between_blocks():
    model = build_on_meta("convnext_atto")
    layers = [f"stages.{i}.downsample" for i in (1, 2, 3)]
    assert names(find_blocks(model, "downsample")) == layers
    assert names(find_blocks(build_on_meta("swin_tiny_patch4_window7_224"), "downsample")) == [
        f"layers.{i}.downsample" for i in (1, 2, 3)
    ]
    both, blocks = find_blocks(model, "blocks+downsample"), find_blocks(model, "blocks")
    assert len(both) == 15 and set(names(both)) == set(names(blocks)) | set(layers)
    assert names(both).index("stages.1.downsample") == 2  # in the order they are called
    assert {site.channel_axis for site in both} == {1}


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch32_224"])
def test_downsample_that_is_none(name):
    with pytest.raises(BlocksNotFoundError, match=r"no downsample layer between the 1\d blocks .*where='blocks'"):
        find_blocks(build_on_meta(name), "downsample")


def test_globs_take_the_outermost_called_modules():
    model = build_on_meta("resnet50")
    assert names(find_blocks(model, "layer*.*")) == names(find_blocks(model, "blocks"))
    assert names(find_blocks(model, "layer[12]")) == ["layer1", "layer2"]
    assert len(find_blocks(model, "*.conv3")) == 16
    vit = build_on_meta("vit_base_patch32_224")
    assert len(find_blocks(vit, "*.mlp")) == 12


def test_errors_say_what_to_pass():
    model = build_on_meta("resnet50")
    modules = len(list(model.named_modules()))
    with pytest.raises(BlocksNotFoundError, match=rf"none of the {modules} modules of ResNet; nearest: .*layer1"):
        find_blocks(model, "layr1")
    with pytest.raises(BlocksNotFoundError, match=r"nearest: (?!.*\bblocks,.*\bblocks(,|$))"):
        find_blocks(build_on_meta("vit_tiny_patch16_224"), "block")
    with pytest.raises(BlocksNotFoundError, match="nearest: blocks"):
        find_blocks(model, "block")
    with pytest.raises(BlocksNotFoundError, match=r"no residual block in Sequential.*where='<glob"):
        find_blocks(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), example_input=torch.zeros(1, 3, 4, 4))
    with pytest.raises(BlocksNotFoundError, match=r"match where='layers'.*calls none of them"):
        find_blocks(Uncalled(), "layers")
    with pytest.raises(BlocksNotFoundError, match=r"input \(1, 3, 17, 17\) failed.*Pass example_input"):
        find_blocks(build_on_meta("vit_base_patch32_224"), example_input=torch.zeros(1, 3, 17, 17))
    with pytest.raises(BlocksNotFoundError, match="lazy layers"):
        find_blocks(nn.LazyLinear(3))


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "torchvision:alexnet", "torchvision:vgg11"])
def test_networks_without_blocks_are_answered_with_a_glob_that_trains(name):
    bare = name.removeprefix("torchvision:")
    model = timm.create_model(name) if bare == name else torchvision.models.get_model(bare)
    with pytest.raises(BlocksNotFoundError, match=r"no residual block in \w+ \(0 of .*") as error:
        find_blocks(model)
    where = re.search(r"Pass where='(.*?)'", str(error.value))[1]
    sites = find_blocks(model, where)
    assert where == "features.*" and sites[-1].name == f"features.{len(model.features) - 1}"
    # A convolution whose ReLU overwrites it is the ReLU's site: by the time of the backward pass it is gone.
    overwritten = {f"features.{i}" for i, m in enumerate(model.features) if getattr(m, "inplace", False)}
    assert overwritten <= set(names(sites)) and not {f"features.{int(n[9:]) - 1}" for n in overwritten} & set(
        names(sites)
    )
    with attach(model, VCReg(), where) as vc:
        vc.watch(model(torch.randn(2, 3, 96, 96)).square().mean()).backward()
        assert all(row["backwards"] == 1 for row in vc.statistics())


def test_reprs_are_one_line():
    sites = find_blocks(build_on_meta("resnet50"))
    assert repr(sites[0]) == "Site('layer1.0', Bottleneck, channel_axis=1)"
    assert repr(sites) == f"[{', '.join(map(repr, sites))}]" and "\n" not in repr(sites)
    (final,) = find_blocks(build_on_meta("resnet50"), "final")
    assert repr(final) == "Site('fc', Linear, channel_axis=-1, side='input')"


class LightningModule(nn.Module):
    """Lightning's name for what holds a network; its forward is the user's to write, and most leave it out."""


class Lit(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion = timm.create_model("test_resnet"), nn.CrossEntropyLoss()


@pytest.mark.parametrize("find", [find_blocks, lambda model: attach(model, VCReg())])
def test_a_lightning_module_is_answered_with_the_network_inside(find):
    with pytest.raises(BlocksNotFoundError, match=r"give the network inside it, Lit's net$"):
        find(Lit())
    assert len(find_blocks(Lit().net)) == 4


class Uncalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        return self.layers[0](x)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="resnet50"):
        build_on_meta("resnet5O")
    with pytest.raises(UnknownNameError, match="swin_t"):
        build_on_meta("torchvision:swn_t")


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"no transformers config at .*nowhere"):
        build_on_meta(f"hf:{tmp_path}/nowhere")


def test_a_config_without_a_vision_classifier(tmp_path):
    import transformers

    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="no image or video classifier of type 'bert'"):
        build_on_meta(f"hf:{tmp_path}")


# Inputs that the model's own configuration decides


@pytest.mark.parametrize("kwargs", [{"in_chans": 1, "img_size": 32}, {"in_chans": 5, "features_only": True}])
def test_channels_and_sizes_are_the_models_own(kwargs):
    model = build_on_meta("vit_tiny_patch16_224", **kwargs)
    assert trace(model).calls[0].input == (1, kwargs["in_chans"], *[kwargs.get("img_size", 224)] * 2)
    assert len(find_blocks(model)) == 12


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet50", 16), ("convnext_tiny", 18), ("swin_tiny_patch4_window7_224", 12), ("regnety_016", 27)],
)
def test_features_only(name, count):
    assert len(find_blocks(build_on_meta(name, features_only=True))) == count


def test_half_precision_and_multilayer_perceptrons():
    assert len(find_blocks(build_on_meta("resnet18").half())) == 8
    mlp = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    assert names(find_blocks(mlp, "final")) == ["2"]


# Wrappers, and what a dry run must leave alone


@pytest.mark.usefixtures("fresh_compiler")
def test_wrappers_are_looked_through():
    model = timm.create_model("test_resnet").eval()
    expected = find_blocks(model)
    assert find_blocks(nn.DataParallel(model)) == expected
    compiled = torch.compile(model, backend="eager")
    assert find_blocks(compiled) == expected
    with torch.no_grad():
        compiled(torch.zeros(1, 3, 64, 64))
    assert find_blocks(compiled) == expected
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert find_blocks(nn.parallel.DistributedDataParallel(model)) == expected
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_parts():
    model = timm.create_model("test_resnet").eval()
    count = len(find_blocks(model))
    model.layer1 = torch.compile(model.layer1, backend="eager")
    model.layer2[0].compile(backend="eager")
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    sites = find_blocks(model)
    assert len(sites) == count and sites[0].name == "layer1._orig_mod.0"


def snapshot(model: nn.Module) -> list[object]:
    """Everything a dry run could touch, in comparable form."""
    tensors = [(key, id(t), t._version, t.requires_grad) for key, t in model.state_dict(keep_vars=True).items()]
    values = [(key, t.tolist()) for key, t in model.named_buffers()]
    grads = [None if p.grad is None else id(p.grad) for p in model.parameters()]
    flags = [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m)))
        for name, m in model.named_modules()
    ]
    return [tensors, values, grads, flags, torch.get_rng_state().tolist()]


def test_the_model_is_left_as_it_was_found():
    model = timm.create_model("test_efficientnet", drop_rate=0.1, drop_path_rate=0.1).train()
    model.bn1.eval()
    model.conv_stem.weight.requires_grad_(False)
    fired = []
    model.blocks[0].register_forward_hook(lambda *_: fired.append(1))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert fired == [1]
    image = torch.rand(2, 3, 48, 48)
    kept, before, state = image.clone(), snapshot(model), copy.deepcopy(model.state_dict())
    for example in (None, image):
        for where in ("blocks", "final", "blocks.*"):
            describe_sites(model, find_blocks(model, where, example), example)
    assert snapshot(model) == before and fired == [1] and torch.equal(image, kept)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_rows_of_a_description():
    model = build_on_meta("convnext_atto")
    rows = describe_sites(model, find_blocks(model))
    assert rows[0] == {
        "name": "stages.0.blocks.0",
        "class": "ConvNeXtBlock",
        "shape": (1, 40, 56, 56),
        "channels": 40,
        "channel_axis": 1,
        "side": "output",
    }
    (final,) = describe_sites(model, find_blocks(model, "final"))
    assert (final["shape"], final["channels"], final["side"]) == ((1, 320), 320, "input")


def test_a_forward_that_reads_values_runs_on_a_copy():
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.BatchNorm1d(8))

        def forward(self, x):
            return self.blocks(x) if x.sum().item() < 1 else x

    model = Reads()
    before = snapshot(model)
    assert names(find_blocks(model, example_input=torch.zeros(4, 8))) == ["blocks.0"]
    assert snapshot(model) == before
