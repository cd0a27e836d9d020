"""Finds the classifier of a traced model; its input is the final representation."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..errors import BlocksNotFoundError
from .tracing import Trace


def classifier_calls(seen: Trace, model: nn.Module, last_block: int = 0) -> list[int]:
    """Indices of the calls from final representation to logits; several for a model with several heads.

    last_block: index of the last block's call, which the classifier comes after.

    What timm's `get_classifier` names, or else the layers whose results the output is made of with nothing of weights
    in between; with num_classes=0 the Identity in their place. Raises BlocksNotFoundError when there is none.
    """
    declared = _declared(seen, model)
    if declared:
        return declared
    classes = seen.output[-1] if seen.output else None
    heads = []
    for i in sorted(seen.makers) if getattr(model, "num_classes", None) != 0 else ():
        call = seen.calls[i]
        if i < last_block or last_block in seen.chains[i]:
            continue
        if call.matrices and call.output and classes in (call.output[1], call.output[-1]):
            heads.append(i)
    last = seen.calls[-1]
    if not heads and last.kind is nn.Identity and last.output == seen.output and len(last.output or ()) in (2, 3):
        heads.append(len(seen.calls) - 1)  # num_classes=0 leaves the place of the classifier to an Identity
    if not heads:
        makers = ", ".join(repr(seen.calls[i].name) for i in sorted(seen.makers)[:3]) or "no layer"
        raise BlocksNotFoundError(
            f"no classifier in {type(model).__name__} ({len(seen.modules)} modules looked at; its output comes from "
            f"{makers}). Build it with a classifier (num_classes > 0), or pass where='<glob over module names>'"
        )
    return list({seen.calls[i].name: i for i in heads}.values())


def _declared(seen: Trace, model: nn.Module) -> list[int]:
    """The classifiers that timm names, if each is called with one vector a sample (some name a head that pools)."""
    get_classifier: Any = getattr(model, "get_classifier", None)
    if get_classifier is None:
        return []
    pending, named = [get_classifier()], set()
    while pending:
        head = pending.pop()
        if isinstance(head, list | tuple | nn.ModuleList):
            pending.extend(head)
        else:
            named.add(head)
    names = {name for name, module in model.named_modules() if module in named}
    calls = {call.name: i for i, call in enumerate(seen.calls) if call.name in names}
    inputs = [seen.calls[i].input or (0, 0, 0) for i in calls.values()]
    vectors = all(math.prod(shape[1:]) == max(shape[1:]) > 0 for shape in inputs)
    return sorted(calls.values()) if vectors and len(calls) == len(names) else []
