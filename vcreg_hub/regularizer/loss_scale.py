"""Records how the loss is scaled, for the gradient injected at the features.

A GradScaler multiplies the loss, accumulation divides it, two losses are weighted and summed; all of it happens after
the loss was made. The gradient that arrives at the loss says the total of it, so `watch` records that gradient, and it
does so before any block's backward can run. Where it is recorded is a *cell*, a 0-d tensor: every forward pass is bound
to the cell that is open, and `watch` closes it and opens the next. So a forward pass belongs to the losses that were
watched between it and the next one. Of losses i with weights w_i, scaled by s_i, the regularizer R of that pass adds

    sum_i s_i (loss_i + w_i R)

whatever the order and number of backward passes: each loss adds its own s_i w_i to the cell when the walk reaches it.

    cell                         holds
    of a pass nobody watched     1
    of a watched one             0, so that a walk which no watched loss began adds nothing
    while its losses are walked  the sum of their s_i w_i, up to the end of that backward pass

Cells are tensors, read at the time of the backward pass, because nothing else reaches a compiled one; they are written
through `.data` because autograd would take any other write for a change of a saved value.

One step with accumulation over four:

    forward pass        the block keeps the open cell                                       cell = 1
    watch(loss)         that cell is closed, another one opened for the next forward pass   cell = 0
    (loss / 4).backward()
        at the loss     the gradient that arrives is 1/4: added to the cell                 cell = 1/4
        at the block    reads 1/4 and multiplies its gradient by it                         cell = 1/4
        at the end      forgotten                                                           cell = 0

    >>> scale, x, seen = LossScale(torch.device("cpu")), torch.ones(3, requires_grad=True), []
    >>> cell = scale.for_forward(0)
    >>> handle = x.register_hook(lambda grad: seen.append((scale.bind(cell), cell.item())))  # the block's backward
    >>> loss = (2 * x).sum()
    >>> scale.watch(loss)
    >>> (loss / 4).backward()
    >>> seen, cell.item()
    ([('running', 0.25)], 0.0)
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Variable

from ..errors import AttachError

_NO_TASK = -1
_BATCHED = torch._C._dispatch_key_parse("Batched")  # type: ignore[attr-defined, unused-ignore]
# What a backward pass finds in a cell: its watched losses run, none of them runs, or it has none.
Reached = Literal["running", "idle", "unwatched"]


def _backward_task() -> int:
    """The number of the backward pass that this thread is in, `_NO_TASK` outside of one."""
    return torch._C._current_graph_task_id()


@dataclass
class _Watched:
    """The forward passes since the watch before, and the losses watched of them. losses: the graph's node of each, and
    the cells that it adds its scale to; empty for a single pass."""

    cell: Tensor
    passes: int
    losses: list[tuple[Any, list[Tensor]]] = field(default_factory=list)


class LossScale:
    """The cells of one attachment and the state of the backward pass that is running."""

    def __init__(self, device: torch.device) -> None:
        self.traced = False  # whether a forward pass was compiled: those use the open cell without being seen here
        self._hidden = False  # whether any forward pass was not seen here
        self._watched: set[int] = set()  # addresses of the cells that have a watched loss
        self._last: _Watched | None = None
        self._running: list[Tensor] = []  # cells of the losses that the running backward pass has reached
        self._open(device)
        self._forget()

    def _open(self, device: torch.device) -> None:
        self.open = _cell(device)
        self._watched.discard(_address(self.open))  # the address may be that of an older cell
        self._sites: set[int] = set()  # that took the open cell in the forward pass that is running
        self._passes = 0
        self._hid = False

    def _forget(self) -> None:
        for cell in self._running:
            cell.data.zero_()
        self._running = []
        self._read: set[int] = set()  # addresses of the cells that its blocks were bound to
        self._task: Callable[[], object] | None = None  # a weak reference that dies with the backward pass

    def __getstate__(self) -> torch.device:
        return self.open.device

    def __setstate__(self, device: torch.device) -> None:
        self.__init__(device)  # type: ignore[misc]

    def for_forward(self, site: int) -> Tensor:
        """The cell of the forward pass that is running at `site`. (Not called while compiling, which takes `open`.)"""
        self.settle()
        if self._running and _backward_task() != _NO_TASK:
            # A forward pass inside a backward pass is the recomputation of a checkpoint, of the loss that is running.
            if len({_address(cell) for cell in self._running}) > 1:
                raise AttachError(
                    "reentrant checkpointing recomputes a forward pass inside a backward pass with two watched losses, "
                    "and does not say which of them it belongs to. Call backward on each loss, or checkpoint with "
                    "use_reentrant=False."
                )
            return self._running[-1]
        if not self._sites or site in self._sites:
            self._passes += 1
            self._sites, self._last = set(), None
        self._sites.add(site)
        return self.open

    def hide(self) -> None:
        """A training forward pass without gradients: of a reentrant checkpoint, perhaps, whose sites come to the cell
        when the backward pass recomputes them."""
        self.settle()
        self._hid = self._hidden = True

    def settle(self) -> None:
        """Forgets a backward pass that was interrupted."""
        if self._task is not None and self._task() is None:
            self._forget()

    def watch(self, loss: Tensor, weight: float | Tensor = 1.0) -> None:
        """Bind the forward passes since the last watch to this loss. weight: of their regularizer, beside it.

        Further losses that are watched before the next forward pass are of the same ones. A loss that is watched twice
        counts once.
        """
        self.settle()
        node: Any = loss.grad_fn
        if node is not None:
            known = node.metadata.setdefault(__name__, weakref.WeakSet())
            if self in known:
                return
            known.add(self)
        if self._last is None or self._sites or self._hid or self.traced:
            self._last = _Watched(self.open, self._passes)
            self._mark(self.open)
            self._open(loss.device)
        last, cells = self._last, [self._last.cell]
        if last.passes > 1:  # else the graph need not be asked, nor kept
            last.losses.append((node, cells))
            if len(last.losses) > 1:
                self._tell_apart(last)

        def record(grad: Tensor) -> None:
            refuse_transforms("the watched loss", grad)
            # A loss of several elements is reduced later: their gradients sum to the scale of the reduced one.
            total = torch.ones(()) if grad.is_meta else grad.sum() * weight
            self._start()
            for cell in cells:
                cell.data.add_(total.to(cell.device))  # a loss may lie on another device than the first layer
                self._running.append(cell)

        loss.register_hook(record)

    def _mark(self, cell: Tensor) -> None:
        cell.data.zero_()
        self._watched.add(_address(cell))

    def _tell_apart(self, last: _Watched) -> None:
        """Several losses of several forward passes: the graph says which site's backward each of them leads to, and the
        sites that the same losses lead to get a cell of their own."""
        addresses = {_address(last.cell), *(_address(cell) for _, cells in last.losses for cell in cells)}
        reached = [{site for site in _nodes_below(node) if _cell_of(site) in addresses} for node, _ in last.losses]
        if not all(reached):
            raise AttachError(
                "two losses of several forward passes were watched, and the graph does not say which belongs to which "
                "(reentrant checkpointing and compiled code hide it). Watch the total once: loss = vc.watch(a + b)."
            )
        cells: dict[tuple[bool, ...], Tensor] = {}
        for site in set.union(*reached):
            leading = tuple(site in sites for sites in reached)
            if leading not in cells:
                cells[leading] = _cell(last.cell.device)
                self._mark(cells[leading])
            site.cell = cells[leading]
        for i, (_, own) in enumerate(last.losses):
            own[:] = [cell for leading, cell in cells.items() if leading[i]]

    def _start(self) -> None:
        self.settle()
        if self._task is None:

            def end() -> None:
                self._end()

            # The backward pass owns it, so that it is gone with a pass that was interrupted.
            self._task = weakref.ref(end)
            Variable._execution_engine.queue_callback(end)

    def bind(self, cell: Tensor) -> Reached:
        """A block's backward asks what its cell holds."""
        self.settle()
        address = _address(cell)
        self._read.add(address)
        if any(address == _address(one) for one in self._running):
            return "running"
        return "idle" if address in self._watched else "unwatched"

    def _end(self) -> None:
        """The end of a watched backward pass. A scale must not survive into one that is not."""
        running, read = {_address(cell) for cell in self._running}, self._read
        watched = self._watched & read
        self._forget()
        if read - watched:
            raise AttachError(
                "the backward pass of a watched loss reached a forward pass whose own loss was not watched, so its "
                "scale is unknown. Watch the total once: loss = vc.watch(a + b)."
            )
        if (self.traced or self._hidden) and running - read and (read - running or len(running) > 1):
            raise AttachError(
                "two losses were watched, and the graph does not say whether of one forward pass or of two (compiled "
                "code, reentrant checkpointing and forward passes without gradients hide it). "
                "Watch the total once: loss = vc.watch(a + b)."
            )


def functorch_runs() -> bool:
    """Whether a transform of torch.func is running."""
    return bool(torch._C._are_functorch_transforms_active())


def refuse_transforms(where: str, grad: Tensor | None = None) -> None:
    """AttachError where a backward pass is transformed or traced instead of run, so that nothing could be added to it.

    where: the site, or "the watched loss"; grad: what arrived there.
    """
    if _compiled_autograd():
        raise AttachError(
            f"VCReg at {where} is added in a backward pass that runs, and compiled autograd traces it instead. Leave "
            "torch._dynamo.config.compiled_autograd off; torch.compile of the model works without it."
        )
    if functorch_runs() or (grad is not None and torch._C._dispatch_keys(grad).has(_BATCHED)):
        raise AttachError(
            f"VCReg at {where} is added in a backward pass, which torch.func (grad, vjp, vmap, ...) and "
            "is_grads_batched=True replace by their own. Do it in eval mode or within `with vc.paused():`, or call "
            "vc.detach() and add vcreg_hub.vcreg_loss of the features to the loss."
        )


def _compiled_autograd() -> bool:
    compiled = sys.modules.get("torch._dynamo.compiled_autograd")
    return compiled is not None and bool(compiled.compiled_autograd_enabled)


def _nodes_below(node: Any) -> Iterator[Any]:
    """Every node of a graph, `node` first; none of a leaf's."""
    seen, todo = {node}, [node] if node is not None else []
    while todo:
        one = todo.pop()
        yield one
        found = {following for following, _ in one.next_functions if following is not None} - seen
        seen |= found
        todo += found


def _cell_of(node: Any) -> int | None:
    """The address of the cell that a site's backward keeps; None for another node."""
    cell = getattr(node, "cell", None)
    return _address(cell) if isinstance(cell, Tensor) else None


def _address(cell: Tensor) -> int:
    """What tells a cell from the others, also when a compiled pass brings it as another object."""
    return cell.data_ptr() if type(cell) is Tensor else id(cell)


def _cell(device: torch.device) -> Tensor:
    device = torch.device("cpu") if device.type == "meta" else device
    # Double, so that a scale such as 1/3 is exact enough in a double model; it does not promote what it multiplies.
    return torch.ones((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
