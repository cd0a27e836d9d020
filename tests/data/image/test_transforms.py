"""The views against torchvision's first-generation transforms in the order of its reference training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import functional as F

from vcreg_hub.config import Data
from vcreg_hub.data.image.transforms import test_transform as fixed_view
from vcreg_hub.data.image.transforms import train_transform
from vcreg_hub.errors import ConfigError, UnknownNameError

BILINEAR = v1.InterpolationMode.BILINEAR
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width * height)
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
def test_the_training_view_is_torchvisions(how: str) -> None:
    cfg = Data("x", image_size=28, train_size=20, random_erase=0.5, interpolation=how)  # type: ignore[arg-type]
    reference = v1.Compose(
        [
            v1.RandomResizedCrop(20, interpolation=v1.InterpolationMode(how)),
            v1.RandomHorizontalFlip(0.5),
            v1.PILToTensor(),
            v1.ConvertImageDtype(torch.float),
            v1.Normalize(MEAN, STD),
            v1.RandomErasing(0.5),
        ]
    )
    ours, distinct = train_transform(cfg, MEAN, STD), set()
    for seed in range(40):
        torch.manual_seed(seed)
        one = ours(photo())
        torch.manual_seed(seed)
        assert one.shape == (3, 20, 20) and one.dtype == torch.float32
        torch.testing.assert_close(one, reference(photo()), rtol=0, atol=1e-6)
        distinct.add(one.sum().item())
    assert len(distinct) > 30


@pytest.mark.parametrize(
    ("augment", "reference", "draws"),
    [
        ("ta_wide", v1.TrivialAugmentWide(interpolation=BILINEAR), 4000),
        ("aa_imagenet", v1.AutoAugment(v1.AutoAugmentPolicy.IMAGENET, interpolation=BILINEAR), 2500),
        ("ra-1-9", v1.RandAugment(1, 9, interpolation=BILINEAR), 600),
        ("ra-1-5", v1.RandAugment(1, 5, interpolation=BILINEAR), 600),
    ],
)
def test_automatic_augmentation_makes_what_torchvisions_recipes_make(augment: str, reference, draws: int) -> None:  # type: ignore[no-untyped-def]
    """The two generations draw in another order, so the pictures they can make of one picture are compared: how much
    of what either draws the other draws too, and how often the picture stays as it was."""
    image = photo(9, 9)
    view = train_transform(Data("x", image_size=9, crop="none", hflip=0.0, augment=augment), (0, 0, 0), (1, 1, 1))
    torch.manual_seed(0)
    ours = Counter((view(image) * 255).round().byte().numpy().tobytes() for _ in range(draws))
    theirs = Counter(F.pil_to_tensor(reference(image)).numpy().tobytes() for _ in range(draws))
    for one, other in ((ours, theirs), (theirs, ours)):
        assert sum(count for made, count in one.items() if made in other) > 0.97 * draws
    same = F.pil_to_tensor(image).numpy().tobytes()
    assert abs(ours[same] - theirs[same]) < 5 * draws**0.5 / 2
    assert len(ours) > 15


def test_augmentation_comes_after_the_crop_and_before_the_erasing() -> None:
    view = train_transform(Data("x", augment="ra-2-9", random_erase=0.1), MEAN, STD)
    names = [type(step).__name__ for step in view.transforms]  # type: ignore[attr-defined]
    assert names == ["RandomResizedCrop", "RandomHorizontalFlip", "RandAugment", "PILToTensor", "ToDtype",
                     "Normalize", "RandomErasing"]  # fmt: skip


@pytest.mark.parametrize(("resize", "size"), [(None, 24), (32, 24)])
def test_the_fixed_view_resizes_the_short_side_and_cuts_the_middle(resize: int | None, size: int) -> None:
    cfg = Data("x", image_size=size, resize=resize)
    image = photo(60, 40)
    short = resize or size
    small = image.resize((int(short * 60 / 40), short), Image.Resampling.BILINEAR)
    left, top = round((small.width - size) / 2), round((small.height - size) / 2)
    cut = F.to_tensor(small.crop((left, top, left + size, top + size)))
    expected = (cut - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(fixed_view(cfg, MEAN, STD)(image), expected)


def test_padding_moves_the_image_by_an_eighth_at_most() -> None:
    cfg = Data("x", image_size=16, crop="pad", hflip=0.0)
    image = Image.new("L", (16, 16), 255)
    view = train_transform(cfg, (0.0,), (1.0,))
    torch.manual_seed(0)
    rows, columns = set(), set()
    for _ in range(200):
        shown = view(image)[0]
        assert shown.shape == (16, 16)
        rows.add(int((shown.sum(1) > 0).sum()))
        columns.add(int((shown.sum(0) > 0).sum()))
    assert rows == columns == {14, 15, 16}


def test_without_crop_and_flip_the_training_view_is_the_fixed_view() -> None:
    cfg = Data("x", image_size=20, crop="none", hflip=0.0)
    torch.testing.assert_close(
        train_transform(cfg, MEAN, STD)(photo()), fixed_view(cfg, MEAN, STD)(photo()), rtol=0, atol=0
    )


@pytest.mark.parametrize("augment", ["ta_wide", "aa_imagenet", "ra-2-9"])
def test_grey_images_can_be_augmented(augment: str) -> None:
    view = train_transform(Data("x", image_size=16, augment=augment, crop="pad"), (0.5,), (0.5,))
    torch.manual_seed(0)
    for _ in range(60):
        assert view(photo(16, 16, "L")).shape == (1, 16, 16)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ta_wide'"):
        train_transform(Data("x", augment="ta-wide"), MEAN, STD)
    with pytest.raises(ConfigError, match="0 to 30"):
        train_transform(Data("x", augment="ra-2-31"), MEAN, STD)
    with pytest.raises(ConfigError, match="resize"):
        fixed_view(Data("x", image_size=32, resize=28), MEAN, STD)


def test_two_views_are_distorted_as_their_papers_say() -> None:
    grey = photo(mode="L")
    for augment in ("simclr-1.0", "simclr-0.5", "vicreg"):
        cfg = Data("x", image_size=28, augment=augment, hflip=0.0, crop="none")
        for mode, mean in (("RGB", (0.0,) * 3), ("L", (0.0,))):
            seen = train_transform(cfg, mean, (1.0,) * len(mean))(photo(mode=mode))
            assert seen.shape == (len(mean), 28, 28) and 0 <= seen.min() and seen.max() <= 1
    torch.manual_seed(0)
    weak, strong = (
        train_transform(Data("x", image_size=28, augment=f"simclr-{strength}", crop="none"), (0.0,), (1.0,))
        for strength in (0.1, 1.0)
    )
    spread = [torch.stack([view(grey).mean() for _ in range(60)]).std() for view in (weak, strong)]
    assert spread[1] > 3 * spread[0], "the jitter's strength"
    # Of 400 images: a fifth lose their colour.
    view = train_transform(
        Data("x", image_size=28, augment="simclr-0.1", hflip=0.0, crop="none"), (0.0,) * 3, (1.0,) * 3
    )
    lost = sum(torch.equal(seen[0], seen[1]) for seen in (view(photo()) for _ in range(400)))
    assert 50 < lost < 110
    with pytest.raises(ConfigError, match="SimCLR's strength is above 0"):
        train_transform(Data("x", augment="simclr-0"), MEAN, STD)


def test_only_the_second_view_of_vicreg_is_solarised() -> None:
    cfg = Data("x", image_size=28, augment="vicreg", hflip=0.0, crop="none")
    bright = Image.new("RGB", (28, 28), (250, 250, 250))
    darkest = [
        min(train_transform(cfg, (0.0,) * 3, (1.0,) * 3, view)(bright).min().item() for _ in range(100))
        for view in (0, 1)
    ]
    assert darkest[0] > 0.5 > 0.1 > darkest[1], "a bright pixel is inverted"
