"""Records how the loss is scaled, for the gradient injected at the features.

A GradScaler multiplies the loss, accumulation divides it, two losses are weighted and summed; all of it happens after
the loss was made. The gradient that arrives at the loss says the total of it, so `watch` records that gradient, and it
does so before any block's backward can run. Where it is recorded is a *cell*, a 0-d tensor: every forward pass is bound
to the cell that is open, and `watch` closes it and opens the next. So a forward pass belongs to the loss that was
watched after it, also when two losses share one backward pass; where that leaves a doubt, the backward pass raises.

Cells are tensors, read at the time of the backward pass, because nothing else reaches a compiled one; they are written
through `.data` because autograd would take any other write for a change of a saved value.

One step with accumulation over four:

    forward pass        the block keeps the open cell                                       cell = 1
    watch(loss)         that cell is closed, another one opened for the next forward pass   cell = 1
    (loss / 4).backward()
        at the loss     the gradient that arrives is 1/4: written into the cell             cell = 1/4
        at the block    reads 1/4 and multiplies its gradient by it                         cell = 1/4
        at the end      forgotten, so that a pass that is not watched cannot find it        cell = 1

    >>> scale, x, seen = LossScale(torch.device("cpu")), torch.ones(3, requires_grad=True), []
    >>> cell = scale.for_forward()
    >>> handle = x.register_hook(lambda grad: seen.append((scale.bind(cell), cell.item())))  # the block's backward
    >>> loss = (2 * x).sum()
    >>> scale.watch(loss)
    >>> (loss / 4).backward()
    >>> seen, cell.item()
    ([(True, 0.25)], 1.0)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Variable

from ..errors import AttachError

_NO_TASK = -1


def _backward_task() -> int:
    """The number of the backward pass that this thread is in, `_NO_TASK` outside of one."""
    return torch._C._current_graph_task_id()


class LossScale:
    """The cells of one attachment and the state of the running backward pass."""

    def __init__(self, device: torch.device) -> None:
        self.open = _cell(device)
        self._forget()

    def _forget(self) -> None:
        self.task = _NO_TASK
        self.fired: list[Tensor] = []  # cells recorded in the running backward pass
        self.read: set[int] = set()  # addresses of the cells that its blocks were bound to

    def __getstate__(self) -> torch.device:
        return self.open.device

    def __setstate__(self, device: torch.device) -> None:
        self.__init__(device)  # type: ignore[misc]

    @property
    def watched(self) -> bool:
        """Whether the running backward pass started at a watched loss."""
        return bool(self.fired)

    def for_forward(self) -> Tensor:
        """The cell of the running forward pass. (Not called while compiling: `open` serves there.)"""
        self.settle()
        if len(self.fired) > 1:
            raise AttachError(
                "reentrant checkpointing recomputes a forward pass inside a backward pass with two watched losses, and "
                "does not say which of them it belongs to. Call backward on each loss, or checkpoint with "
                "use_reentrant=False."
            )
        # A forward pass inside a backward pass is the recomputation of a checkpoint, of the loss that is running.
        return self.fired[-1] if self.fired else self.open

    def settle(self) -> None:
        """A forward pass outside of any backward pass: an interrupted one may have left its state."""
        if _backward_task() == _NO_TASK:
            self._forget()

    def watch(self, loss: Tensor, weight: float | Tensor = 1.0) -> None:
        """Bind the forward passes since the last watch to this loss. weight: extra factor on its regularizer."""
        self._forget()
        cell, self.open = self.open, _cell(loss.device)

        def record(grad: Tensor) -> None:
            # A loss of several elements is reduced later: their gradients sum to the scale of the reduced one.
            cell.data.copy_(grad.sum() * weight)
            self._start()
            self.fired.append(cell)

        loss.register_hook(record)

    def _start(self) -> None:
        if self.task != _backward_task():
            self._forget()
            self.task = _backward_task()
            Variable._execution_engine.queue_callback(self._end)

    def bind(self, cell: Tensor) -> bool:
        """A block's backward asks for its scale: notes the cell, and says whether this is a watched pass."""
        self.read.add(cell.data_ptr())
        return self.watched

    def _end(self) -> None:
        """The end of a watched backward pass. A scale must not survive into one that is not."""
        fired, read = {cell.data_ptr() for cell in self.fired}, self.read
        for cell in self.fired:
            cell.data.fill_(1.0)
        self._forget()
        if read - fired:
            raise AttachError(
                "the backward pass of a watched loss reached a forward pass that belongs to another loss, so its scale "
                "is unknown. Watch the total once: loss = vc.watch(a + b)."
            )
        if len(fired) > 1 and fired - read:
            raise AttachError(
                "two watched losses of the same forward pass met in one backward pass, so the scale of the regularizer "
                "is ambiguous. Watch the total once: loss = vc.watch(a + b)."
            )


def _cell(device: torch.device) -> Tensor:
    device = torch.device("cpu") if device.type == "meta" else device
    # Double, so that a scale such as 1/3 is exact enough in a double model; it does not promote what it multiplies.
    return torch.ones((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
