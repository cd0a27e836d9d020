"""Measures the regularizer's cost: the paper's Table 8 on the machine at hand.

Whole networks: one forward and backward pass with each layer of Table 8 at every block. Single blocks: each layer
alone, beside the two matrix products that are its floor. Within a round every variant runs once, in changing order, in
one process, so a machine that slows down slows all of them; ratios are taken within rounds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from ..env import describe_env
from ..errors import UsageError
from ..files import JSON
from ..paper import PAPER_TABLES
from ..placement.sites import describe_sites, find_blocks
from ..regularizer.vcreg import VCReg
from .memory import peak_bytes
from .variants import NAMES, block_calls, inserted

# The paper's seconds on one NVIDIA A100 at batch size 128: network -> layer -> seconds.
PAPER = {
    name: dict(zip(PAPER_TABLES["table8"].columns, row, strict=True))
    for name, row in PAPER_TABLES["table8"].rows.items()
}

# Fewer rows (50 a sample) than its 768 channels would be another case than training meets.
CPU_BATCH = {"vit_base_patch32_224": 16, "ViT-B/32": 32}


@dataclass(frozen=True)
class Block:
    """Output of one block: shape (batch, ...), channel axis, whether a 4-D tensor is channels_last in memory."""

    name: str
    shape: tuple[int, ...]
    axis: int
    channels_last: bool = False

    def features(self, batch: int, device: torch.device) -> torch.Tensor:
        z = torch.randn((batch, *self.shape), device=device)
        return z.contiguous(memory_format=torch.channels_last) if self.channels_last else z


BLOCKS = (
    Block("ViT-B/32", (50, 768), -1),
    Block("ConvNeXt-T stage 1", (96, 56, 56), 1, channels_last=True),
    Block("ConvNeXt-T stage 2", (192, 28, 28), 1, channels_last=True),
    Block("ConvNeXt-T stage 3", (384, 14, 14), 1, channels_last=True),
    Block("ConvNeXt-T stage 4", (768, 7, 7), 1, channels_last=True),
    Block("ResNet-50 stage 1", (256, 56, 56), 1),
    Block("ResNet-50 stage 2", (512, 28, 28), 1),
    Block("ResNet-50 stage 3", (1024, 14, 14), 1),
    Block("ResNet-50 stage 4", (2048, 7, 7), 1),
)


def overhead(
    device: str = "cpu",
    *,
    networks: Sequence[str] = tuple(PAPER),
    blocks: Sequence[Block] = BLOCKS,
    batch_size: int | None = None,
    rounds: int | None = None,
    seconds: float = 30.0,
    precision: str = "no",
    clock: str = "wall",
    cfg: VCReg | None = None,
    image_size: int = 224,
    log: Callable[[str], None] = lambda line: None,
) -> JSON:
    """Time and peak memory of every variant, as a JSON-ready dict with the device's name; see `table.render`.

    batch_size: None is the paper's 128 on a GPU, and on a CPU what keeps the run short. rounds: None runs at least 3 of
    each network and goes on until `seconds` are spent on it. precision: "no" or "bf16", autocast for the
    networks. clock: "wall", or on a CPU that others are using "cpu", the seconds that this process computed. Raises
    UsageError for a device that is not there.
    """
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"device is 'cpu', or 'cuda' where torch finds a GPU; not {device!r}")
    if precision not in ("no", "bf16"):
        raise UsageError(f"precision is 'no' or 'bf16', not {precision!r}")
    if clock not in ("wall", "cpu") or (clock == "cpu" and device != "cpu"):
        raise UsageError(f"clock is 'wall', or 'cpu' on a CPU; not {clock!r} on {device!r}")
    cfg, where = cfg or VCReg(), torch.device(device)
    plan = _Plan(where, rounds, seconds, precision, clock, cfg, log)
    on_cpu = where.type == "cpu"
    env = describe_env()

    def default(name: str) -> int:
        return CPU_BATCH.get(name, 8) if on_cpu else 128

    if on_cpu and torch.cuda.is_available():
        env["device"] = "CPU"
    return {
        "format": 1,
        "env": env,
        "precision": precision,
        "clock": clock,
        "vcreg": asdict(cfg),
        "networks": [_network(name, batch_size or default(name), image_size, plan) for name in networks],
        "blocks": [_block(block, batch_size or default(block.name), plan) for block in blocks],
    }


@dataclass(frozen=True)
class _Plan:
    device: torch.device
    rounds: int | None
    seconds: float
    precision: str
    clock: str
    cfg: VCReg
    log: Callable[[str], None]


def _network(name: str, batch: int, image_size: int, plan: _Plan) -> JSON:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=1000).to(plan.device).train()
    x = torch.randn(batch, 3, image_size, image_size, device=plan.device)
    y = torch.randint(1000, (batch,), device=plan.device)
    sites = find_blocks(model, example_input=x[:1])
    shapes = {row["name"]: row["shape"] for row in describe_sites(model, sites, x[:1])}

    def step(variant: str) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            with inserted(variant, model, sites, shapes, plan.cfg) as watch:
                with torch.autocast(plan.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                    loss = watch(F.cross_entropy(model(x).float(), y))
                loss.backward()

        return run

    calls = {variant: step(variant) for variant in NAMES}
    plan.log(f"{name}: batch {batch}, {len(sites)} blocks")
    times = _interleaved(calls, plan)
    memory = {}
    for variant, call in calls.items():
        model.zero_grad(set_to_none=True)  # what a step frees of an earlier one would count against it
        memory[variant] = peak_bytes(call, plan.device)
    return {
        "name": name,
        "batch_size": batch,
        "image_size": image_size,
        "sites": len(sites),
        "rounds": len(times["identity"]),
        "flop_share": _flop_share(model, x, shapes, sites),
        "variants": {
            v: {**_summary(times[v], times["identity"]), "peak_bytes": memory[v],
                "peak_ratio": round(memory[v] / memory["identity"], 4)}
            for v in NAMES
        },
        "paper_seconds": PAPER.get(name),
    }  # fmt: skip


def _flop_share(model: torch.nn.Module, x: torch.Tensor, shapes: dict[str, Any], sites: Any) -> float:
    """The regularizer's arithmetic (two products a block) over the network's own, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    # A backward pass takes two products for each one of the forward pass. It is not counted itself, because torch's
    # counter takes the backward of a depthwise convolution for that of a full one.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1])
    ours = 0
    for site in sites:
        shape = shapes[site.name]
        d = shape[site.channel_axis]
        ours += 4 * torch.Size(shape[1:]).numel() // d * d * d
    return round(ours / (3 * counter.get_total_flops()), 4)


def _block(block: Block, batch: int, plan: _Plan) -> JSON:
    calls = block_calls(block.features(batch, plan.device), block.axis, plan.cfg)
    plan.log(f"{block.name}: {(batch, *block.shape)}")
    times = _interleaved(calls, replace(plan, seconds=plan.seconds / 20))
    return {
        **asdict(block),
        "shape": [batch, *block.shape],
        "rounds": len(times["products"]),
        "variants": {name: _summary(times[name], times["products"]) for name in calls},
    }


def _interleaved(calls: Mapping[str, Callable[[], object]], plan: _Plan) -> dict[str, list[float]]:
    """Seconds of every call in every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    names = list(calls)
    for name in names:
        _time(calls[name], plan)  # the first call allocates and picks algorithms
    started = time.monotonic()
    while True:
        order.shuffle(names)
        for name in names:
            times[name].append(_time(calls[name], plan))
        done = len(times[names[0]])
        if done >= (plan.rounds or 3) and (plan.rounds or time.monotonic() - started > plan.seconds):
            return times


def _time(call: Callable[[], object], plan: _Plan) -> float:
    clock = time.process_time if plan.clock == "cpu" else time.perf_counter
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)
    started = clock()
    call()
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)
    return clock() - started


def _summary(seconds: list[float], base: list[float]) -> dict[str, float]:
    """Median and spread (interquartile range) in milliseconds, and of the ratio to `base` round by round."""
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 3),
        "spread_ms": round(1e3 * _spread(seconds), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_spread": round(_spread(ratios), 4),
    }


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low
