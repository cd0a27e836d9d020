"""Batches of clips: what an item is, that files agree with full decoding, failures, repeats, mixing,
processes."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vcreg_hub.config import Data, Train, Video
from vcreg_hub.data.datasets import VIDEO_SETS
from vcreg_hub.data.failures import Failures
from vcreg_hub.data.video.action_shapes import ActionShapes, make
from vcreg_hub.data.video.batches import video_test_loader, video_train_loader, video_val_loader
from vcreg_hub.data.video.datasets import ClipList, VideoData, load_videos
from vcreg_hub.data.video.decode import UnreadableVideoError, decode_frames
from vcreg_hub.data.video.hmdb51 import prepare
from vcreg_hub.data.video.index import TEST, TRAIN, Clip
from vcreg_hub.data.video.noise import normalise
from vcreg_hub.data.video.sampling import _evaluation_clips, carve_by_source, distinct_views, training_indices
from vcreg_hub.data.video.transforms import centre, resize_short
from vcreg_hub.errors import ConfigError, DataError, UnknownNameError

SPEC = ActionShapes(sources=8, clips_per_source=2, height=24, width=32, min_frames=2, max_frames=50)
VIDEO = Video(frames=4, stride=2, clips=5, crops=3)
TRAIN_CFG = Train(batch_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make(tmp_path_factory.mktemp("loader") / "set", SPEC)
    prepare(root, root, video_set=VIDEO_SETS["action_shapes"], log=lambda text: None)
    return root


def data(root: Path, **changes: object) -> Data:
    settings = {"image_size": 16, "val_fraction": 0.2, "workers": 0, **changes}
    return Data("action_shapes", root=str(root), **settings)


@pytest.fixture
def videos(root: Path) -> VideoData:
    return load_videos(data(root), VIDEO)


def test_parts_are_apart_by_source_and_cover_the_split(root: Path, videos: VideoData) -> None:
    clips = videos.index.clips
    parts = {name: {int(n) for n in getattr(videos, name).numbers} for name in ("train", "val", "test")}
    assert parts["train"] | parts["val"] == {i for i, c in enumerate(clips) if c.flags[0] == TRAIN}
    assert parts["test"] == {i for i, c in enumerate(clips) if c.flags[0] == TEST}
    assert not parts["train"] & parts["val"] and parts["val"]
    for label in range(6):
        sources = {
            name: {clips[n].source for n in numbers if clips[n].label == label} for name, numbers in parts.items()
        }
        assert len(sources["val"]) == 1 and len(sources["train"]) == 5
        assert not sources["train"] & sources["val"] and not sources["test"] & (sources["train"] | sources["val"])
    again = load_videos(data(root), VIDEO)
    assert np.array_equal(again.val.numbers, videos.val.numbers)
    other = load_videos(data(root, split_seed=1), VIDEO)
    assert not np.array_equal(other.val.numbers, videos.val.numbers)
    assert not len(load_videos(data(root, val_fraction=0.0), VIDEO).val)
    second = load_videos(data(root), replace(VIDEO, split=2))
    assert not np.array_equal(second.test.numbers, videos.test.numbers)


def test_carving_holds_out_whole_sources_within_the_fraction() -> None:
    clips = [Clip("x", label, f"film{i // 3}", (TRAIN,)) for label in range(4) for i in range(30)]
    clips += [Clip("x", 4, "only film", (TRAIN,))] * 5
    kept, held = carve_by_source(clips, np.arange(len(clips)), 0.25, seed=0)
    assert sorted([*kept, *held]) == list(range(len(clips)))
    for label in range(4):
        mine = [clips[n].source for n in held if clips[n].label == label]
        assert len(mine) == 6 and all(mine.count(source) == 3 for source in mine)
    assert len({clips[n].source for n in held}) == 2, "the same films in every class that has them"
    assert not {clips[n].source for n in held} & {clips[n].source for n in kept}
    assert not any(clips[n].label == 4 for n in held), "a class keeps its last source"


def test_a_class_of_large_sources_gives_its_smallest() -> None:
    sizes = {"a": 20, "b": 12, "c": 30}
    clips = [Clip("x", 0, source, (TRAIN,)) for source, count in sizes.items() for _ in range(count)]
    clips += [Clip("x", 1, f"film{i}", (TRAIN,)) for i in range(40)]
    for seed in range(5):
        kept, held = carve_by_source(clips, np.arange(len(clips)), 0.1, seed)
        assert {clips[n].source for n in held if clips[n].label == 0} == {"b"}
        assert sum(clips[n].label == 1 for n in held) == 4 and len(kept) + len(held) == len(clips)
    assert not len(carve_by_source(clips, np.arange(len(clips)), 0.0, 0)[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_the_same_whatever_the_workers(root: Path, videos: VideoData, workers: int) -> None:
    loader = video_train_loader(videos, data(root, workers=workers), TRAIN_CFG, VIDEO)
    plain = video_train_loader(videos, data(root), TRAIN_CFG, VIDEO)
    first = list(loader)
    assert len(first) == len(loader) == len(videos.train) // 8
    for (clips, labels), (same, also) in zip(first, plain, strict=True):
        assert clips.shape == (8, 4, 3, 16, 16) and clips.dtype == torch.float32
        assert torch.equal(clips, same) and torch.equal(labels, also)
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader))[0], first[0][0])
    loader.set_epoch(0)
    assert torch.equal(next(iter(loader))[0], first[0][0])


def test_two_processes_share_the_batch_of_one(root: Path, videos: VideoData) -> None:
    cfg = data(root)
    whole = list(video_train_loader(videos, cfg, TRAIN_CFG, VIDEO))
    halves = [list(video_train_loader(videos, cfg, TRAIN_CFG, VIDEO, rank=r, world=2)) for r in (0, 1)]
    assert [len(half) for half in halves] == [len(whole)] * 2
    for (clips, labels), one, two in zip(whole, *halves, strict=True):
        assert torch.equal(clips, torch.stack([one[0], two[0]], 1).flatten(0, 1))
        assert torch.equal(labels, torch.stack([one[1], two[1]], 1).flatten())


def test_repeats_are_views_of_the_same_frames_side_by_side(root: Path, videos: VideoData) -> None:
    still = data(root, crop="none", hflip=0.0)
    video = replace(VIDEO, repeats=3)
    clips, labels = next(iter(video_train_loader(videos, still, TRAIN_CFG, video)))
    once, one_label = next(iter(video_train_loader(videos, still, TRAIN_CFG, VIDEO)))
    assert clips.shape == (24, 4, 3, 16, 16)
    assert torch.equal(clips, once.repeat_interleave(3, 0)), "the same clip where nothing is random"
    assert torch.equal(labels, one_label.repeat_interleave(3))
    varied, _ = next(iter(video_train_loader(videos, data(root), TRAIN_CFG, video)))
    assert not torch.equal(varied[0], varied[1])


def test_views_of_a_clip_keep_an_axis_of_their_own(root: Path, videos: VideoData) -> None:
    views, labels = next(iter(video_train_loader(videos, data(root), TRAIN_CFG, VIDEO, views=2)))
    assert views.shape == (8, 2, 4, 3, 16, 16) and labels.shape == (8,) and not torch.equal(views[:, 0], views[:, 1])
    with pytest.raises(ConfigError, match=r"video\.repeats=3: the task takes 2 views"):
        video_train_loader(videos, data(root), TRAIN_CFG, replace(VIDEO, repeats=3), views=2)


def test_mixing_pairs_a_batch_with_its_reverse_in_every_frame(root: Path, videos: VideoData) -> None:
    still = data(root, crop="none", hflip=0.0)
    plain, labels = next(iter(video_train_loader(videos, still, TRAIN_CFG, VIDEO)))
    one_hot = torch.nn.functional.one_hot(labels, 6).float()

    blended, targets = next(iter(video_train_loader(videos, still, replace(TRAIN_CFG, mixup=0.8), VIDEO)))
    part = ((blended - plain.flip(0)) * (plain - plain.flip(0))).sum() / (plain - plain.flip(0)).square().sum()
    assert torch.allclose(blended, part * plain + (1 - part) * plain.flip(0), atol=1e-4)
    assert torch.allclose(targets, part * one_hot + (1 - part) * one_hot.flip(0), atol=1e-4)

    cut, targets = next(iter(video_train_loader(videos, still, replace(TRAIN_CFG, cutmix=1.0), VIDEO)))
    from_other = (cut == plain.flip(0)).flatten(0, 2).all(0) & ~(cut == plain).flatten(0, 2).all(0)
    share = 1 - from_other.float().mean()
    assert torch.equal(cut, torch.where(from_other, plain.flip(0), plain)), "one box for all frames and clips"
    assert torch.allclose(targets, share * one_hot + (1 - share) * one_hot.flip(0), atol=1e-5)


def test_test_items_give_the_views_of_the_protocol(root: Path, videos: VideoData) -> None:
    """Against decoding everything, resizing everything, and slicing by the rule."""
    lengths = set()
    for item in video_test_loader(videos, data(root), VIDEO):
        clip = videos.index.clips[item.number]
        lengths.add(clip.frames)
        assert item.label == clip.label and item.frames.dtype == torch.uint8
        with av.open(str(videos.index.root / clip.path)) as container:
            full = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        resized = resize_short(torch.from_numpy(full).permute(0, 3, 1, 2), 16)
        assert resized.shape[-2:] == (16, 21)
        values, weights = [], item.weights.view(len(item.positions), len(item.crops))
        for positions, row in zip(item.positions, weights, strict=True):
            for crop, weight in zip(item.crops, row, strict=True):
                view = item.frames[positions][..., int(crop) : int(crop) + 16]
                values.append(weight * view.double().mean())
        wanted = [
            resized[indices][..., offset : offset + 16].double().mean()
            for indices in _evaluation_clips(len(full), 4, 2, 5)
            for offset in (0, 2, 5)
        ]
        assert sum(values).item() == pytest.approx(np.mean(wanted))
        assert len(item.frames) <= len(full) and item.positions.shape[1] == 4
    assert min(lengths) < 8 and max(lengths) > 40, "short and long files were among them"


def test_shares_of_the_test_files_cover_them_once(root: Path, videos: VideoData) -> None:
    shares = [[i.number for i in video_test_loader(videos, data(root), VIDEO, rank=r, world=5)] for r in range(5)]
    assert sorted(n for share in shares for n in share) == sorted(videos.test.numbers)
    assert len({len(share) for share in shares}) == 2, "the shares are uneven, which the merging must bear"


def test_noise_of_a_test_frame_is_one_field_that_crops_look_at(root: Path, videos: VideoData) -> None:
    noisy = replace(VIDEO, noise=1.5)
    clean_item = next(iter(video_test_loader(videos, data(root), VIDEO)))
    item, again = (next(iter(video_test_loader(videos, data(root), noisy))) for _ in range(2))
    assert item.frames.dtype == torch.float32 and torch.equal(item.frames, again.frames)
    mean, std = (torch.tensor(v)[:, None, None] for v in (videos.mean, videos.std))
    added = item.frames - (clean_item.frames / 255 - mean) / std
    assert added.std().item() == pytest.approx(1.5, rel=0.05)
    clips, *_ = next(iter(video_val_loader(videos, data(root), noisy, 2)))
    assert clips.std() > 1.5


def test_the_validation_view_is_the_middle(root: Path, videos: VideoData) -> None:
    seen = []
    for clips, labels, numbers in video_val_loader(videos, data(root), VIDEO, 4):
        assert clips.shape[1:] == (4, 3, 16, 16)
        seen += list(zip(labels.tolist(), numbers.tolist(), strict=True))
    assert seen == [(videos.index.clips[n].label, n) for n in videos.val.numbers]
    with pytest.raises(UnknownNameError):
        video_val_loader(videos, data(root), VIDEO, 4, split="holdout")


@pytest.fixture
def broken(root: Path, tmp_path: Path) -> Path:
    """The set with three clips emptied after they were indexed: two for training, one for testing."""
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    videos = load_videos(data(copy, val_fraction=0.0), VIDEO)
    for part, places in ((videos.train, (0, 9)), (videos.test, (1,))):
        for place in places:
            (copy / "videos" / part[place].path).write_bytes(b"")
    return copy


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_fail_are_replaced_counted_and_named_once(
    broken: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = data(broken, val_fraction=0.0, workers=workers)
    videos = load_videos(cfg, VIDEO)
    failures = Failures(len(videos.index.clips), limit=10)
    loader = video_train_loader(videos, cfg, replace(TRAIN_CFG, batch_size=9), VIDEO, failures)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batches = list(loader)
            assert all(torch.isfinite(clips).all() and clips.flatten(1).any(1).all() for clips, _ in batches)
    assert failures.count() == 2 and not failures.too_many()
    assert failures.flags.nonzero().flatten().tolist() == sorted(int(videos.train.numbers[i]) for i in (0, 9))
    if not workers:
        assert sum("0 bytes" in record.message for record in caplog.records) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_past_the_limit_no_file_is_opened_and_the_loader_never_stops_by_itself(broken: Path, workers: int) -> None:
    """Whether a run stops is for all processes to decide together; until then each must be able to take its steps."""
    cfg = data(broken, val_fraction=0.0, workers=workers)
    videos = load_videos(cfg, VIDEO)
    failures = Failures(len(videos.index.clips), limit=1)
    loader = video_train_loader(videos, cfg, replace(TRAIN_CFG, batch_size=9), VIDEO, failures)
    assert len(list(loader)) == len(loader) and failures.too_many() and failures.count() == 2
    for clips, labels in loader:
        assert clips.shape == (9, 4, 3, 16, 16) and not clips.any() and len(labels) == 9


def test_two_clips_of_which_one_is_broken_give_the_other(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    videos = load_videos(data(copy, val_fraction=0.0), VIDEO)
    videos = replace(videos, train=ClipList(videos.index, videos.train.numbers[:2]))
    paths = [copy / "videos" / videos.train[place].path for place in (0, 1)]
    paths[0].unlink()
    loader = video_train_loader(videos, data(copy), replace(TRAIN_CFG, batch_size=2), VIDEO)
    for epoch in range(8):
        loader.set_epoch(epoch)
        assert all(clips.flatten(1).any(1).all() for clips, _ in loader)
    paths[1].write_bytes(b"no video")
    with pytest.raises(UnreadableVideoError, match="no training clip of action_shapes decodes"):
        list(video_train_loader(videos, data(copy), replace(TRAIN_CFG, batch_size=2), VIDEO))


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_validation_or_test_clip_that_breaks_is_marked_and_named(
    damage: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    cfg = data(copy)
    videos = load_videos(cfg, VIDEO)
    places = {}
    for part in (videos.val, videos.test):
        place = max(range(len(part)), key=lambda place, part=part: part[place].frames)
        path = copy / "videos" / part[place].path
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        places[id(part)] = place
    failures = Failures(len(videos.index.clips), limit=0)
    lost = int(videos.val.numbers[places[id(videos.val)]])
    for clips, labels, numbers in video_val_loader(videos, cfg, VIDEO, 4, failures=failures):
        for clip, label, number in zip(clips, labels.tolist(), numbers.tolist(), strict=True):
            true = videos.index.clips[number].label
            assert (label, bool(clip.any())) == ((-1 - true, False) if number == lost else (true, True))
    items = list(video_test_loader(videos, cfg, VIDEO, failures=failures))
    empty = [item.number for item in items if not len(item.frames)]
    assert empty == [videos.test.numbers[places[id(videos.test)]]]
    assert failures.flags.nonzero().flatten().tolist() == sorted([lost, *empty])
    for number in (lost, *empty):
        assert f"{videos.index.clips[number].path}: " in caplog.text
    assert caplog.text.count("the clip counts as wrong") == 2


def test_clips_known_to_be_broken_are_left_out_of_training_up_to_a_limit(broken: Path) -> None:
    prepare(broken, broken, video_set=VIDEO_SETS["action_shapes"], log=lambda text: None)
    videos = load_videos(data(broken, val_fraction=0.0), VIDEO)
    assert len(videos.train) == 6 * 12 - 2 and len(videos.test) == 6 * 4
    assert "3 clips of the whole set do not decode" in str(videos)
    with pytest.raises(DataError, match=r"2 training clips do not decode, video\.max_failed is 1"):
        load_videos(data(broken), replace(VIDEO, max_failed=1))


@pytest.mark.parametrize(
    ("changes", "video", "train", "message"),
    [
        ({}, VIDEO, Train(batch_size=9, accumulation=2), "does not divide"),
        ({}, VIDEO, Train(batch_size=500), "fewer than one step"),
        ({}, VIDEO, Train(batch_size=9, mixup=0.8), "must be even"),
        ({"repeats": 3}, VIDEO, TRAIN_CFG, r"data\.repeats"),
    ],
)
def test_recipes_that_cannot_be(
    root: Path, videos: VideoData, changes: dict, video: Video, train: Train, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        video_train_loader(videos, data(root, **changes), train, video)


@pytest.mark.parametrize(
    ("changes", "video", "kind", "message"),
    [
        ({"name": "hmdb"}, VIDEO, UnknownNameError, "hmdb51"),
        ({"name": "hmdb51", "root": None}, VIDEO, ConfigError, "vcreg data hmdb51"),
        ({"name": "hmdb51"}, VIDEO, DataError, "holds action_shapes, not hmdb51"),
        ({}, replace(VIDEO, split=4), ConfigError, "splits 1 to 3"),
        ({"mean": (0.5,)}, VIDEO, ConfigError, "3 values"),
        ({"val_fraction": 1.0}, VIDEO, ConfigError, "val_fraction"),
    ],
)
def test_data_that_cannot_be(root: Path, changes: dict, video: Video, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_videos(replace(data(root), **changes), video)


def test_action_shapes_is_made_where_nothing_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("vcreg_hub.data.video.action_shapes.make.__defaults__", (SPEC,))
    videos = load_videos(Data("action_shapes"), VIDEO)
    assert videos.index.root == tmp_path / "vcreg_hub" / "action_shapes" / "videos"
    assert [p.name for p in (tmp_path / "vcreg_hub").iterdir()] == ["action_shapes"], "nothing is left beside it"
    stamp = (videos.index.root.parent / "index.parquet").stat().st_mtime_ns
    load_videos(Data("action_shapes"), VIDEO)
    assert (videos.index.root.parent / "index.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("antialias", [True, False])
def test_views_are_the_bits_of_resizing_the_whole_file_at_once(root: Path, antialias: bool) -> None:
    """As it was done before frames were resized one by one as they are decoded."""
    cfg, video = data(root), replace(VIDEO, antialias=antialias)
    videos = load_videos(cfg, video)

    def at_once(clip: Clip, indices: list[int]) -> torch.Tensor:
        frames = decode_frames(videos.index.root / clip.path, indices).permute(0, 3, 1, 2)
        return resize_short(frames, cfg.image_size, cfg.interpolation, antialias)

    for item in video_test_loader(videos, cfg, video):
        clip = videos.index.clips[item.number]
        views = distinct_views(
            clip.frames, clip.height, clip.width, frames=video.frames, stride=video.stride, size=cfg.image_size,
            clips=video.clips, crops=video.crops,
        )  # fmt: skip
        assert torch.equal(item.frames, at_once(clip, sorted({i for chosen in views.clips for i in chosen})))
    for clips, _, numbers in video_val_loader(videos, cfg, video, 4):
        for shown, number in zip(clips, numbers.tolist(), strict=True):
            clip = videos.index.clips[number]
            indices = training_indices(clip.frames, video.frames, video.stride)
            whole = centre(at_once(clip, indices), cfg.image_size)
            assert torch.equal(shown, normalise(whole, videos.mean, videos.std))
