"""One dry forward of a model, and for each module call what came in, what came out and what was added.

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
from .dry_run import Example, candidates, given, twin
from .recording import Call, Recorder, Shape, first_float, shape_of


@dataclass(frozen=True)
class Trace:
    """modules: names of all modules. calls: in the order they began (0 is the model). makers: the calls of those
    layers with weights whose results the model's output is made of, nothing else with weights in between. output:
    shape of that output (the logits, where it has several)."""

    modules: list[str]
    calls: list[Call]
    makers: frozenset[int]
    output: Shape | None

    def chain(self, index: int) -> Iterator[int]:
        """`index`, then the calls around it from the inside out, without the model itself."""
        while index > 0:
            yield index
            index = self.calls[index].parent


def trace(model: nn.Module, example_input: Any = None) -> Trace:
    """Runs a twin of `model` once and returns what its modules did.

    example_input: a tensor, a tuple of arguments or a dict of keyword arguments, on any device; only its shapes
        matter. None takes the sizes that the model's own configuration names.
    Raises BlocksNotFoundError when no input that could be thought of goes through.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise BlocksNotFoundError(
            f"{type(model).__name__} has lazy layers without weights; run one batch through it first"
        )
    examples = [given(example_input)] if example_input is not None else list(candidates(model))
    failures: list[tuple[str, Exception]] = []
    tensors = [*model.parameters(), *model.buffers()]
    for device in ["meta"] + ["same"] * any(t.device.type != "meta" for t in tensors):
        for example in examples:
            # A model that reads values (`.item()`) cannot run on meta; its second chance is a copy where it is.
            target = torch.device("meta") if device == "meta" else tensors[0].device
            placed = _place(example, target)
            try:
                return _run(twin(model, device), placed, target)
            except Exception as error:
                failures.append((_show(placed), error))
    shown, first = failures[0]
    raise BlocksNotFoundError(
        f"the dry run of {type(model).__name__} with input {shown} failed: "
        f"{type(first).__name__}: {str(first).strip().splitlines()[0] if str(first).strip() else 'no message'}. "
        "Pass example_input=... (a tensor, a tuple of arguments or a dict of keyword arguments) that it accepts"
    ) from first


def _run(model: nn.Module, example: Example, device: torch.device) -> Trace:
    args, kwargs = example
    recorder = Recorder(model)
    names = {module: name for name, module in model.named_modules()}
    with ExitStack() as stack:
        for module, name in names.items():
            if not isinstance(module, torch.jit.ScriptModule):
                stack.enter_context(_watched(module, name, recorder))
        stack.enter_context(_quiet(model, device))
        with recorder:
            output = model(*args, **kwargs)
    logits = first_float(getattr(output, "logits", output))
    fact = recorder.facts.get(id(logits))
    return Trace(
        modules=list(names.values()),
        calls=recorder.calls,
        makers=fact.makers if fact else frozenset(),
        output=shape_of(logits),
    )


@contextmanager
def _watched(module: nn.Module, name: str, recorder: Recorder) -> Iterator[None]:
    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        recorder.enter(name, module, (args, kwargs))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        recorder.leave(module, output)

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
