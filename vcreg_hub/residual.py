"""Which modules of a traced model are its residual blocks: a rule on what they did, not a table of their names.

1. A call that added a tensor it received to what it computed is residual, and so is every call of a module of its
   class (which covers the strided instances, whose shortcut has weights).
2. Each stands for the innermost list element around it (`layer1.0`, `stages.2.blocks.4`); where such elements nest,
   the innermost count. One outside every list stands for the call around it whose class is already a block, or itself.
3. If nothing at all is residual, shortcuts with weights count; if there are none either, modules that concatenate
   (dense and Inception blocks); at last the innermost list elements with two or more weight matrices.
"""

from __future__ import annotations

from .recorder import Call
from .tracing import Trace


def residual_blocks(trace: Trace) -> tuple[str, list[int]]:
    """(tier, indices into trace.calls); tier is "skip", "projection", "concat", "list" or "none", with no indices."""
    calls = list(enumerate(trace.calls))
    for tier, seeds in (
        ("skip", [i for i, call in calls if call.skip]),
        ("projection", [i for i, call in calls if call.projected]),
        ("concat", [i for i, call in calls if call.joined]),
    ):
        found = _innermost(trace, _lifted(trace, seeds))
        if found and tier == "skip":
            found = sorted(found + _elsewhere(trace, found))
        if found:
            return tier, found
    lists = [i for i, c in calls if c.element and c.matrices >= 2 and _usable(c)]
    found = _innermost(trace, lists)
    return ("list" if found else "none"), found


def _lifted(trace: Trace, seeds: list[int]) -> list[int]:
    """The blocks that the calls of the seeds' classes stand for, in call order."""
    kinds = {trace.calls[i].kind for i in seeds if i > 0}
    residual = [i for i, call in enumerate(trace.calls) if call.kind in kinds and i > 0]
    element_of = {i: next((j for j in trace.chain(i) if trace.calls[j].element), None) for i in residual}
    block_kinds = {trace.calls[j].kind for j in element_of.values() if j is not None}
    found = set()
    for i in residual:
        block = element_of[i]
        if block is None:
            block = next((j for j in trace.chain(i) if trace.calls[j].kind in block_kinds), i)
        found.add(block)
    return sorted(i for i in found if _usable(trace.calls[i]))


def _elsewhere(trace: Trace, found: list[int]) -> list[int]:
    """Blocks around a shortcut with weights, apart from those found (HRNet's first stage, CoaT's serial blocks)."""
    taken = set(found)
    around = {j for i in found for j in trace.chain(i)}
    more = _lifted(trace, [i for i, call in enumerate(trace.calls) if call.bypass])
    return _innermost(trace, [i for i in more if i not in around and not taken & set(trace.chain(i))])


def _innermost(trace: Trace, found: list[int]) -> list[int]:
    around = {j for i in found for j in trace.chain(i) if j != i}
    return [i for i in found if i not in around]


def _usable(call: Call) -> bool:
    return call.output is not None and len(call.output) >= 2
