"""Features are extracted once: each sample exactly once, kept on disk, taken up where it broke off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import two_processes
from accelerate import Accelerator
from evals.two_extractions import Numbers, network

from vcreg_hub.config import Data
from vcreg_hub.data import load_data
from vcreg_hub.data.batches import in_order
from vcreg_hub.errors import DataError, UnknownNameError
from vcreg_hub.evals import extraction
from vcreg_hub.evals.extraction import extract
from vcreg_hub.models.outputs import features, outputs

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(extraction, "_PART", 10)


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


class Counted(torch.nn.Module):
    """A network that counts the samples it sees, and fails once it has seen `limit` of them."""

    def __init__(self, inner, limit=10**9):
        super().__init__()
        self.inner, self.limit = inner, limit
        self.seen: list[int] = []

    def forward(self, x):
        if x.device.type != "meta":
            if len(self.seen) >= self.limit:
                raise KeyboardInterrupt
            self.seen += [int(value) for value in x[:, 0, 0, 0]]
        return self.inner(x)


def test_a_part_at_a_time_is_what_one_sample_at_a_time_gives(accelerator):
    data = load_data(Data("digits", image_size=32, workers=0))
    model = timm.create_model("test_vit", in_chans=1, num_classes=10, img_size=32).eval()
    found = extract(model, data.eval_batches("test", 64), accelerator, outputs=("pooled", "spatial", "blocks"))
    for n in (0, 9, 10, 499):
        image, label, _ = data.eval_batches("test", 64).dataset[n]
        with torch.no_grad():
            alone = features(model, image[None])[0]
            spatial = model.forward_features(image[None])[0]
        np.testing.assert_allclose(found.arrays["pooled"][n], alone, atol=1e-5)
        np.testing.assert_allclose(found.arrays["spatial"][n], spatial, atol=1e-5)
        assert found.labels[n] == label
    blocks = [name for name in found.arrays if name.startswith("blocks.")]
    assert blocks == [f"blocks.blocks.{i}" for i in range(len(model.blocks))]
    assert found.arrays[blocks[-1]].shape == (500, found.arrays["spatial"].shape[-1])


def test_a_block_is_the_mean_over_its_positions():
    model = timm.create_model("test_convnext", in_chans=1, num_classes=3).eval()
    x = torch.randn(2, 1, 32, 32)
    kept = {}
    model.stages[1].blocks[0].register_forward_hook(lambda module, args, out: kept.update(out=out))
    with torch.no_grad():
        found = outputs(model, x, ("blocks", "spatial"))
    torch.testing.assert_close(found["blocks.stages.1.blocks.0"], kept["out"].mean((2, 3)))
    torch.testing.assert_close(found["spatial"], model.forward_features(x))


def test_an_unknown_output_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'pooled'"):
        outputs(network(), torch.zeros(1, 1, 4, 4), ("poold",))


def test_what_was_extracted_is_not_extracted_again(accelerator, tmp_path):
    model = Counted(network())

    def run(model, data="numbers", cache=tmp_path, **settings):
        return extract(model, in_order(Numbers(25), 4, 0), accelerator, data=data, cache=cache, **settings)

    first = run(model)
    assert sorted(model.seen) == list(range(25))
    np.testing.assert_array_equal(first.arrays["pooled"][:, 0], np.arange(25, dtype=np.float32))
    again = run(model)
    np.testing.assert_array_equal(again.arrays["pooled"], first.arrays["pooled"])
    np.testing.assert_array_equal(again.labels, np.arange(25) % 3)
    assert len(model.seen) == 25, "the same weights, data and outputs"
    run(model, data="other numbers")
    assert len(model.seen) == 50, "other data"
    with torch.no_grad():
        model.inner[2].bias += 1
    assert run(model).arrays["pooled"][0, 0] == 1 and len(model.seen) == 75, "other weights"
    run(model, cache=None)
    run(model, data=None)
    assert len(model.seen) == 125, "nothing is kept without a folder, or of data without a fingerprint"


def test_an_extraction_goes_on_where_it_broke_off(accelerator, tmp_path):
    broken, whole = Counted(network(), limit=12), Counted(network())
    with pytest.raises(KeyboardInterrupt):
        extract(broken, in_order(Numbers(25), 4, 0), accelerator, data="numbers", cache=tmp_path)
    found = extract(whole, in_order(Numbers(25), 4, 0), accelerator, data="numbers", cache=tmp_path)
    assert sorted(whole.seen) == list(range(10, 25))
    np.testing.assert_array_equal(found.arrays["pooled"][:, 0], np.arange(25, dtype=np.float32))


def test_a_damaged_part_is_made_again(accelerator, tmp_path):
    def run(model):
        return extract(model, in_order(Numbers(25), 4, 0), accelerator, data="numbers", cache=tmp_path)

    first = run(network())
    part = sorted(tmp_path.rglob("*.safetensors"))[1]
    part.write_bytes(part.read_bytes()[:-30])
    np.testing.assert_array_equal(run(network()).arrays["pooled"], first.arrays["pooled"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_bf16_rounds_and_is_kept_apart(tmp_path):
    loader = in_order(Numbers(20), 4, 0)
    model = network()
    with torch.no_grad():
        model[2].weight.fill_(1 / 3)
    whole = extract(model, loader, Accelerator(cpu=True), data="numbers", cache=tmp_path).arrays["pooled"]
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    half = extract(model, loader, Accelerator(cpu=True, mixed_precision="bf16"), data="numbers", cache=tmp_path)
    AcceleratorState._reset_state()
    rounded = half.arrays["pooled"]
    assert rounded.dtype == np.float32 and not np.array_equal(rounded, whole)
    np.testing.assert_allclose(rounded, whole, rtol=2**-7)


def test_an_order_that_is_not_the_data_sets_is_refused(accelerator):
    with pytest.raises(DataError, match="another order"):
        extract(network(), in_order(Numbers(9), 4, 0), accelerator, expected=np.arange(9) % 2)


def test_a_sample_that_comes_twice_is_noticed(accelerator):
    class Doubled(Numbers):
        def __getitem__(self, i):
            return super().__getitem__(min(i, 3))

    with pytest.raises(DataError, match="9 samples gave 9 features, of 4 samples"):
        extract(network(), in_order(Doubled(9), 4, 0), accelerator)


def test_no_sample_is_an_error(accelerator):
    with pytest.raises(DataError, match="no sample"):
        extract(network(), in_order(Numbers(0), 4, 0), accelerator)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Data("digits"), Data("digits", labels="superclass"), True),
        (Data("digits"), Data("digits", crop="none", augment="ra-2-9"), True),
        (Data("digits"), Data("digits", image_size=32), False),
        (Data("digits"), Data("digits", mean=(0.5,)), False),
        (Data("digits"), Data("digits", train_images=100), False),
        (Data("digits"), Data("digits", channels=3), False),
        (Data("digits"), Data("synthetic:digits"), False),
    ],
)
def test_a_fingerprint_is_of_samples_and_view_and_of_nothing_else(one, other, same):
    first, second = (load_data(cfg).fingerprint("train") for cfg in (one, other))
    assert first and second and (first == second) is same
    assert load_data(one).fingerprint("test") != first


def test_a_fingerprint_of_files_changes_with_them(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")

    def fingerprint():
        return load_data(Data("folder", root=str(tmp_path), image_size=8)).fingerprint("train")

    first = fingerprint()
    assert fingerprint() == first
    for i in range(6):
        Image.new("RGB", (8, 9), (i, 9, 9)).save(tmp_path / "a" / f"{i}.png")
    assert fingerprint() != first


@pytest.mark.parametrize(("count", "precision"), [(23, "no"), (1, "bf16")])
def test_two_processes_lose_and_double_nothing(tmp_path, count, precision):
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    port = str(two_processes.free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, HERE / "two_extractions.py", str(rank), port, tmp_path, str(count), precision],
            env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        texts = [process.communicate(timeout=200)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(texts)
    for name in ("first0", "first1", "again0", "again1"):
        found = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(found["rows"], np.tile(np.arange(count, dtype=np.float32)[:, None], 7))
        np.testing.assert_array_equal(found["labels"], np.arange(count) % 3)
