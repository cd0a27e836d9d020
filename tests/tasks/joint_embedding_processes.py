"""Two gloo processes that train on half a batch each, for test_joint_embedding.py."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, free_port

from vcreg_hub.config import Train
from vcreg_hub.tasks import embeddings
from vcreg_hub.tasks.simclr import SimCLR
from vcreg_hub.tasks.task import TaskModule
from vcreg_hub.tasks.vicreg import VICReg

__all__ = ["CASES", "WORLD", "free_port"]

# Without batch normalisation, which torch shares between processes on GPUs alone.
CASES = {
    "simclr": SimCLR(projector=(16, 8), projector_norm="none"),
    "vicreg": VICReg(projector=(16, 8), projector_norm="none", covariance=25.0),
}
EACH = 6


def module_of(task) -> TaskModule:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_convnext", num_classes=3, in_chans=1).double()
    return TaskModule(task, network, Train(), torch.zeros(1, 1, 32, 32, dtype=torch.float64)).double()


def gradients(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def case(task, rank: int) -> dict[str, float]:
    """Distances to one process with the whole batch, of the averaged gradients and the averaged loss; and that of
    processes that do not gather."""
    views = torch.randn(WORLD * EACH, 2, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(WORLD * EACH) % 3
    gather, alone = embeddings.gathered, lambda z: (z, 0)
    embeddings.gathered = alone
    whole = module_of(task)
    expected = whole([views, labels])["loss"]
    expected.backward()
    found = {}
    for name, function in (("gradients", gather), ("apart", alone)):
        embeddings.gathered = function
        module = module_of(task)
        wrapped = DistributedDataParallel(module)
        part = slice(rank * EACH, (rank + 1) * EACH)
        loss = wrapped([views[part], labels[part]])["loss"]
        loss.backward()
        found[name] = float((gradients(module) - gradients(whole)).norm() / gradients(whole).norm())
        if name == "gradients":
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            found["loss"] = float((mean / WORLD - expected.detach()).abs())
    embeddings.gathered = gather
    return found


def run_rank(rank: int, port: int, out: str) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"torch\.|accelerate\.")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    Path(out, f"{rank}.json").write_text(json.dumps({name: case(task, rank) for name, task in CASES.items()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
