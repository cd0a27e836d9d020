"""Images that do not decode: replaced, counted, listed and limited, in training, in evaluation and beforehand."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vcreg_hub.config import Data, Train
from vcreg_hub.data import load_data
from vcreg_hub.data.check import broken
from vcreg_hub.data.image.decode import UnreadableImageError
from vcreg_hub.errors import ConfigError, UsageError

COUNTS = {"train": 6, "val": 3, "test": 3}
BROKEN = {"train": ("1/2.png", "0/4.png"), "val": ("0/1.png",), "test": ("1/0.png",)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders 0 and 1 with four broken images."""
    for split, count in COUNTS.items():
        for label in (0, 1):
            folder = tmp_path / "set" / split / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.RandomState(i).randint(90 * label + 1, 90 * label + 90, (12, 12, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    for split, names in BROKEN.items():
        for name in names:
            path = tmp_path / "set" / split / name
            path.write_bytes(path.read_bytes()[:60])
    return tmp_path / "set"


def module(root: Path, **changes: object):
    cfg = Data("folder", str(root), image_size=8, workers=0, crop="none", hflip=0.0)
    return load_data(replace(cfg, **changes))


def test_without_a_limit_the_first_ends_the_run(root: Path) -> None:
    data = module(root)
    assert data.lost() is None
    for batches in (data.train_batches(Train(batch_size=4), 0, 1), data.eval_batches("test", 4)):
        with pytest.raises(UnreadableImageError, match=r"\.png does not decode as an image"):
            list(batches)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views", [1, 2])
def test_images_that_fail_are_replaced_counted_and_named_once(
    root: Path, workers: int, views: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = module(root, max_failed=5, workers=workers)
    loader = data.train_batches(Train(batch_size=4), 0, 1, views)
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            loader.set_epoch(epoch)
            batches = list(loader)
            assert len(batches) == 3 and sum(int(labels.sum()) for _, labels in batches) == 6, "the classes are kept"
            for images, labels in batches:
                assert images.flatten(1).any(1).all()
                assert images.shape == ((4, 3, 8, 8) if views == 1 else (4, 2, 3, 8, 8))
                # Class 1 is the brighter one.
                assert ((images.flatten(1).mean(1) > -0.5).long() == labels).all()
    assert sorted(data.lost_paths(data.lost())["train"]) == sorted(f"train/{name}" for name in BROKEN["train"])
    data.refuse_lost(data.lost_paths(data.lost()))
    if not workers:
        assert sum("another image of its class takes its place" in message for message in caplog.messages) == 2


def test_the_replacement_is_drawn_by_the_seed_and_changes_no_other_image(root: Path, tmp_path: Path) -> None:
    one, other = (list(module(root, max_failed=5).train_batches(Train(batch_size=12), 0, 1)) for _ in range(2))
    assert torch.equal(one[0][0], other[0][0])
    for name in BROKEN["train"]:
        Image.new("RGB", (12, 12), (1, 2, 3)).save(root / "train" / name)
    ((whole, _),) = module(root).train_batches(Train(batch_size=12), 0, 1)
    same = (whole == one[0][0]).flatten(1).all(1)
    assert same.sum() == 10


def test_past_the_limit_images_are_zeros_and_the_run_is_refused(root: Path) -> None:
    data = module(root, max_failed=1)
    loader = data.train_batches(Train(batch_size=4), 0, 1)
    assert len(list(loader)) == len(loader) == 3
    assert all(not images.any() for images, _ in loader)
    with pytest.raises(UnreadableImageError, match=r"2 images failed to decode, data\.max_failed is 1: .*\.png, .*"):
        data.refuse_lost(data.lost_paths(data.lost()))


def test_a_class_without_a_readable_image_is_replaced_by_another(root: Path) -> None:
    for path in (root / "train" / "0").iterdir():
        path.write_bytes(b"")
    ((images, labels),) = module(root, max_failed=7).train_batches(Train(batch_size=12), 0, 1)
    assert labels.tolist() == [1] * 12 and images.flatten(1).any(1).all()


def test_none_left_is_an_error(root: Path) -> None:
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="no training image decodes"):
        list(module(root, max_failed=50).train_batches(Train(batch_size=4), 0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_of_an_evaluation_they_are_marked_wrong_and_listed_by_split(root: Path, workers: int) -> None:
    data = module(root, max_failed=1, workers=workers)
    for split, count in (("val", 6), ("test", 6)):
        images, labels, numbers = (torch.cat(part) for part in zip(*data.eval_batches(split, 4)))
        assert numbers.tolist() == list(range(count))
        lost = [number for number in range(count) if data.where(split, number).endswith(BROKEN[split][0])]
        assert (labels < 0).nonzero().flatten().tolist() == lost
        true = torch.from_numpy(data.labels(split))
        assert torch.equal(torch.where(labels < 0, -1 - labels, labels), true)
        assert not images[lost].any() and images.flatten(1).any(1).sum() == count - 1
    found = data.lost_paths(data.lost())
    assert found == {split: [f"{split}/{BROKEN[split][0]}"] for split in ("val", "test")}
    data.refuse_lost(found)  # a test image is no reason to stop


@pytest.mark.parametrize("workers", [0, 2])
def test_a_whole_set_is_checked_in_parallel(root: Path, workers: int) -> None:
    ticks: list[tuple[int, int]] = []
    found = broken(module(root), workers, lambda done, total: ticks.append((done, total)))
    assert {split: len(reasons) for split, reasons in found.items()} == {"train": 2, "val": 1, "test": 1}
    for split, reasons in found.items():
        for name, reason in zip(sorted(BROKEN[split]), reasons, strict=True):
            assert reason.startswith(f"{root / split / name} does not decode as an image")
    assert ticks[0] == (0, 24) and ticks[-1] == (24, 24) and len(ticks) == 4


def test_what_is_in_no_file_is_not_checked() -> None:
    with pytest.raises(UsageError, match="nothing to check"):
        broken(load_data(Data("moons")))


def test_a_limit_is_a_whole_number_from_zero() -> None:
    with pytest.raises(ConfigError, match="max_failed is a whole number from 0"):
        Data("folder", max_failed=-1)
