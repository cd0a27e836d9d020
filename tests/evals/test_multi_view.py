"""The 10 x 3 protocol: pure functions against slow forms, one process against every view computed, two
against one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from evals.video_share import Projection, load, run

from vcreg_hub.data.datasets import VIDEO_SETS
from vcreg_hub.data.video.action_shapes import ActionShapes, make
from vcreg_hub.data.video.hmdb51 import prepare
from vcreg_hub.data.video.sampling import _crop_offsets, _evaluation_clips
from vcreg_hub.data.video.transforms import resize_short
from vcreg_hub.errors import DataError
from vcreg_hub.evals.multi_view import _average, _evaluate, _merge_by_number, _metrics, _views

SPEC = ActionShapes(sources=5, clips_per_source=1, height=24, width=32, min_frames=3, max_frames=30)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make(tmp_path_factory.mktemp("eval") / "set", SPEC)
    # A test clip that does not decode, so that it must be counted under one and two processes alike.
    broken = next(p for p in sorted((root / "videos" / "spin").iterdir()) if "_0_spin" in p.name)
    broken.write_bytes(b"")
    prepare(root, root, video_set=VIDEO_SETS["action_shapes"], log=lambda text: None)
    return root


@pytest.fixture
def alone() -> SimpleNamespace:
    from accelerate import Accelerator

    return Accelerator(cpu=True)


@pytest.mark.parametrize("merge", ["probability", "score"])
def test_every_view_computed_singly_gives_the_same_scores(root: Path, merge: str) -> None:
    """Decode all, resize all, take all 15 views, average plainly; against distinct views with weights."""
    data = load(root)
    videos = data.sets
    model, repeated = Projection(), 0
    for item in data.test_items("test"):
        if not len(item.frames):
            continue
        clip = videos.index.clips[item.number]
        with av.open(str(videos.index.root / clip.path)) as container:
            full = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        frames = resize_short(torch.from_numpy(full).permute(0, 3, 1, 2), 16)
        wanted = []
        for indices in _evaluation_clips(len(full), 4, 2, 5):
            for offset in _crop_offsets(16, 21, 16, 3):
                view = (frames[indices][..., offset : offset + 16].double() / 255).permute(0, 2, 3, 1)
                view = ((view - torch.tensor(videos.mean)) / torch.tensor(videos.std)).permute(0, 3, 1, 2)
                score = model(view[None].float()).logits[0].double()
                wanted.append(score.softmax(0) if merge == "probability" else score)
        shown = list(_views(item, data, batch_size=4))
        assert all(len(part) <= 4 and part.shape[1:] == (4, 3, 16, 16) for part in shown)
        scores = torch.cat([model(part).logits for part in shown])
        assert torch.allclose(_average(scores, item.weights, merge), torch.stack(wanted).mean(0), atol=1e-4)
        repeated += len(scores) < 15
    assert repeated, "some file was short enough for views to coincide"


def test_probabilities_and_scores_average_differently() -> None:
    scores = torch.tensor([[10.0, 0.0], [-2.0, 0.0], [-2.0, 0.0]])
    thirds = torch.full((3,), 1 / 3)
    assert _average(scores, thirds).argmax() == 1 and _average(scores, thirds, "score").argmax() == 0
    assert _average(scores, thirds).sum().item() == pytest.approx(1)


def test_merging_drops_padding_and_repeats_and_restores_the_order() -> None:
    rows = torch.arange(12.0).view(6, 2)
    merged = _merge_by_number(torch.tensor([7, 3, -1, 7, 5, -1]), rows, [3, 5, 7])
    assert torch.equal(merged, rows[[1, 4, 0]])
    with pytest.raises(DataError, match="1 of 2 clips were never evaluated, such as clip 9"):
        _merge_by_number(torch.tensor([7, 3]), rows, [3, 9])


def test_accuracies() -> None:
    rows = torch.full((6, 7), 0.05).double()
    labels = torch.tensor([0, 0, 0, 1, 1, 6])
    rows[0, 0] = rows[1, 0] = rows[2, 3] = rows[3, 1] = rows[5, 6] = 0.7
    rows[2, 0] = 0.2
    rows[4] = torch.nan
    found = dict(_metrics(rows, labels))
    assert found["top1"] == pytest.approx(100 * 4 / 6)
    assert found["top5"] == pytest.approx(100 * 5 / 6)
    assert found["mean_per_class"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
    assert found["undecodable"] == 1
    assert "top5" not in dict(_metrics(rows[:, :5], labels.clamp(max=4)))


def test_a_file_that_does_not_decode_is_wrong_even_for_class_zero() -> None:
    found = dict(_metrics(torch.full((1, 3), torch.nan), torch.tensor([0])))
    assert found == {"top1": 0.0, "mean_per_class": 0.0, "undecodable": 1.0}


def test_the_model_is_put_back_and_must_fit(root: Path, alone: SimpleNamespace) -> None:
    data = load(root)
    model = Projection().train()

    def found(network: Projection, world: int = 1) -> dict[str, float]:
        return dict(_evaluate(network, data.test_items("test", 0, world), alone, data, "test", batch_size=8))

    assert found(model)["undecodable"] == 1 and model.training
    with pytest.raises(DataError, match="the network has 4 classes, action_shapes has 6"):
        found(Projection(4))
    with pytest.raises(DataError, match="never evaluated"):
        found(model, world=2)


def test_two_processes_find_what_one_finds(root: Path, tmp_path: Path, alone: SimpleNamespace) -> None:
    script = Path(__file__).parent / "video_share.py"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(root), str(tmp_path / "found")],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    one = run(root, alone, 0, 1)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"found.{rank}").read_text()) == one
    assert load(root).size("test") == 11, "an odd number, so that the shares differ in length"
