"""Two gloo processes on this machine, and what each of them runs for test_hooks_distributed.py.

Every case returns how far the gradients that DistributedDataParallel or accelerate averaged are from those of the
explicit loss, computed in one process on both processes' batches.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from small_models import STRONG, Map, Network, Tokens, distance, explicit_gradients, gradients, sites_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vcreg_hub.errors import AttachError
from vcreg_hub.placement.sites import Site
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.gradient import add_gradient
from vcreg_hub.regularizer.loss import rows, vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg

WORLD = 2
SYNC = replace(STRONG, sync=True)


def network(block=Tokens, **kwargs):
    return Network(block, **kwargs).double()


def batch_of(model, rank, step=0, sizes=(6, 6)):
    return model.batch(n=sizes[rank], seed=10 * step + rank)


def mean_of_local_losses(model, cfg, sizes=(6, 6), steps=1):
    for step in range(steps):
        for rank in range(WORLD):
            batch = batch_of(model, rank, step, sizes)
            explicit_gradients(model, sites_of(model), batch, cfg=cfg, scale=1 / (WORLD * steps))
    return gradients(model)


def loss_of_the_global_batch(model, cfg, sizes=(6, 6), steps=1):
    """The mean of the processes' task losses plus the regularizer of all their features together."""
    for step in range(steps):
        batches = [batch_of(model, rank, step, sizes) for rank in range(WORLD)]
        for x, y in batches:
            (F.cross_entropy(model(x), y) / (WORLD * steps)).backward()
        hidden = torch.cat([x for x, _ in batches])
        for block in model.blocks:
            hidden = block(hidden)
            (vcreg_loss(rows(hidden, model.axis), cfg) / steps).backward(retain_graph=True)
    return gradients(model)


def step(model, vc, wrapped, rank, sizes=(6, 6)):
    x, y = batch_of(model, rank, sizes=sizes)
    vc.watch(F.cross_entropy(wrapped(x), y)).backward()
    return gradients(model)


def local(rank, block=Tokens, sizes=(6, 6), checkpointing=None, **ddp):
    want = mean_of_local_losses(network(block), STRONG, sizes)
    model = network(block, checkpointing=checkpointing)
    with attach(model, STRONG, sites=sites_of(model)) as vc:
        return distance(step(model, vc, DistributedDataParallel(model, **ddp), rank, sizes), want)


def synced(rank, block=Tokens, sizes=(6, 6), checkpointing=None, cfg=SYNC, **ddp):
    want = loss_of_the_global_batch(network(block), cfg, sizes)
    model = network(block, checkpointing=checkpointing)
    with attach(model, cfg, sites=sites_of(model)) as vc:
        return distance(step(model, vc, DistributedDataParallel(model, **ddp), rank, sizes), want)


def accumulated(rank, cfg, reference):
    want = reference(network(), cfg, steps=2)
    model = network()
    with attach(model, cfg, sites=sites_of(model)) as vc:
        wrapped = DistributedDataParallel(model)
        x, y = batch_of(model, rank, 0)
        with wrapped.no_sync():
            (vc.watch(F.cross_entropy(wrapped(x), y)) / 2).backward()
        x, y = batch_of(model, rank, 1)
        (vc.watch(F.cross_entropy(wrapped(x), y)) / 2).backward()
        return distance(gradients(model), want)


def one_row_each(rank):
    """A single sample per process has no covariance of its own; the two together have one."""
    cfg = VCReg(alpha=5.0, beta=3.0, sync=True)
    model = network()
    batches = [model.batch(n=1, seed=r) for r in range(WORLD)]
    for x, y in batches:
        (F.cross_entropy(model(x), y) / WORLD).backward()
    hidden = torch.cat([x for x, _ in batches])
    for block in model.blocks:
        hidden = block(hidden)
    vcreg_loss(hidden.mean(1), cfg).backward()
    want = gradients(model)
    model = network()
    x, y = batches[rank]
    with attach(model, cfg, sites=[Site("head", model.head, -1, "input")]) as vc:
        wrapped = DistributedDataParallel(model)  # kept: without it nothing is averaged
        vc.watch(F.cross_entropy(wrapped(x), y)).backward()
        return distance(gradients(model), want)


def one_row_in_all(rank):
    """One process has a single row and the other none: nothing to regularize, and nothing that is not finite."""
    z = torch.randn(1 - rank, 5, dtype=torch.float64)
    incoming = torch.ones_like(z)
    out = add_gradient(incoming, z, -1, SYNC)
    return float((out - incoming).abs().sum())


def attached_to_the_wrapper(rank):
    want = mean_of_local_losses(network(), STRONG)
    model = network()
    wrapped = DistributedDataParallel(model)
    with attach(wrapped, STRONG, sites=sites_of(model)) as vc:
        assert wrapped.vcreg is model.vcreg is vc
        return distance(step(model, vc, wrapped, rank), want)


def fully_sharded(rank, attach_first, cfg=STRONG, reference=mean_of_local_losses):
    want = reference(network(), cfg)
    model = network()
    sites = sites_of(model)
    vc = attach(model, cfg, sites=sites) if attach_first else None
    mesh = init_device_mesh("cpu", (WORLD,))
    for each in [*model.blocks, model]:
        fully_shard(each, mesh=mesh)
    if vc is None:
        with pytest.raises(AttachError, match="before fully_shard"):
            attach(model, cfg)
        vc = attach(model, cfg, sites=sites)
    x, y = batch_of(model, rank)
    vc.watch(F.cross_entropy(model(x), y)).backward()
    return distance(torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()]), want)


def with_accelerate(rank, cfg, reference):
    from accelerate import Accelerator

    want = reference(network(), cfg, steps=2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    assert accelerator.num_processes == WORLD
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with attach(model, cfg, sites=sites_of(model)) as vc:
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        for i in range(2):
            with accelerator.accumulate(wrapped):
                x, y = batch_of(model, rank, i)
                accelerator.backward(vc.watch(F.cross_entropy(wrapped(x), y)))
                optimizer.step()
        return distance(gradients(model), want)


CASES = {
    "local": lambda rank: local(rank),
    "local, maps": lambda rank: local(rank, Map),
    "local, unequal batches": lambda rank: local(rank, sizes=(4, 7)),
    "local, find_unused_parameters": lambda rank: local(rank, find_unused_parameters=True),
    "local, static_graph": lambda rank: local(rank, static_graph=True),
    "local, bucket views": lambda rank: local(rank, gradient_as_bucket_view=True),
    "local, checkpointing": lambda rank: local(rank, checkpointing="non-reentrant"),
    "local, accumulation": lambda rank: accumulated(rank, STRONG, mean_of_local_losses),
    "local, attached to the wrapper": attached_to_the_wrapper,
    "local, accelerate": lambda rank: with_accelerate(rank, STRONG, mean_of_local_losses),
    "local, attached before fully_shard": lambda rank: fully_sharded(rank, attach_first=True),
    "local, attached after fully_shard": lambda rank: fully_sharded(rank, attach_first=False),
    "sync, attached after fully_shard": lambda rank: fully_sharded(
        rank, attach_first=False, cfg=SYNC, reference=loss_of_the_global_batch
    ),
    "sync": lambda rank: synced(rank),
    "sync, maps": lambda rank: synced(rank, Map),
    "sync, unequal batches": lambda rank: synced(rank, sizes=(4, 7)),
    "sync, narrow": lambda rank: synced(rank, sizes=(1, 1), cfg=replace(SYNC, delta=None)),
    "sync, checkpointing": lambda rank: synced(rank, checkpointing="non-reentrant"),
    "sync, accumulation": lambda rank: accumulated(rank, SYNC, loss_of_the_global_batch),
    "sync, one row each": one_row_each,
    "sync, one row in all": one_row_in_all,
    "sync, accelerate": lambda rank: with_accelerate(rank, SYNC, loss_of_the_global_batch),
}


def run_rank(rank: int, port: int, out: str) -> None:
    """One process: every case in turn; results, or the error of each, as JSON."""
    warnings.simplefilter("error")
    # DistributedDataParallel's and accelerate's own notices.
    warnings.filterwarnings("ignore", module=r"torch\.|accelerate\.")
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    assert dist.get_world_size() == WORLD
    results = {}
    for name, case in CASES.items():
        try:
            results[name] = case(rank)
        except Exception:
            results[name] = traceback.format_exc()
        dist.barrier()
    Path(out, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
