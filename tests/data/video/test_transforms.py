"""Views of clips against slow independent forms: what is shared over the frames, what is noise, what is
cropped."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from vcreg_hub.config import Data
from vcreg_hub.data.video.noise import Noise, _frame_noise, normalise
from vcreg_hub.data.video.transforms import (
    TrainClipView,
    _augment_alike,
    _frame_augmentation,
    centre,
    crop_at,
    resize,
    resize_short,
)
from vcreg_hub.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Data("hmdb51", image_size=24, crop="none", hflip=0.0)
RECIPE = Data("hmdb51", image_size=24, augment="rand-m7-n4-mstd0.5-inc1", random_erase=1.0)


def still(frames: int = 5, height: int = 40, width: int = 56) -> torch.Tensor:
    """(t, h, w, 3) bytes, every frame the same picture."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (1, 3, 5, 7), generator=draws, dtype=torch.uint8)
    picture = resize(coarse, height, width)[0].permute(1, 2, 0)
    return picture.expand(frames, -1, -1, -1).contiguous()


def by_hand(picture: torch.Tensor) -> torch.Tensor:
    """(t, c, h, w) bytes to normalised floats, frame by frame."""
    return torch.stack([(frame.double() / 255 - torch.tensor(MEAN)[:, None, None]) /
                        torch.tensor(STD)[:, None, None] for frame in picture]).float()  # fmt: skip


def test_without_augmentation_it_is_resize_and_centre_crop() -> None:
    frames = torch.randint(0, 256, (4, 40, 56, 3), dtype=torch.uint8)
    shown = TrainClipView(PLAIN, MEAN, STD, Noise())(frames, (0, 0, 0))
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    resized = [v2.functional.resize(v2.functional.pil_to_tensor(p), [24, 33]) for p in pictures]
    wanted = by_hand(torch.stack(resized)[..., 4:28])
    assert shown.shape == (4, 3, 24, 24) and shown.dtype == torch.float32 and shown.is_contiguous()
    assert torch.allclose(shown, wanted, atol=1e-5)


def test_everything_random_is_shared_by_the_frames_except_the_erased_pixels() -> None:
    view = TrainClipView(replace(RECIPE, random_erase=0.0), MEAN, STD, Noise())
    clips = [view(still(), (seed, 0, 0)) for seed in range(12)]
    for clip in clips:
        assert all(torch.equal(frame, clip[0]) for frame in clip)
    assert len({clip.sum().item() for clip in clips}) == 12

    erased = TrainClipView(RECIPE, MEAN, STD, Noise())(still(), (3, 0, 0))
    boxes = (erased != clips[3]).any(1)  # (t, h, w): where erasing changed the same draw
    assert boxes[0].any() and not boxes[0].all()
    assert all(torch.equal(box, boxes[0]) for box in boxes)
    assert not torch.equal(erased[0], erased[1])
    rows, columns = boxes[0].any(1).nonzero(), boxes[0].any(0).nonzero()
    area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert boxes[0].sum() == area, "one rectangle"


def test_views_depend_on_the_key_alone_and_leave_the_generators_alone() -> None:
    view = TrainClipView(RECIPE, MEAN, STD, Noise(1.0))
    frames = still()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    one = view(frames, (5, 1, 2), (7,), range(5))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    assert torch.equal(before[0], after[0]) and before[1] == after[1] and (before[2] == after[2]).all()
    torch.manual_seed(9), random.seed(9), np.random.seed(9)
    assert torch.equal(one, view(frames, (5, 1, 2), (7,), range(5)))
    assert not torch.equal(one, view(frames, (5, 2, 2), (7,), range(5)))


def test_flipping_happens_as_often_as_asked() -> None:
    frames = still(2)
    straight = TrainClipView(PLAIN, MEAN, STD, Noise())(frames, (0,))
    half = TrainClipView(replace(PLAIN, hflip=0.5), MEAN, STD, Noise())
    flips = 0
    for seed in range(200):
        clip = half(frames, (seed,))
        flipped = torch.equal(clip, straight.flip(-1))
        assert flipped or torch.equal(clip, straight)
        flips += flipped
    assert 70 < flips < 130


def test_the_resized_crop_covers_its_scale_and_ratio() -> None:
    """A picture whose pixels are their own coordinates shows which part was taken."""
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    frames = torch.stack([rows, columns, 0 * rows], -1).to(torch.uint8)[None]
    view = TrainClipView(Data("x", image_size=32, hflip=0.0, scale=(0.25, 0.5)), (0, 0, 0), (1 / 255,) * 3, Noise())
    for seed in range(60):
        top, left = (view(frames, (seed,))[0, c] for c in (0, 1))
        height = (top.max() - top.min()).item() * 32 / 31
        width = (left.max() - left.min()).item() * 32 / 31
        assert 0.22 < height * width / (120 * 160) < 0.55
        assert 0.68 < width / height < 1.45


def test_every_frame_gets_the_same_operations() -> None:
    """Against applying timm's transform to one tall picture's parts by hand with the same seed."""
    augment = _frame_augmentation("rand-m7-n4-mstd0.5-inc1", 24)
    frames = torch.randint(0, 256, (3, 40, 56, 3), dtype=torch.uint8)
    together = _augment_alike(augment, frames, 17)
    for frame, done in zip(frames, together, strict=True):
        random.seed(17), np.random.seed(17)
        assert np.array_equal(np.asarray(augment(Image.fromarray(frame.numpy()))), done.numpy())


def test_crops() -> None:
    wide, tall = torch.arange(2 * 10).view(1, 1, 2, 10), torch.arange(2 * 10).view(1, 1, 10, 2)
    assert torch.equal(crop_at(wide, 3, 2), wide[..., 3:5]) and torch.equal(crop_at(tall, 3, 2), tall[..., 3:5, :])
    assert torch.equal(centre(wide, 2), wide[..., 4:6]) and centre(tall, 2).shape == (1, 1, 2, 2)
    assert resize_short(torch.zeros(1, 3, 240, 320, dtype=torch.uint8), 224).shape == (1, 3, 224, 298)


@pytest.mark.parametrize("place", ["normalised", "pixels"])
def test_noise_is_a_property_of_the_frame(place: str) -> None:
    frames = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    clean = normalise(frames, MEAN, STD)
    noise = Noise(0.1 if place == "pixels" else 1.5, place, seed=2)
    noisy = normalise(frames, MEAN, STD, noise, (11,), [0, 2, 4, 4])
    added = noisy - clean
    scale = torch.tensor(STD)[:, None, None] if place == "pixels" else 1
    assert (added * scale).std().item() == pytest.approx(noise.sigma, rel=0.03)
    assert abs((added * scale).mean().item()) < 0.03 * noise.sigma
    assert torch.equal(noisy[2], noisy[3]) and not torch.equal(noisy[0], noisy[1])
    again = normalise(frames[:1], MEAN, STD, noise, (11,), [2])
    assert torch.equal(again[0], noisy[1]), "the same frame in another clip of the same video"
    for other in (replace(noise, seed=3), noise):
        key = (11,) if other is not noise else (12,)
        assert not torch.equal(normalise(frames[:1], MEAN, STD, other, key, [2])[0], noisy[1])


def test_noise_on_pixels_stays_in_the_range_of_pixels() -> None:
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    noisy = normalise(frames, (0, 0, 0), (1, 1, 1), Noise(2.0, "pixels"), (0,))
    assert noisy.min() == 0 and noisy.max() == 1


def test_noise_has_no_pattern_across_frames_and_clips() -> None:
    fields = torch.cat([_frame_noise(0, (clip,), range(8), (3, 16, 16)).flatten(1) for clip in range(8)])
    correlation = torch.corrcoef(fields) - torch.eye(64)
    assert correlation.abs().max() < 5 / 768**0.5


@pytest.mark.parametrize("wrong", [{"crop": "pad"}, {"repeats": 2}, {"augment": "ta_wide"}, {"augment": "rand-zz9"}])
def test_what_videos_do_not_take_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="data"):
        TrainClipView(replace(RECIPE, **wrong), MEAN, STD, Noise())


@pytest.mark.parametrize("wrong", [{"sigma": -1.0}, {"sigma": float("nan")}, {"place": "inside"}])
def test_impossible_noise_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"video\.noise"):
        Noise(**wrong)


@pytest.mark.parametrize("size", [(48, 36), (36, 64), (25, 33)])
def test_without_antialiasing_a_frame_is_read_at_points_between_four_pixels(size: tuple[int, int]) -> None:
    """The original's resize: half-pixel centres, no average over what lies between, rounded. By hand, in float64."""
    frames = torch.randint(0, 256, (3, 3, 90, 128), dtype=torch.uint8)
    height, width = size
    y = ((torch.arange(height).double() + 0.5) * 90 / height - 0.5).clamp(0, 89)
    x = ((torch.arange(width).double() + 0.5) * 128 / width - 0.5).clamp(0, 127)
    top, left = y.long().clamp(max=88), x.long().clamp(max=126)
    down, right = (y - top)[:, None], (x - left)[None]
    pixels = frames.double()
    corner = [[pixels[..., top + i, :][..., left + j] for j in (0, 1)] for i in (0, 1)]
    upper = corner[0][0] * (1 - right) + corner[0][1] * right
    lower = corner[1][0] * (1 - right) + corner[1][1] * right
    wanted = upper * (1 - down) + lower * down
    found = resize(frames, height, width, antialias=False).double()
    assert (found - wanted).abs().max() < 0.501
    assert (resize(frames, height, width).double() - wanted).abs().max() > 20, "antialiasing is another picture"


def test_the_field_chooses_antialiasing_of_training_crops() -> None:
    frames = torch.randint(0, 256, (2, 90, 128, 3), dtype=torch.uint8)
    cfg = Data("hmdb51", image_size=24, hflip=0.0)
    smooth, plain = (TrainClipView(cfg, MEAN, STD, Noise(), antialias)(frames, (3,)) for antialias in (True, False))
    assert not torch.allclose(smooth, plain, atol=0.1)
    assert torch.equal(smooth, TrainClipView(cfg, MEAN, STD, Noise())(frames, (3,))), "on where nothing is said"
