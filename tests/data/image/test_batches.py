"""Batches: every image in its place, an epoch that can be repeated, and mixing that is torchvision's up to pairing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vcreg_hub.config import Data, Train
from vcreg_hub.data.image.batches import test_loader as fixed_loader
from vcreg_hub.data.image.batches import train_loader
from vcreg_hub.data.image.decode import UnreadableImageError
from vcreg_hub.data.image.module import ImageData, load_images
from vcreg_hub.errors import ConfigError, UnknownNameError

DATA = Data("digits", image_size=8, crop="pad", hflip=0.0, augment="ta_wide", train_images=300, workers=0)
TRAIN = Train(batch_size=32, seed=7)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images(DATA)


def epoch(images: ImageData, number: int = 0, data: Data = DATA, train: Train = TRAIN, **place: int) -> list:  # type: ignore[type-arg]
    loader = train_loader(images, data, train, **place)
    loader.set_epoch(number)
    return list(loader)


def same(one: list, other: list) -> bool:  # type: ignore[type-arg]
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def rows(batches: list) -> Iterator[tuple[bytes, Tensor]]:  # type: ignore[type-arg]
    for x, y in batches:
        for image, label in zip(x, y, strict=True):
            yield image.numpy().tobytes(), label


def test_an_epoch_holds_whole_batches_of_the_right_shape(digits: ImageData) -> None:
    batches = epoch(digits)
    assert len(batches) == 300 // 32
    for x, y in batches:
        assert x.shape == (32, 1, 8, 8) and x.dtype == torch.float32 and y.shape == (32,) and y.dtype == torch.int64


def test_each_image_is_shown_once_with_its_label(digits: ImageData) -> None:
    data = replace(DATA, crop="none", augment="none")
    shown = Counter(image for image, _ in rows(epoch(digits, data=data, train=replace(TRAIN, batch_size=300))))
    fixed = fixed_loader(digits, data, "train", 300)
    known = {x.numpy().tobytes(): int(y) for batch in fixed for x, y in zip(batch[0], batch[1], strict=True)}
    assert sum(shown.values()) == 300 and set(shown) == set(known)
    assert all(known[image] == label for image, label in rows(epoch(digits, data=data)))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_epoch_is_the_same_again_whatever_the_workers(digits: ImageData, workers: int) -> None:
    train = replace(TRAIN, mixup=0.2, cutmix=1.0)
    data = replace(DATA, random_erase=0.3, workers=workers)
    loader = train_loader(digits, data, train)
    loader.set_epoch(0)
    next(iter(loader))  # an epoch left early
    loader.set_epoch(3)
    third = list(loader)
    assert same(third, epoch(digits, 3, replace(data, workers=0), train))
    assert same(third, list(loader))
    loader.set_epoch(4)
    assert not same(third, list(loader))


def test_epochs_and_seeds_are_unrelated(digits: ImageData) -> None:
    data = replace(DATA, augment="none", crop="none")
    orders = [
        tuple(image for image, _ in rows(epoch(digits, number, data, replace(TRAIN, seed=seed))))
        for seed in (0, 1)
        for number in (0, 1)
    ]
    assert len(set(orders)) == 4


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("repeats", [1, 4])
def test_processes_share_the_steps_of_one_process(digits: ImageData, world: int, repeats: int) -> None:
    data, train = replace(DATA, repeats=repeats), replace(TRAIN, batch_size=24)
    alone = epoch(digits, 2, data, train)
    parts = [epoch(digits, 2, data, train, rank=rank, world=world) for rank in range(world)]
    assert {len(part) for part in parts} == {len(parts[0])} and len(parts[0]) <= len(alone)
    for step in range(len(parts[0])):
        union = Counter(image for part in parts for image, _ in rows(part[step : step + 1]))
        assert union == Counter(image for image, _ in rows(alone[step : step + 1]))


def test_accumulation_cuts_the_same_steps_smaller(digits: ImageData) -> None:
    whole, cut = epoch(digits), epoch(digits, train=replace(TRAIN, accumulation=4))
    assert len(cut) == 4 * len(whole) and cut[0][0].shape[0] == 8
    joined = [tuple(torch.cat(parts) for parts in zip(*cut[i : i + 4], strict=True)) for i in range(0, len(cut), 4)]
    assert same(whole, joined)


def test_repeats_show_fewer_images_several_times_in_different_views(digits: ImageData) -> None:
    plain = replace(DATA, repeats=4, augment="none", crop="none")
    counts = Counter(image for image, _ in rows(epoch(digits, data=plain, train=replace(TRAIN, batch_size=64))))
    # torchvision's rule: an epoch is the length of the data, cut to a multiple of 256.
    assert sum(counts.values()) == 256 and set(counts.values()) == {4}
    views = Counter(image for image, _ in rows(epoch(digits, data=replace(DATA, repeats=4))))
    assert len(views) > 150


def test_the_runs_own_random_numbers_are_left_alone(digits: ImageData) -> None:
    train = replace(TRAIN, mixup=0.2)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for workers in (0, 1):
        epoch(digits, data=replace(DATA, workers=workers), train=train)
        list(fixed_loader(digits, replace(DATA, workers=workers), "test", 100))
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])


def test_augmentation_does_not_depend_on_what_was_drawn_before(digits: ImageData) -> None:
    torch.manual_seed(1)
    one = epoch(digits)
    torch.manual_seed(2)
    assert same(one, epoch(digits))


def test_mixing_takes_each_kind_half_the_time_and_its_share_of_the_labels(digits: ImageData) -> None:
    data = replace(DATA, augment="none", crop="none")
    kinds = Counter()
    for number in range(8):
        plain = epoch(digits, number, data)
        for (x, y), (mixed, target) in zip(
            plain, epoch(digits, number, data, replace(TRAIN, mixup=0.2, cutmix=1.0)), strict=True
        ):
            assert target.shape == (32, 10)
            torch.testing.assert_close(target.sum(1), torch.ones(32))
            own = F.one_hot(y, 10).float()
            share = _share(own, own.flip(0), target)
            pixelwise = share * x + (1 - share) * x.flip(0)
            if torch.allclose(mixed, pixelwise, atol=1e-5):
                kinds["mixup"] += 1
            else:  # CutMix: each pixel from one image, the label by the area
                other = ((mixed - x).abs() > 1e-6) & ((mixed - x.flip(0)).abs() > 1e-6)
                assert not other.any()
                changed = (mixed != x).any(0).any(0).float().mean()
                assert 1 - share <= changed + 1 / 64 + 1e-6 or changed <= 1 - share + 1e-6
                kinds["cutmix"] += 1
    total = sum(kinds.values())
    assert total == 72 and 0.3 < kinds["mixup"] / total < 0.7


def _share(own: Tensor, other: Tensor, target: Tensor) -> float:
    """How much of its own label a mixed target keeps, the same over the batch."""
    differs = (own != other).any(1)
    shares = (target[differs] * own[differs]).sum(1)
    torch.testing.assert_close(shares, shares[:1].expand_as(shares))
    return float(shares[0])


def test_smoothing_in_the_loss_is_smoothing_of_the_mixed_targets() -> None:
    """torchvision smooths in the loss, timm's Mixup in the targets: the same number."""
    from timm.data import Mixup

    torch.manual_seed(0)
    x, y, scores = torch.rand(8, 1, 6, 6), torch.randint(0, 5, (8,)), torch.randn(8, 5)
    targets = []
    for smoothing in (0.0, 0.1):
        np.random.seed(3)
        mixup = Mixup(0.2, 1.0, prob=1.0, switch_prob=0.5, label_smoothing=smoothing, num_classes=5)
        targets.append(mixup(x.clone(), y)[1])
    in_loss = F.cross_entropy(scores, targets[0], label_smoothing=0.1)
    in_targets = -(targets[1] * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(in_loss, in_targets)


@pytest.mark.parametrize(
    ("data", "train", "place", "says"),
    [
        (DATA, replace(TRAIN, batch_size=33), {"world": 2}, "does not divide"),
        (DATA, replace(TRAIN, batch_size=2, accumulation=4), {}, "does not divide"),
        (DATA, replace(TRAIN, batch_size=33, mixup=0.2), {}, "must be even"),
        (DATA, replace(TRAIN, batch_size=301), {}, "fewer than one step"),
    ],
)
def test_what_cannot_be_is_refused(digits: ImageData, data: Data, train: Train, place: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=says):
        train_loader(digits, data, train, **place)


def test_several_views_of_an_image_lie_side_by_side(digits: ImageData) -> None:
    still = replace(DATA, augment="none", crop="none")
    (views, labels), *_ = train_loader(digits, still, TRAIN, views=2)
    (once, also), *_ = epoch(digits, data=still)
    assert views.shape == (32, 2, 1, 8, 8) and torch.equal(labels, also)
    assert torch.equal(views[:, 0], once) and torch.equal(views[:, 1], once), "the same where nothing is random"
    varied = next(iter(train_loader(digits, DATA, TRAIN, views=2)))[0]
    assert not torch.equal(varied[:, 0], varied[:, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_fixed_batches_hold_everything_in_order(workers: int) -> None:
    data = replace(DATA, val_fraction=0.1, workers=workers)
    images = load_images(data)
    for split in ("train", "val", "test"):
        part = getattr(images, split)
        batches = list(fixed_loader(images, data, split, 128))
        assert torch.cat([b[2] for b in batches]).tolist() == list(range(len(part)))
        assert torch.cat([b[1] for b in batches]).tolist() == part.labels.tolist()
        assert batches[0][0].shape[1:] == (1, 8, 8)
    with pytest.raises(UnknownNameError, match="train, val, test"):
        fixed_loader(images, data, "valid", 8)


def test_accelerate_takes_a_fixed_loader_whole(digits: ImageData) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(fixed_loader(digits, DATA, "test", 128))
    found = torch.cat([accelerator.gather_for_metrics(index) for _, _, index in prepared])
    assert sorted(found.tolist()) == list(range(500))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_an_unreadable_image_is_one_clear_line_also_from_a_worker(tmp_path: Path, workers: int, training: bool) -> None:
    from accelerate import Accelerator

    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8)).save(tmp_path / split / name / f"{i}.png")
        (tmp_path / split / "b" / "2.png").write_bytes(b"nothing")
    data = Data("folder", root=str(tmp_path), image_size=8, workers=workers)
    images = load_images(data)
    if training:
        batches: object = train_loader(images, data, Train(batch_size=8))
    else:
        batches = Accelerator(cpu=True).prepare(fixed_loader(images, data, "test", 8))
    split = "train" if training else "test"
    with pytest.raises(UnreadableImageError) as caught:
        list(batches)  # type: ignore[call-overload]
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / split / 'b' / '2.png'} does not decode as an image (unknown format, 7 bytes)")
    assert "\n" not in said


def test_a_tar_file_is_read_right_by_several_workers(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for i in range(40):
            file = tmp_path / f"{i}.png"
            Image.new("L", (8, 8), i).save(file)
            tar.add(file, f"{'ab'[i % 2]}/{i}.png")
    data = Data("folder", root=str(tmp_path), image_size=8, crop="none", hflip=0.0, workers=2)
    images = load_images(replace(data, mean=(0, 0, 0), std=(1, 1, 1)))
    images.train[0]  # the main process has the file open when the workers are forked from it
    (batch,) = train_loader(images, data, Train(batch_size=32))
    values = (batch[0][:, 0, 0, 0] * 255).round().int()
    assert len(set(values.tolist())) == 32 and (values % 2 == batch[1]).all()


def test_a_network_learns_from_synthetic_images_at_once() -> None:
    data = Data("synthetic:10x3", image_size=24, crop="random_resized", workers=0)
    images = load_images(data)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 6, 6), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for x, y in epoch(images, data=data, train=replace(TRAIN, batch_size=32)):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.8 * losses[0]
