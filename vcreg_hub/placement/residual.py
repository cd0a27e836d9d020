"""Finds the residual blocks of a traced model by its modules' deeds, not by their names.

1. A call that added a tensor it received to what it computed is residual, and so is every call of a module of its
   class (which covers the strided instances, whose shortcut has weights).
2. Each stands for the innermost list element around it (`layer1.0`, `stages.2.blocks.4`); where such elements nest,
   the innermost count, and one beside them if its class does. One outside every list stands for the call around it
   whose class is already a block, or for itself. A class that occurs with weighted shortcuts only is added where its
   calls neither hold nor sit in one of these. A class whose only weights are depthwise (position encodings by a
   convolution, as in Twins) counts where there is no other.
3. If nothing at all is residual, shortcuts with weights count; if there are none either, modules that concatenate
   (dense and Inception blocks); at last the innermost list elements with two or more weight matrices.

The calls of a small network, indented as they nest, and what becomes of them:

    0  Net
    1    Sequential       stages              a list
    2      Block          stages.0            skip: a block
    3        Linear       stages.0.body
    4      Block          stages.1            no skip (its shortcut has weights), but of the same class: a block
    5        Linear       stages.1.body
    6        Linear       stages.1.shortcut
    7    Linear           head                adds nothing

    chains[5] is (5, 4, 1): the call itself and those around it, from the inside out, without the network.

    >>> from torch import nn
    >>> class Net: ...
    >>> class Block: ...
    >>> def call(name, kind, parent, element=False, **found):
    ...     return Call(name, kind, parent, element, 1, frozenset(), output=(2, 8), **found)
    >>> calls = [
    ...     call("", Net, -1),
    ...     call("stages", nn.Sequential, 0),
    ...     call("stages.0", Block, 1, element=True, skip=True),
    ...     call("stages.0.body", nn.Linear, 2),
    ...     call("stages.1", Block, 1, element=True, projected=True, bypass=True),
    ...     call("stages.1.body", nn.Linear, 4),
    ...     call("stages.1.shortcut", nn.Linear, 4),
    ...     call("head", nn.Linear, 0),
    ... ]
    >>> chains = [(), (1,), (2, 1), (3, 2, 1), (4, 1), (5, 4, 1), (6, 4, 1), (7,)]
    >>> residual_blocks(Trace([], calls, chains, frozenset(), None))
    ('skip', [2, 4])
"""

from __future__ import annotations

from .recording import Call
from .tracing import Trace


def residual_blocks(trace: Trace) -> tuple[str, list[int]]:
    """(tier, indices into trace.calls); tier is "skip", "projection", "concat", "list" or "none", with no indices."""
    calls = list(enumerate(trace.calls))
    skips = _blocks(trace, [i for i, call in calls if call.skip])
    mixing = {trace.calls[i].kind for i in skips if trace.calls[i].mixing}
    skips = [i for i in skips if trace.calls[i].kind in mixing] or skips
    if skips:
        # Blocks around a shortcut with weights, apart from those found (HRNet's first stage, CoaT's serial blocks).
        more = _blocks(trace, [i for i, call in calls if call.bypass])
        return "skip", sorted(skips + _innermost(trace, _apart(trace, more, skips)))
    projections = _blocks(trace, [i for i, call in calls if call.projected])
    if projections:
        return "projection", projections
    joins = _blocks(trace, [i for i, call in calls if call.joined])
    if joins:
        return "concat", [i for i in joins if trace.calls[i].element] or joins
    lists = _innermost(trace, [i for i, call in calls if call.element and call.matrices >= 2 and _usable(call)])
    return ("list" if lists else "none"), lists


def _blocks(trace: Trace, seeds: list[int]) -> list[int]:
    """The innermost blocks that the calls of the seeds' classes stand for, in call order."""
    kinds = {trace.calls[i].kind for i in seeds if i > 0}
    residual = [i for i, call in enumerate(trace.calls) if call.kind in kinds and i > 0]
    element_of = {i: next((j for j in trace.chains[i] if trace.calls[j].element), None) for i in residual}
    block_kinds = {trace.calls[j].kind for j in element_of.values() if j is not None}
    found = set()
    for i in residual:
        block = element_of[i]
        if block is None:
            block = next((j for j in trace.chains[i] if trace.calls[j].kind in block_kinds), i)
        found.add(block)
    kept = _innermost(trace, sorted(i for i in found if _usable(trace.calls[i])))
    strays = _strays(trace, _apart(trace, residual, kept), kept)
    return sorted(kept + _innermost(trace, sorted(i for i in strays if _usable(trace.calls[i]))))


def _strays(trace: Trace, residual: list[int], kept: list[int]) -> set[int]:
    """Blocks beside a list instead of in it (RepViT's and MobileViT's first of a stage): known by their class only."""
    kinds = {trace.calls[i].kind for i in kept}
    around = {j for i in kept for j in trace.chains[i]}
    found = set()
    for i in residual:
        found.update([j for j in trace.chains[i] if trace.calls[j].kind in kinds and j not in around][:1])
    return found


def _apart(trace: Trace, candidates: list[int], found: list[int]) -> list[int]:
    """The candidates that neither hold one of `found`, nor are one, nor sit in one."""
    taken, around = set(found), {j for i in found for j in trace.chains[i]}
    return [i for i in candidates if i not in around and not taken & set(trace.chains[i])]


def _innermost(trace: Trace, found: list[int]) -> list[int]:
    around = {j for i in found for j in trace.chains[i][1:]}
    return [i for i in found if i not in around]


def _usable(call: Call) -> bool:
    return call.output is not None and len(call.output) >= 2
