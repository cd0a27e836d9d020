"""One of two gloo processes that train the heads of test_linear.py together."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch


def main(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from evals.test_linear import SHORT, context

    from vcreg_hub.evals import accuracy as module
    from vcreg_hub.evals.heads import score_heads, train_heads

    seen: list[int] = []
    counted = module.accuracies
    module.accuracies = lambda ranked, labels, classes: seen.append(len(labels)) or counted(ranked, labels, classes)
    here = context()
    assert here.accelerator.num_processes == 2
    heads, losses = train_heads(replace(SHORT, batchnorm=False), here)
    found = score_heads(heads, here, here.trained_on, "test")
    told = {
        "weight": heads.linears[1].weight.tolist(), "losses": losses, "top1": found[1]["top1"], "scored": seen[0],
    }  # fmt: skip
    Path(out, f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
