"""One dry forward of a model, and for each module call what came in, what came out and what was added.

The run is on a copy (`dry_run.py`), so the model is left as it was found; `recording.py` watches it.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BlocksNotFoundError
from .dry_run import Example, candidates, given, tensors_of, twin
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
    """Runs a twin of `model` once and returns what its modules did; a model that nobody changed since is not run again
    for such an input.

    example_input: a tensor, a tuple of arguments or a dict of keyword arguments, on any device; only its shapes
        matter. None takes the sizes that the model's own configuration names.
    Raises BlocksNotFoundError when no input that could be thought of goes through.
    """
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise BlocksNotFoundError(
            f"{type(model).__name__} has lazy layers without weights; run one batch through it first"
        )
    examples = [given(example_input)] if example_input is not None else list(candidates(model))
    state = _state(model, examples)
    known = _known.get(model)
    if known is not None and known[0] == state:
        return known[1]
    failures: list[tuple[str, Exception]] = []
    tensors = [*model.parameters(), *model.buffers()]
    for device in ["meta"] + ["same"] * any(t.device.type != "meta" for t in tensors):
        for example in examples:
            # A model that reads values (`.item()`) cannot run on meta; its second chance is a copy where it is.
            target = torch.device("meta") if device == "meta" else tensors[0].device
            placed = _place(example, target)
            try:
                seen = _run(twin(model, device), placed, target)
                if device == "meta" and state is not None:  # a run that read values may go another way for others
                    _known[model] = state, seen
                return seen
            except Exception as error:
                failures.append((_show(placed), error))
    shown, first = failures[0]
    raise BlocksNotFoundError(
        f"the dry run of {type(model).__name__} with input {shown} failed: "
        f"{type(first).__name__}: {str(first).strip().splitlines()[0] if str(first).strip() else 'no message'}. "
        "Pass example_input=... (a tensor, a tuple of arguments or a dict of keyword arguments) that it accepts"
    ) from first


# The last dry run of a model, and what it depended on. Loading weights, renewing a head and attaching each ask for one.
_known: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], Trace]] = weakref.WeakKeyDictionary()


def _state(model: nn.Module, examples: list[Example]) -> tuple[Any, ...] | None:
    """What a dry run on the meta device depends on: the inputs' shapes, which modules there are, their plain settings
    and configurations, and the tensors' shapes. None for what cannot be compared: other inputs, a replaced forward."""
    inputs = []
    for args, kwargs in examples:
        values = [*args, *kwargs.values()]
        if not all(isinstance(value, Tensor) for value in values):
            return None
        inputs.append((len(args), tuple(kwargs), *((tuple(value.shape), value.dtype) for value in values)))
    modules, configs = [], {}
    for name, module in model.named_modules():
        attributes = vars(module)
        if "forward" in attributes:
            return None
        settings = {key: repr(value) for key, value in attributes.items() if key != "training" and _is_plain(value)}
        modules.append((name, weakref.ref(module), type(module), settings))
        config = attributes.get("config")
        if hasattr(config, "to_dict"):
            configs[id(config)] = str(config.to_dict())
    tensors = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors_of(model)]
    return inputs, modules, list(configs.values()), tensors


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


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
