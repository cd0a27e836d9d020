"""The benchmark times what it says it times, and its result can be shown and stored."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from vcreg_hub.bench.memory import peak_bytes
from vcreg_hub.bench.overhead import BLOCKS, Block, overhead
from vcreg_hub.bench.table import TITLES, render
from vcreg_hub.bench.variants import NAMES, block_calls, inserted
from vcreg_hub.errors import UsageError
from vcreg_hub.placement.sites import describe_sites, find_blocks
from vcreg_hub.regularizer.loss import rows, vcreg_gradient
from vcreg_hub.regularizer.vcreg import VCReg

SMALL = (Block("tokens", (5, 8), -1), Block("map", (6, 4, 4), 1), Block("map, last", (6, 4, 4), 1, channels_last=True))


@pytest.fixture(scope="module")
def result():
    said = []
    result = overhead(
        "cpu", networks=["test_convnext"], blocks=SMALL, batch_size=2, rounds=3, image_size=64, log=said.append
    )
    assert said[0] == "test_convnext: batch 2, 9 blocks"
    assert len(said) == 4
    return result


def test_every_variant_is_measured(result):
    (network,) = result["networks"]
    assert list(network["variants"]) == list(NAMES)
    assert network["rounds"] == 3
    assert network["sites"] == 9
    assert network["variants"]["identity"]["ratio"] == 1
    assert all(v["median_ms"] > 0 and v["peak_bytes"] > 0 for v in network["variants"].values())
    # More is kept for a backward pass that goes through a graph of the loss.
    assert network["variants"]["naive"]["peak_bytes"] > network["variants"]["ours"]["peak_bytes"]
    assert [block["shape"] for block in result["blocks"]] == [[2, 5, 8], [2, 6, 4, 4], [2, 6, 4, 4]]
    assert set(result["blocks"][0]["variants"]) == set(NAMES) - {"identity"} | {"products"}


def test_the_result_is_json_that_names_the_device(result):
    assert json.loads(json.dumps(result)) == result
    assert result["env"]["device"].startswith("CPU")
    assert result["vcreg"]["alpha"] == 0.64
    assert result["precision"] == "no"


def test_the_table_shows_every_number_and_marks_the_papers(result):
    text = render(result)
    for title in TITLES.values():
        assert title in text
    assert "paper (A100, batch 128)" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(NAMES) + 2 + len(SMALL)
    vit = {**result, "networks": [{**result["networks"][0], "paper_seconds": {"identity": 0.2, "algorithm1": 0.3}}]}
    assert "1.50" in render(vit)
    assert render({**result, "networks": [], "blocks": []}).startswith("One forward and backward pass on CPU")


def test_flop_shares_are_those_of_the_two_products():
    """ViT-B/32 spends 5.3% of its arithmetic, ConvNeXt-T 7.7%: 4 n d^2 over three times the forward pass."""
    import timm

    from vcreg_hub.bench.overhead import _flop_share

    for name, share in (("vit_base_patch32_224", 0.053), ("convnext_tiny", 0.077)):
        model = timm.create_model(name, device="meta")
        x = torch.randn(1, 3, 224, 224, device="meta")
        sites = find_blocks(model, example_input=x)
        shapes = {row["name"]: row["shape"] for row in describe_sites(model, sites, x)}
        assert _flop_share(model, x, shapes, sites) == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize("block", SMALL, ids=lambda block: block.name)
def test_the_calls_on_a_block_compute_the_gradients_they_are_named_after(block):
    torch.manual_seed(0)
    z = block.features(3, torch.device("cpu"))
    cfg = VCReg(alpha=3.0, beta=2.0)
    calls = block_calls(z, block.axis, cfg)
    torch.testing.assert_close(calls["ours"](), calls["naive"]())
    printed = vcreg_gradient(rows(z, block.axis), VCReg(alpha=3.0, beta=2.0, gradient="algorithm1"))
    # The layer that removes the mean before Algorithm 1 also removes it from the gradient that comes in.
    incoming = rows(calls["ours"](), block.axis) - vcreg_gradient(rows(z, block.axis), cfg)
    expected = printed + incoming - incoming.mean(0)
    torch.testing.assert_close(rows(calls["algorithm1"](), block.axis), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_inserted_and_taken_out_again(name):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5).train()
    x, y = torch.randn(2, 3, 160, 160), torch.tensor([0, 1])
    sites = find_blocks(model)
    shapes = {row["name"]: row["shape"] for row in describe_sites(model, sites, x)}

    def gradient():
        model.zero_grad()
        with inserted(name, model, sites, shapes, VCReg(alpha=3.0, beta=2.0)) as watch:
            watch(F.cross_entropy(model(x), y)).backward()
        return model.patch_embed.proj.weight.grad.clone()

    got = gradient()
    assert not any(m._forward_hooks for m in model.modules())
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    plain = model.patch_embed.proj.weight.grad.clone()
    assert torch.allclose(got, plain) is (name == "identity")
    if name == "naive":
        name = "ours"
        torch.testing.assert_close(gradient(), got, rtol=1e-4, atol=1e-5)


def test_peak_memory_counts_what_lives_at_once():
    def function():
        a = torch.zeros(1000, 100)
        b = a + a
        del a
        return b + 1

    assert peak_bytes(function, torch.device("cpu")) == pytest.approx(800_000, rel=1e-3)


def test_the_regularizer_adds_under_one_percent_of_memory():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=3).train()
    x, y = torch.randn(6, 3, 224, 224), torch.zeros(6, dtype=torch.long)
    sites = find_blocks(model)
    shapes = {row["name"]: row["shape"] for row in describe_sites(model, sites, x)}

    def peak(name):
        model.zero_grad(set_to_none=True)

        def step():
            with inserted(name, model, sites, shapes, VCReg()) as watch:
                watch(F.cross_entropy(model(x), y)).backward()

        return peak_bytes(step, torch.device("cpu"))

    plain = peak("identity")
    assert peak("ours") <= 1.01 * plain
    assert peak("naive") > 1.02 * plain


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="'tpu'"):
        overhead("tpu")
    with pytest.raises(UsageError, match="'fp8'"):
        overhead("cpu", precision="fp8")
    with pytest.raises(UsageError, match="'sun'"):
        overhead("cpu", clock="sun")


def test_cpu_time_leaves_out_what_others_take():
    import time

    from vcreg_hub.bench import overhead as module

    def measured(clock):
        plan = module._Plan(torch.device("cpu"), 1, 0, "no", clock, VCReg(), print)
        return module._time(lambda: time.sleep(0.05), plan)

    assert measured("wall") > 0.045 > measured("cpu")
    assert "CPU time" in render(overhead("cpu", networks=(), blocks=SMALL[:1], batch_size=2, rounds=1, clock="cpu"))


def test_the_default_blocks_are_those_of_table_8_networks():
    assert {block.name.split()[0] for block in BLOCKS} >= {"ViT-B/32", "ConvNeXt-T"}


@pytest.mark.gpu
def test_on_a_gpu():
    result = overhead("cuda", networks=["test_convnext"], blocks=SMALL, batch_size=4, rounds=2, image_size=64)
    assert not result["env"]["device"].startswith("CPU")
