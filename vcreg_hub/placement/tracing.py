"""Runs a copy of a model once and returns each module call's inputs, outputs and sums.

The run is on a copy (`dry_run.py`), so the model is left as it was found; `recording.py` watches it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BlocksNotFoundError
from .dry_run import Example, examples, meta_copy
from .recording import Call, Recorder, Shape, first_float


@dataclass(frozen=True)
class Trace:
    """modules: names of all modules. calls: in the order they began (0 is the model). chains: for each call itself and
    the calls around it, from the inside out, without the model. makers: the calls of those layers with weights whose
    results the model's output is made of, nothing else with weights in between. output: shape of that output (the
    logits, where it has several)."""

    modules: list[str]
    calls: list[Call]
    chains: list[tuple[int, ...]]
    makers: frozenset[int]
    output: Shape | None


def trace(model: nn.Module, example_input: Any = None) -> Trace:
    """Runs a copy of `model` once and returns the record of its modules.

    example_input: a tensor, a tuple of arguments or a dict of keyword arguments, on any device; only its shapes
        matter. None takes the sizes that the model's own configuration names.
    Raises BlocksNotFoundError when no input that could be thought of goes through.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise BlocksNotFoundError(
            f"{type(model).__name__} has lazy layers without weights; run one batch through it first"
        )
    inputs = list(examples(model, example_input))
    failures: list[tuple[str, Exception]] = []
    tensors = [*model.parameters(), *model.buffers()]
    # A model that reads values (`.item()`) cannot run on meta; its second chance is a real copy where it is.
    for real in [False] + [True] * any(t.device.type != "meta" for t in tensors):
        device = tensors[0].device if real else torch.device("meta")
        for example in inputs:
            placed = _place(example, device)
            try:
                return _run(meta_copy(model, real=real), placed, device)
            except Exception as error:
                failures.append((_show(placed), error))
    shown, first = failures[0]
    raise BlocksNotFoundError(
        f"the dry run of {type(model).__name__} with input {shown} failed: "
        f"{type(first).__name__}: {str(first).strip().splitlines()[0] if str(first).strip() else 'no message'}. "
        f"{_cure(model)}"
    ) from first


def _cure(model: nn.Module) -> str:
    if any(kind.__name__ == "LightningModule" for kind in type(model).__mro__):
        inside = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
        return "A LightningModule is the training around a network: give the network inside it" + (
            f", {type(model).__name__}'s {' or '.join(inside[:4])}" if inside else ""
        )
    return "Pass example_input=... (a tensor, a tuple of arguments or a dict of keyword arguments) that it accepts"


def _run(model: nn.Module, example: Example, device: torch.device) -> Trace:
    args, kwargs = example
    with _quiet(model, device), Recorder(model) as recorder:
        output = model(*args, **kwargs)
    logits = first_float(getattr(output, "logits", output))
    chains: list[tuple[int, ...]] = []
    for i, call in enumerate(recorder.calls):
        chains.append((i, *(chains[call.parent] if call.parent > 0 else ())) if i > 0 else ())
    return Trace(
        modules=[name for name, _ in model.named_modules()],
        calls=recorder.calls,
        chains=chains,
        makers=recorder.makers(logits),
        output=None if logits is None else tuple(logits.shape),
    )


@contextmanager
def _quiet(model: nn.Module, device: torch.device) -> Iterator[None]:
    """No gradients, no warnings, the random state put back, and no fused path around the modules."""
    fused = torch.backends.mha.get_fastpath_enabled()
    cuda = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if any(hasattr(module, "_orig_mod") for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def _place(example: Example, device: torch.device) -> Example:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.detach()
            return torch.zeros_like(value, device=device) if value.is_meta else value.to(device, copy=True)
        if isinstance(value, Mapping):
            return {key: move(item) for key, item in value.items()}
        return type(value)(move(item) for item in value) if type(value) in (list, tuple) else value

    args, kwargs = example
    return tuple(move(item) for item in args), {key: move(item) for key, item in kwargs.items()}


def _show(example: Example) -> str:
    args, kwargs = example
    shown = [str(tuple(v.shape)) if isinstance(v, Tensor) else repr(v) for v in args]
    return ", ".join(shown + [f"{k}={tuple(v.shape) if isinstance(v, Tensor) else v}" for k, v in kwargs.items()])
