"""The result of `overhead` as a text table (GitHub Markdown)."""

from __future__ import annotations

from collections.abc import Sequence

from ..files import JSON
from ..results.tables import Table

TITLES = {
    "identity": "identity",
    "products": "two products",
    "naive": "VCReg, naive loss",
    "algorithm1": "VCReg, Algorithm 1",
    "ours": "VCReg, ours",
    "batchnorm": "BatchNorm",
}

CLOCKS = {"wall": "wall time", "cpu": "CPU time of the process"}


def render(result: JSON) -> str:
    """Networks, then single blocks; every number is `median ± interquartile range`."""
    env = result["env"]
    lines = [
        f"One forward and backward pass on {env['device']}, {env['threads']} threads, torch "
        f"{env['packages'].get('torch')}, precision {result['precision']}, {CLOCKS[result['clock']]}.",
    ]
    if result["networks"]:
        shares = ", ".join(f"{one['name']} {100 * one['flop_share']:.1f}%" for one in result["networks"])
        lines += ["", networks_table(result["networks"]).markdown(padded=True), ""]
        lines += [f"Share of the two products in each network's arithmetic: {shares}."]
    if result["blocks"]:
        lines += ["", *_blocks(result["blocks"])]
    return "\n".join(lines) + "\n"


def networks_table(networks: Sequence[JSON]) -> Table:
    """A line for each network and layer, beside the paper's ratio."""
    rows = []
    for network in networks:
        paper = network["paper_seconds"] or {}
        for name, v in network["variants"].items():
            # The paper's fast form is Algorithm 1; ours stands beside it.
            reported = paper.get("algorithm1" if name == "ours" else name)
            rows.append([
                f"{network['name']} (batch {network['batch_size']}, {network['sites']} blocks)",
                TITLES[name],
                f"{v['median_ms']:.1f} ± {v['spread_ms']:.1f}",
                f"{v['ratio']:.3f} ± {v['ratio_spread']:.3f}",
                f"{100 * (v['peak_ratio'] - 1):+.2f}%",
                f"{reported / paper['identity']:.2f}" if reported else "-",
            ])  # fmt: skip
    return Table.of(["network", "layer", "ms", "of identity", "peak memory", "paper (A100, batch 128)"], rows)


def _blocks(blocks: Sequence[JSON]) -> list[str]:
    rows = []
    for block in blocks:
        variants = block["variants"]
        naive = variants["naive"]["median_ms"] / variants["ours"]["median_ms"]
        rows.append([
            block["name"],
            " x ".join(map(str, block["shape"])),
            f"{variants['products']['median_ms']:.2f}",
            *(
                f"{variants[name]['ratio']:.2f} ± {variants[name]['ratio_spread']:.2f}"
                for name in ("ours", "algorithm1", "naive", "batchnorm")
            ),
            f"{naive:.2f}x",
        ])  # fmt: skip
    header = ["block", "shape", "two products, ms", *(TITLES[n] for n in ("ours", "algorithm1", "naive", "batchnorm"))]
    return [
        "Single blocks, as multiples of the time of the two matrix products:",
        "",
        Table.of([*header, "ours over naive"], rows).markdown(padded=True),
    ]
