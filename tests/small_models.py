"""Small residual networks of every layout, and the explicit loss that an injected gradient is held against."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vcreg_hub.placement.sites import Site
from vcreg_hub.regularizer.loss import rows, vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg

# Strong enough that a wrong factor on the regularizer cannot hide behind the task's gradient.
STRONG = VCReg(alpha=5.0, beta=3.0, delta=0.5)
# Relative distance of two gradients that are the same in double precision.
EXACT = 1e-12


class Tokens(nn.Module):
    """(b, t, d) -> (b, t, d)."""

    axis = -1
    sample = (5, 8)

    def __init__(self, d=8):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.linear = nn.Linear(d, d)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x)))


class Map(nn.Module):
    """(b, c, h, w) -> (b, c, h, w)."""

    axis = 1
    sample = (6, 4, 5)

    def __init__(self, c=6):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return x + torch.tanh(self.conv(x))


class Grid(nn.Module):
    """(b, h, w, c) -> (b, h, w, c)."""

    axis = -1
    sample = (3, 4, 7)

    def __init__(self, c=7):
        super().__init__()
        self.linear = nn.Linear(c, c)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Network(nn.Module):
    """Three blocks, a mean over positions, a classifier. checkpointing: None, "reentrant" or "non-reentrant"."""

    def __init__(self, block=Tokens, checkpointing=None, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.axis = block.axis
        self.sample = block.sample
        self.head = nn.Linear(block.sample[block.axis if block.axis == -1 else 0], 4)
        self.checkpointing = checkpointing

    def forward(self, x):
        for block in self.blocks:
            if self.checkpointing:
                x = checkpoint(block, x, use_reentrant=self.checkpointing == "reentrant")
            else:
                x = block(x)
        return self.head(x.movedim(self.axis, -1).flatten(1, -2).mean(1))

    def batch(self, n=6, seed=1, dtype=torch.float64):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn((n, *self.sample), generator=g, dtype=torch.float64).to(dtype)
        y = torch.randint(4, (n,), generator=g)
        # Reentrant checkpointing needs an input with a gradient.
        return x.requires_grad_(self.checkpointing == "reentrant"), y


def sites_of(model):
    return [Site(f"blocks.{i}", block, model.axis) for i, block in enumerate(model.blocks)]


@contextmanager
def explicit_penalty(sites, cfg):
    """A list of terms to add to the loss: the paper's loss of every site's output, by plain autograd.

    The hooks are closures over the list and know nothing of the package's own mechanism.
    """
    terms = []

    def output_hook(site):
        def hook(module, args, output):
            terms.append(vcreg_loss(rows(_first(output), site.channel_axis), cfg))

        return hook

    def input_hook(site):
        def hook(module, args):
            terms.append(vcreg_loss(rows(args[0], site.channel_axis), cfg))

        return hook

    handles = [
        site.module.register_forward_pre_hook(input_hook(site))
        if site.side == "input"
        else site.module.register_forward_hook(output_hook(site))
        for site in sites
    ]
    try:
        yield terms
    finally:
        for handle in handles:
            handle.remove()


def _first(output):
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output
    return next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())


def explicit_gradients(model, sites, batch, cfg=STRONG, scale=1.0, task=F.cross_entropy):
    """Parameter gradients of scale * (task loss + the explicit loss at every site), added to what is there."""
    x, y = batch
    with explicit_penalty(sites, cfg) as terms:
        loss = task(model(x), y)
        ((loss + sum(terms)) * scale).backward()
    return gradients(model)


def gradients(model):
    """All parameter gradients in one vector; zeros where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def network(block=Tokens, **kwargs):
    """A network of three such blocks in double precision."""
    return Network(block, **kwargs).double()


def expected(model, batch, **kwargs):
    """The gradient of the explicit loss, flat; the model's own is empty before and after."""
    model.zero_grad()
    result = explicit_gradients(model, sites_of(model), batch, **kwargs).clone()
    model.zero_grad()
    return result


def transformers_vit():
    """A ViT of transformers with two blocks, without dropout."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)
