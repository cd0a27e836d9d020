"""Finds VCReg's sites: the placements of the paper's Table 7 or a glob over module names, and the channel axis.

for site in find_blocks(timm.create_model("convnext_tiny", device="meta")):
    print(site.name, site.channel_axis)
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..errors import BlocksNotFoundError
from .classifier import classifier_calls
from .dry_run import unwrap
from .recording import Call, Shape
from .residual import residual_blocks
from .tracing import Trace, trace

PLACEMENTS = ("final", "blocks", "downsample", "blocks+downsample")


@dataclass(frozen=True)
class Site:
    """A place to regularize: the output, or for the classifier the input, of one module.

    name: dotted name of `module` in the model (inside the wrapper of torch.compile or DDP).
    channel_axis: axis of the channels in that tensor, 1 or -1; every other axis counts as samples.
    A module that returns several tensors means the first floating-point one.
    """

    name: str
    module: nn.Module
    channel_axis: int
    side: Literal["output", "input"] = "output"

    def __repr__(self) -> str:
        """The module's class in place of the module, whose own repr has a line for each layer."""
        side = "" if self.side == "output" else f", side={self.side!r}"
        return f"Site({self.name!r}, {type(self.module).__name__}, channel_axis={self.channel_axis}{side})"


def find_blocks(model: nn.Module, where: str = "blocks", example_input: Any = None) -> list[Site]:
    """The sites of `where` in `model`, in the order they are called; the model, on any device, is left as found.

    where: "blocks", the output of every residual block; "downsample", the output of the layers with weights between
        blocks that leave fewer positions than they were given (a ResNet's shortcut is not one); "blocks+downsample",
        both; "final", the input of the classifier; else a glob over module names (`*` also matches dots; of nested
        matches the outermost counts, of a layer and an activation that overwrites its output in place the activation),
        whose outputs are taken. These are the placements of the paper's Table 7.
    example_input: what the dry run feeds a copy of the model on the meta device: a tensor, a tuple of arguments or a
        dict of keyword arguments. None takes sizes from the model's own configuration.
    Raises BlocksNotFoundError when nothing answers to `where`, or the dry run fails.
    """
    model = unwrap(model)
    return sites_in(model, trace(model, example_input), where)


def sites_in(model: nn.Module, seen: Trace, where: str) -> list[Site]:
    """`find_blocks` for a model with a finished dry run (several placements of one model)."""
    if where not in PLACEMENTS:
        return _output_sites(seen, _matching(seen, where, model), model)
    _, blocks = residual_blocks(seen)
    if where == "final":
        heads = classifier_calls(seen, model, max(blocks, default=0))
        names = [seen.calls[i].name for i in heads]
        return [Site(n, model.get_submodule(n), _input_axis(seen.calls[i]), "input") for n, i in zip(names, heads)]
    if not blocks:
        raise BlocksNotFoundError(
            f"no residual block in {type(model).__name__} (0 of {len(seen.modules)} modules adds its input to what it "
            f"computed, and no list holds blocks). Pass {_glob(seen)}; it has {_outline(seen)}"
        )
    downsample = _downsample(seen, blocks) if where != "blocks" else []
    if where != "blocks" and not downsample:
        raise BlocksNotFoundError(
            f"no downsample layer between the {len(blocks)} blocks of {type(model).__name__} ({len(seen.modules)} "
            "modules looked at; a shortcut inside a block is not one). Pass where='blocks', or a glob over module names"
        )
    return _output_sites(seen, downsample if where == "downsample" else sorted(blocks + downsample), model)


def describe_sites(model: nn.Module, sites: Iterable[Site], example_input: Any = None) -> list[dict[str, Any]]:
    """One row a site: name, class, shape of its tensor for the example input, channels, channel_axis, side.

    A site that the dry run does not reach has shape None.
    """
    calls = {call.name: call for call in reversed(trace(unwrap(model), example_input).calls)}
    rows = []
    for site in sites:
        call = calls.get(site.name)
        shape = None if call is None else call.input if site.side == "input" else call.output
        rows.append(
            {
                "name": site.name,
                "class": type(site.module).__name__,
                "shape": shape,
                "channels": None if shape is None else shape[site.channel_axis],
                "channel_axis": site.channel_axis,
                "side": site.side,
            }
        )
    return rows


def _output_sites(seen: Trace, found: list[int], model: nn.Module) -> list[Site]:
    """Sites at the outputs of the calls `found`; of a module that is called twice the first place and the last axis."""
    axes = _channel_axes([seen.calls[i] for i in found])
    by_name = {seen.calls[i].name: axis for i, axis in zip(found, axes, strict=True)}
    return [Site(name, model.get_submodule(name), axis) for name, axis in by_name.items()]


def _input_axis(call: Call) -> int:
    """The classifier's channel axis: the last, or the first after the batch for convolutions and 1x1 maps."""
    shape = call.input or ()
    convolution = issubclass(call.kind, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return 1 if convolution or (len(shape) > 2 and math.prod(shape[2:]) == 1) else -1


def _channel_axes(calls: list[Call]) -> list[int]:
    """The channel axis (1 or -1) of each call's output.

    Up to three dimensions it is the last (tokens). Above, the axis as long as some parameter of the module, unless a
    square map contradicts; where that says nothing, what all other calls of its class say; then the axis unlike two
    equal ones; then 1.
    """
    votes = defaultdict(set)
    for call in calls:
        votes[call.kind].add(_axis_of_widths(call.output or (), call.widths))
    axes = []
    for call in calls:
        shape = call.output or ()
        if len(shape) <= 3:
            axes.append(-1)
            continue
        decided, square = _axis_of_widths(shape, call.widths), _axis_unlike(shape)
        others = votes[call.kind] - {0}
        if not decided and len(others) == 1:
            decided = min(others)
        axes.append(square if square and decided and square != decided else decided or square or 1)
    return axes


def _axis_of_widths(shape: Shape, widths: frozenset[int]) -> int:
    if len(shape) <= 3:
        return -1
    first, last = shape[1] in widths, shape[-1] in widths
    return 0 if first == last else 1 if first else -1


def _axis_unlike(shape: Shape) -> int:
    if shape[-1] == shape[-2] != shape[1]:
        return 1
    return -1 if shape[-3] == shape[-2] != shape[-1] else 0


def _downsample(seen: Trace, blocks: list[int]) -> list[int]:
    """The outermost calls with weights between two blocks that return fewer positions than they received."""
    around = {0} | {j for i in blocks for j in seen.chains[i] if j not in blocks}
    between = [
        i
        for i in range(blocks[0] + 1, blocks[-1])
        if seen.calls[i].parent in around and i not in around and i not in blocks
    ]
    weighted = [(i, seen.calls[i]) for i in between if seen.calls[i].matrices and seen.calls[i].input]
    return [i for i, call in weighted if call.output and _positions(call, call.output) < _positions(call, call.input)]


def _positions(call: Call, shape: Shape | None) -> int:
    """How many positions a map or token sequence has, channels aside; frames may be folded into the batch."""
    if not shape or len(shape) < 3:
        return 1
    axis = -1 if len(shape) == 3 else _axis_unlike(shape) or _axis_of_widths(shape, call.widths) or 1
    return math.prod(shape) // max(shape[axis], 1)


def _matching(seen: Trace, where: str, model: nn.Module) -> list[int]:
    """The outermost calls whose module name matches the glob."""
    names = set(fnmatch.filter((name for name in seen.modules if name), where))
    called = [i for i, call in enumerate(seen.calls) if call.name in names and len(call.output or ()) >= 2]
    matched = set(called)
    found = [i for i in called if not matched.intersection(seen.chains[i][1:])]
    last = {seen.calls[i].tensor: i for i in found}
    found = [i for i in found if not seen.calls[i].overwritten or last[seen.calls[i].tensor] == i]
    if found:
        return found
    if names:
        raise BlocksNotFoundError(
            f"{len(names)} of {len(seen.modules)} modules of {type(model).__name__} match where={where!r}, but the "
            f"forward pass calls none of them for a floating-point tensor of two or more dimensions: "
            f"{', '.join(sorted(names)[:3])}. Match the modules that are called"
        )
    nearest = difflib.get_close_matches(where, dict.fromkeys([*PLACEMENTS, *seen.modules]), n=3, cutoff=0.4)
    raise BlocksNotFoundError(
        f"where={where!r} is none of {', '.join(PLACEMENTS)} and matches none of the {len(seen.modules)} modules of "
        f"{type(model).__name__}; nearest: {', '.join(nearest) or _outline(seen)}"
    )


def _glob(seen: Trace) -> str:
    """The glob over the elements of the list with most weights, as in `where='features.*'`."""
    weights: dict[str, int] = defaultdict(int)
    for call in seen.calls:
        if call.element and "." in call.name:
            weights[call.name.rpartition(".")[0]] += call.matrices
    best = max(weights, key=lambda name: weights[name], default="")
    if not best:
        return "where='<glob over module names>'"
    return f"where='{best}.*', the outputs of its longest list of layers, or another glob over module names"


def _outline(seen: Trace) -> str:
    return ", ".join([name for name in seen.modules if name and "." not in name][:12])
