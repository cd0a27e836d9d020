"""The index rules against an independent slow form and the numbers worked out from the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcreg_hub.data.video.sampling import (
    _crop_offsets,
    _evaluation_clips,
    distinct_views,
    short_side_size,
    training_indices,
)
from vcreg_hub.errors import ConfigError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("length", [1, 2, 5, 15, 16, 17, 31, 32])
def test_a_short_video_is_covered_evenly_then_padded_with_its_last_frame(length: int) -> None:
    indices = training_indices(length, generator=generator(0))
    even = length // 2
    assert len(indices) == 16 and indices[even:] == [length - 1] * (16 - even)
    if even > 1:
        assert indices[:even] == [min(int(i * length / (even - 1)), length - 1) for i in range(even)]


@pytest.mark.parametrize("length", [33, 40, 95, 500])
def test_a_long_video_gives_a_window_that_stays_inside_and_moves(length: int) -> None:
    firsts = set()
    for seed in range(40):
        indices = training_indices(length, generator=generator(seed))
        start = indices[0]
        assert 0 <= start <= length - 33
        assert indices == [min(start + int(i * 32 / 15), start + 31) for i in range(16)]
        firsts.add(start)
    assert len(firsts) == 1 if length == 33 else len(firsts) > 4


def test_the_window_end_is_uniform_over_its_whole_range() -> None:
    draws = torch.Generator().manual_seed(3)
    starts = [training_indices(40, generator=draws)[0] for _ in range(4000)]
    counts = np.bincount(starts, minlength=8)
    assert len(counts) == 8 and counts.min() > 400 and counts.max() < 600


def test_without_a_generator_the_middle_window_is_taken() -> None:
    assert training_indices(100) == training_indices(100)
    assert training_indices(100)[0] == (100 - 32) // 2


def test_thirty_two_frames_for_vivit() -> None:
    indices = training_indices(90, frames=32, stride=2, generator=generator(1))
    assert len(indices) == 32 and indices[-1] - indices[0] == 63


def starts(length: int) -> list[int]:
    """The start of each clip, in kept frames; frame 2k is kept frame k."""
    return [clip[0] // 2 for clip in _evaluation_clips(length)]


def test_evaluation_clip_starts() -> None:
    assert starts(40) == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert starts(95) == [0, 3, 7, 10, 14, 17, 21, 24, 28, 32]
    for length in (1, 7, 31, 32):
        assert len({tuple(clip) for clip in _evaluation_clips(length)}) == 1


def test_evaluation_clips_take_consecutive_kept_frames_and_reach_the_end() -> None:
    clips = _evaluation_clips(95)
    assert all(clip == list(range(clip[0], clip[0] + 32, 2)) for clip in clips)
    assert clips[-1][-1] == 94
    assert _evaluation_clips(5) == [[0, 2, 4] + [4] * 13] * 10


def test_sizes_and_crops_of_a_320x240_video() -> None:
    assert short_side_size(240, 320, 224) == (224, 298)
    assert short_side_size(320, 240, 224) == (298, 224)
    assert _crop_offsets(224, 298, 224) == [0, 37, 74]
    assert _crop_offsets(298, 224, 224) == [0, 37, 74]
    assert _crop_offsets(224, 298, 224, crops=1) == [37]


@pytest.mark.parametrize(("length", "clips", "counts"), [(20, 1, (10,)), (40, 5, (3, 2, 2, 2, 1)), (95, 10, (1,) * 10)])
def test_distinct_views_stand_for_all_of_them(length: int, clips: int, counts: tuple[int, ...]) -> None:
    views = distinct_views(length, 240, 320, frames=16, stride=2, size=224, clips=10, crops=3)
    assert len(views.clips) == clips and views.clip_counts == counts and views.crops == (0, 37, 74)
    # the weighted mean over distinct views is the plain mean over all thirty
    value = {clip: float(i) for i, clip in enumerate(views.clips)}
    plain = np.mean([value[tuple(clip)] + 100 * crop for clip in _evaluation_clips(length) for crop in (0, 37, 74)])
    weighted = [value[clip] + 100 * crop for clip in views.clips for crop in views.crops]
    assert views.weights() @ torch.tensor(weighted, dtype=torch.float64) == pytest.approx(plain)


def test_a_square_video_has_one_crop() -> None:
    views = distinct_views(95, 240, 240, frames=16, stride=2, size=224, clips=10, crops=3)
    assert views.crops == (0,) and views.crop_counts == (3,)


@pytest.mark.parametrize("wrong", [(0, 16, 2), (10, 0, 2), (10, 16, 0)])
def test_impossible_numbers_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        training_indices(*wrong)
    with pytest.raises(ConfigError, match="at least one clip"):
        _evaluation_clips(10, clips=0)
