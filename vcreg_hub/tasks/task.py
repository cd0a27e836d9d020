"""The trained module: a network, the task's further heads, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Task, Train


class TaskModule(nn.Module):
    """Called with a batch, gives {"loss": ...}. The optimizer and a run's state see the whole of it; evaluation,
    weights and export are `network` alone.

    class_counts: training samples of each class, None of a stream. epoch: the running one, from 0. example_input: a
    batch as the network takes it, on the CPU.
    """

    network: nn.Module
    heads: nn.ModuleDict

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        train: Train,
        example_input: Tensor,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.task, self.train_settings = task, train
        self.class_counts, self.example_input = class_counts, example_input
        self.epoch = 0
        self.network = network
        self.heads = nn.ModuleDict(dict(task.heads(network, example_input)))
        # Beside the registered modules, so that no name in the state changes.
        self.__dict__["_compiled"] = None

    def compile_network(self) -> None:
        """Compile the network's forward pass; the loss stays outside, in a regularizer's sight."""
        self.__dict__["_compiled"] = torch.compile(self.network)

    def call_network(self, samples: Tensor) -> Any:
        """The network's output, compiled if asked for."""
        return (self.__dict__["_compiled"] or self.network)(samples)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        return self.task.loss(self, batch, self.train_settings)
