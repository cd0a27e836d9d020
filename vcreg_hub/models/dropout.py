"""Stochastic depth, and dropout before the classifier, for video models of transformers.

Both leave the model's modules, tensor names and saved files as they are: the first is a hook on modules
that do nothing of their own, the second a Linear that drops some of its input. They survive deepcopy and
pickling, and gradient checkpointing, which keeps the random state for its second pass.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import drop_path
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, UsageError

# In each class of block the modules whose output is added to a residual stream. All are nn.Dropout with p =
# 0 in every published configuration; ViViT's is called once for each of the block's two branches.
BRANCHES: dict[str, tuple[str, ...]] = {
    "VideoMAELayer": ("attention.output.dropout", "output.dropout"),
    "VivitLayer": ("dropout",),
}


class _DropBranch:
    """Forward hook: in training the output of each sample is zeroed with probability `rate`, else scaled
    up."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        return drop_path(output, self.rate, True) if module.training and self.rate else None


def set_stochastic_depth(model: nn.Module, rate: float) -> list[float]:
    """Drop whole branches of residual blocks, the first block with probability 0, the last with `rate`,
    linearly between; replaces what an earlier call set. Returns each block's rate (Huang et al., 2016; as
    in DeiT).

    Errors: ConfigError for a rate outside [0, 1), UsageError for a model without blocks of `BRANCHES`.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"drop_path={rate}: expected at least 0 and below 1")
    blocks = [module for module in model.modules() if type(module).__name__ in BRANCHES]
    if not blocks:
        raise UsageError(f"{type(model).__name__} has no residual blocks of a kind known here ({', '.join(BRANCHES)})")
    rates = torch.linspace(0, rate, len(blocks), dtype=torch.float64).tolist()
    for block, probability in zip(blocks, rates, strict=True):
        for name in BRANCHES[type(block).__name__]:
            module = block.get_submodule(name)
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, _DropBranch):
                    del module._forward_hooks[key]
            if probability:
                module.register_forward_hook(_DropBranch(probability))
    return rates


class DroppingLinear(nn.Linear):
    """A linear layer with dropout on its input in training. A hook on its input, such as the
    regularizer's, sees the whole vector."""

    drop = 0.0

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.dropout(input, self.drop, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


def set_head_dropout(model: nn.Module, rate: float, head: str = "classifier") -> None:
    """Dropout on the input of the linear layer `head`; its parameters stay the same objects. Call before
    attaching.

    Errors: ConfigError for a rate outside [0, 1); UsageError when `head` is no linear layer or has hooks
    already.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"head_dropout={rate}: expected at least 0 and below 1")
    old = model.get_submodule(head)
    if not isinstance(old, nn.Linear):
        raise UsageError(f"{head} is a {type(old).__name__}, dropout before it needs a linear layer")
    if old._forward_hooks or old._forward_pre_hooks:
        raise UsageError(f"{head} has hooks, which its replacement would lose: set dropout before attaching")
    new = DroppingLinear(old.in_features, old.out_features, old.bias is not None, device="meta")
    new.weight, new.bias, new.drop = old.weight, old.bias, rate
    parent, _, leaf = head.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new.train(old.training))
