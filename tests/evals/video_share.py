"""One process's share of a video evaluation, for test_video.py: `python video_share.py <root> <out.json>`
under torchrun's environment variables."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vcreg_hub.config import Data, Video
from vcreg_hub.data.video.datasets import ClipList
from vcreg_hub.data.video.module import VideoModule
from vcreg_hub.evals.multi_view import _evaluate

VIDEO = Video(frames=4, stride=2, clips=5, crops=3)


@dataclass
class Output:
    logits: Tensor


class Projection(nn.Module):
    """A fixed function of a whole view that tells frames, places and colours apart."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4 * 3 * 16 * 16, classes, generator=torch.Generator().manual_seed(0)))

    def forward(self, clips: Tensor) -> Output:
        return Output(clips.flatten(1) @ self.weight)


def load(root: Path, video: Video = VIDEO) -> VideoModule:
    found = VideoModule.load(Data("action_shapes", root=str(root), image_size=16, workers=0), video)
    sets = found.sets
    return replace(found, sets=replace(sets, test=ClipList(sets.index, sets.test.numbers[:11])))


def run(root: Path, accelerator: Any, rank: int, world: int) -> dict[str, float]:
    data = load(root)
    return dict(_evaluate(Projection(), data.test_items("test", rank, world), accelerator, data, "test", batch_size=7))


def main() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    found = run(Path(sys.argv[1]), accelerator, accelerator.process_index, accelerator.num_processes)
    Path(f"{sys.argv[2]}.{accelerator.process_index}").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
