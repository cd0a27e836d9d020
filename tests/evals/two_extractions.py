"""One of two processes that extract features together: `two_extractions.py RANK PORT FOLDER COUNT PRECISION`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Dataset


class Numbers(Dataset):
    """Sample i is a grey 4 x 4 image of the value i, of class i % 3."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int, int]:
        return torch.full((1, 4, 4), float(i)), i % 3, i


def network() -> torch.nn.Module:
    """Its features are the value of the image, seven times."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 7))
    model.append(torch.nn.Linear(7, 3))
    with torch.no_grad():
        model[2].weight.fill_(1)
        model[2].bias.zero_()
    return model


def main(rank: int, port: int, out: str, count: int, precision: str) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"torch\.|accelerate\.")
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=2)
    from accelerate import Accelerator

    from vcreg_hub.data.batches import in_order
    from vcreg_hub.evals import extraction

    extraction._PART = 10
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    assert accelerator.num_processes == 2
    for name in ("first", "again"):
        loader = in_order(Numbers(count), 4, 0)
        found = extraction.extract(network(), loader, accelerator, data="numbers", cache=Path(out, "cache"))
        np.savez(Path(out, f"{name}{rank}.npz"), rows=found.arrays["pooled"], labels=found.labels)
        accelerator.wait_for_everyone()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
