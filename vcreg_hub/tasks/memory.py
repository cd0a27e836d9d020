"""What is kept of a network after a group of classes: its weights, and how much each of them mattered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ..models.outputs import logits

_AT_A_TIME = 50


class Memory(nn.Module):
    """The state of a network, `before/<name>`, and the diagonal of its Fisher information, `fisher/<parameter>`, as
    buffers: they are part of a run's saved state, and never trained."""

    def __init__(self, network: nn.Module, with_fisher: bool) -> None:
        super().__init__()
        self.with_fisher = with_fisher
        for name, tensor in network.state_dict().items():
            self.register_buffer(_slot("before", name), tensor.detach().clone())
        for name, parameter in network.named_parameters() if with_fisher else ():
            self.register_buffer(_slot("fisher", name), torch.zeros_like(parameter))

    def output(self, network: nn.Module, samples: Tensor) -> Tensor:
        """(b, classes) logits of the kept state in evaluation mode, without a gradient."""
        state = {name: self.get_buffer(_slot("before", name)) for name in network.state_dict()}
        was_training = network.training
        network.eval()
        with torch.no_grad():
            found = logits(functional_call(network, state, (samples,))).float()
        network.train(was_training)
        return found

    def distance(self, network: nn.Module) -> Tensor:
        """sum_i F_i (theta_i - theta*_i)^2 over the network's parameters."""
        total = torch.zeros((), device=next(network.parameters()).device)
        for name, parameter in network.named_parameters():
            moved = parameter - self.get_buffer(_slot("before", name))
            total = total + (self.get_buffer(_slot("fisher", name)) * moved.square()).sum()
        return total

    @torch.no_grad()
    def remember(
        self, network: nn.Module, batches: Iterable[Sequence[Any]], *, group: int, groups: int, images: int
    ) -> None:
        """Keep the network's state, and add its Fisher information on `images` samples of a group's batches."""
        for name, tensor in network.state_dict().items():
            self.get_buffer(_slot("before", name)).copy_(tensor)
        if self.with_fisher:
            device = next(network.parameters()).device
            seen = torch.cat([batch[0] for batch in _first(batches, images)])[:images].to(device)
            for name, value in fisher(network, seen, group, groups).items():
                self.get_buffer(_slot("fisher", name)).add_(value)


def fisher(network: nn.Module, samples: Tensor, group: int, groups: int) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of each parameter, in evaluation mode, averaged over samples (n, ...).

    sum_c p_c (d log p_c / d theta)^2 over the classes c of the group, with p_c the softmax among them.
    """
    parameters = {name: one.detach() for name, one in network.named_parameters()}
    buffers = dict(network.named_buffers())

    def log_probabilities(state: dict[str, Tensor], sample: Tensor) -> Tensor:
        scores = logits(functional_call(network, (state, buffers), (sample[None],)))[0].float()
        size = len(scores) // groups
        return scores[group * size : (group + 1) * size].log_softmax(0)

    def one(state: dict[str, Tensor], sample: Tensor) -> dict[str, Tensor]:
        found = log_probabilities(state, sample)
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        for c in range(len(found)):
            slopes = grad(lambda at, c=c: log_probabilities(at, sample)[c])(state)
            total = {name: total[name] + found[c].exp() * slopes[name].square() for name in total}
        return total

    was_training = network.training
    network.eval()
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for part in samples.split(_AT_A_TIME):
        for name, value in vmap(one, in_dims=(None, 0))(parameters, part).items():
            sums[name] += value.sum(0)
    network.train(was_training)
    return {name: value / len(samples) for name, value in sums.items()}


def _first(batches: Iterable[Sequence[Any]], images: int) -> Iterable[Sequence[Any]]:
    """The batches that hold the first `images` samples."""
    seen = 0
    for batch in batches:
        if seen >= images:
            return
        yield batch
        seen += len(batch[0])


def _slot(kind: str, name: str) -> str:
    """A buffer's name, which must hold no dot."""
    return f"{kind}/{name.replace('.', '/')}"
