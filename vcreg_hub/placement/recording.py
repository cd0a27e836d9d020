"""Records every module call and every tensor operation of a forward pass, and so the origin of each sum.

Two questions are answered on the way. Does a module add a tensor it received to something it computed (a skip
connection)? And which layer made the tensor that the model returns (its classifier)?

A block, and what is known while it runs:

    x ---+--- linear --- y --- (+) --- z        block receives x: received = {x}
         |                      |               linear makes y of x: projected = {y}, makers of y = {linear}
         +----------------------+               y + x: one of the two was received, so block.skip is set

    >>> import torch
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return self.linear(x) + x
    >>> model, x = nn.Sequential(Block(), nn.Linear(4, 2)), torch.zeros(1, 4)
    >>> with Recorder(model) as recorder:
    ...     logits = model(x)
    >>> [(call.name, call.parent, call.output, call.skip) for call in recorder.calls]  # doctest: +NORMALIZE_WHITESPACE
    [('', -1, (1, 2), False), ('0', 0, (1, 4), True), ('0.linear', 1, (1, 4), False), ('1', 0, (1, 2), False)]
    >>> [recorder.calls[i].name for i in recorder.makers(logits)]
    ['1']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from .dry_run import tensors_of

Shape = tuple[int, ...]

# The same values in another arrangement: a sum with one of these is still a sum with the tensor they came from.
_LAYOUT = frozenset(
    "view reshape permute transpose swapaxes swapdims movedim flatten unflatten contiguous squeeze unsqueeze roll "
    "clone detach to float view_as reshape_as type_as".split()
)
_OF_FIRST = _LAYOUT | {"expand", "expand_as"}  # a second tensor only lends its shape, dtype or device
_OF_NONE = frozenset("zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones".split())
_JOIN = frozenset(("cat", "concat", "concatenate"))
_NUMBER = re.compile(r"\d")
_ADD = frozenset(("add", "add_", "__add__", "__radd__", "__iadd__"))


@dataclass
class Call:
    """One call of one module.

    name: dotted module name; kind: the module's class; parent: index of the call it happened inside (-1: none).
    element: the module is an element of a Sequential, ModuleList or ModuleDict.
    matrices: how many of its parameters have two or more dimensions; mixing: of these, how many make a channel of
    several (all but depthwise convolutions); widths: the first dimension of each parameter.
    input / output: shape of the first floating-point tensor received / returned, None without one.
    skip: the module added a tensor it received to an activation of the same shape.
    projected: it so added what one of its children made of a received tensor; bypass: and what it added that to had
        gone deeper (a shortcut with weights, not one of several parallel branches).
    joined: the module concatenated activations.
    tensor: the identity of the output in this run; overwritten: an operation in place changed it after the call.
    """

    name: str
    kind: type[nn.Module]
    parent: int
    element: bool
    matrices: int
    widths: frozenset[int]
    input: Shape | None = None
    output: Shape | None = None
    skip: bool = False
    projected: bool = False
    bypass: bool = False
    joined: bool = False
    mixing: int = 1
    tensor: int = 0
    overwritten: bool = False


class _Fact(NamedTuple):
    """What is known of a tensor. root: id of the tensor whose values it holds; constant: made of weights alone;
    makers: the calls of the layers with weights it came from last. It holds the tensor, so that ids stay unique."""

    tensor: Tensor
    root: int
    constant: bool
    makers: frozenset[int]


@dataclass
class _Frame:
    """A module call under way: roots of the tensors it received, and of what its children made of them."""

    index: int
    received: set[int] = field(default_factory=set)
    projected: set[int] = field(default_factory=set)


class Recorder(TorchFunctionMode):
    """The calls of `model`'s forward passes inside its block; leaving it removes its hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._model = model
        self._elements = _elements(model)
        self._handles: list[RemovableHandle] = []
        self._returned: list[tuple[Call, Tensor, int]] = []  # with the version that the tensor had
        self._stack: list[_Frame] = []
        self._facts = {id(t): _Fact(t, id(t), True, frozenset()) for t in tensors_of(model)}

    def makers(self, tensor: Tensor | None) -> frozenset[int]:
        """Indices of the last calls of layers with weights behind `tensor`."""
        known = self._facts.get(id(tensor))
        return known.makers if known else frozenset()

    def __enter__(self) -> Recorder:
        for name, module in self._model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                began = partial(self._began, name)
                self._handles += [
                    module.register_forward_pre_hook(began, with_kwargs=True),
                    module.register_forward_hook(self._ended, with_kwargs=True, prepend=True),
                ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        for call, tensor, version in self._returned:
            call.tensor, call.overwritten = id(tensor), tensor._version > version
        self._handles, self._returned = [], []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        made = list(_tensors(output))
        if made:
            self._operation(getattr(func, "__name__", ""), list(_tensors((args, kwargs))), made)
        return output

    def _fact(self, tensor: Tensor) -> _Fact:
        """What is known of `tensor`; one never seen before is an input, or an activation made out of sight."""
        known = self._facts.get(id(tensor))
        if known is None:
            known = _Fact(tensor, id(tensor), False, frozenset())
            self._facts[id(tensor)] = known
        return known

    def _began(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook of every module."""
        inputs = (args, kwargs)
        received = [self._fact(tensor) for tensor in _tensors(inputs)]
        call = Call(
            name,
            type(module),
            self._stack[-1].index if self._stack else -1,
            element=module in self._elements,
            matrices=sum(parameter.dim() >= 2 for parameter in module.parameters()),
            mixing=sum(parameter.dim() >= 2 and parameter.shape[1] > 1 for parameter in module.parameters()),
            widths=frozenset(parameter.shape[0] for parameter in module.parameters() if parameter.dim()),
            input=_shape_of(inputs),
        )
        self.calls.append(call)
        frame = _Frame(len(self.calls) - 1, {fact.root for fact in received if not fact.constant})
        self._stack.append(frame)

    def _ended(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Forward hook of every module."""
        frame = self._stack.pop()
        self.calls[frame.index].output = _shape_of(output)
        first = first_float(output)
        if first is not None:
            self._returned.append((self.calls[frame.index], first, first._version))
        made = [self._fact(tensor) for tensor in _tensors(output)]
        if self._stack:
            outer = self._stack[-1]
            if frame.received & outer.received:
                outer.projected.update(fact.root for fact in made)
            if _is_layer(module):
                for fact in made:
                    self._facts[id(fact.tensor)] = fact._replace(makers=frozenset((frame.index,)))

    def _operation(self, name: str, operands: list[Tensor], made: list[Tensor]) -> None:
        facts = [self._fact(tensor) for tensor in operands]
        if name in _ADD and len(facts) == 2:
            self._sum(facts[0], facts[1], made[0])
        elif name in _ADD and facts and self._stack and facts[0].root in self._stack[-1].projected:
            self._stack[-1].projected.add(id(made[0]))  # plus a number, as in `0 + branch`
        elif name in _JOIN and sum(not fact.constant for fact in facts) >= 2 and self._stack:
            self.calls[self._stack[-1].index].joined = True
        facts = [] if name in _OF_NONE else facts[:1] if name in _OF_FIRST else facts
        makers: frozenset[int] = frozenset().union(*(fact.makers for fact in facts))
        constant = all(fact.constant for fact in facts)
        for tensor in made:
            known = self._facts.get(id(tensor))
            if known is not None:  # written in place, or handed through
                self._facts[id(tensor)] = known._replace(
                    makers=known.makers | makers, constant=known.constant and constant
                )
                continue
            root = facts[0].root if name in _LAYOUT and facts else id(tensor)
            self._facts[id(tensor)] = _Fact(tensor, root, constant, makers)

    def _sum(self, left: _Fact, right: _Fact, total: Tensor) -> None:
        same = left.tensor.shape == right.tensor.shape and left.tensor.is_floating_point()
        if not same or left.constant or right.constant or not self._stack:
            return
        roots = {left.root, right.root}
        # A module that received both only joins them; the skip belongs to the module that computed one of the two.
        frame = next((f for f in reversed(self._stack) if not roots <= f.received), None)
        if frame is None:
            return
        if roots & frame.received:
            self.calls[frame.index].skip = True
        elif roots & frame.projected:
            self.calls[frame.index].projected = True
            if roots <= frame.projected:
                frame.projected.add(id(total))
            else:
                self.calls[frame.index].bypass = True


def _elements(model: nn.Module) -> set[nn.Module]:
    """Elements of lists. A model that is a ModuleDict itself is no list: timm's feature nets hold their stages so. Nor
    is a Sequential of parts with names but no numbers, such as the convolution and the attentions of a MaxViT layer."""
    lists = [m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict)]
    counted = [m for m in lists if not isinstance(m, nn.Sequential) or any(map(_NUMBER.search, m._modules))]
    return {child for m in counted if m is not model or isinstance(m, nn.Sequential) for child in m.children()}


def _is_layer(module: nn.Module) -> bool:
    """Whether `module` is innermost among those that hold weights."""
    own = any(parameter is not None for parameter in module._parameters.values())
    return own and not any(True for child in module.children() for _ in child.parameters())


def _shape_of(value: Any) -> Shape | None:
    first = first_float(value)
    return None if first is None else tuple(first.shape)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def first_float(value: Any) -> Tensor | None:
    """The first floating-point tensor in a tensor, sequence, mapping or ModelOutput; None without one."""
    return next((t for t in _tensors(value) if t.is_floating_point()), None)
