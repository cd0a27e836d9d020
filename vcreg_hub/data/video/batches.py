"""Batches of clips. The order of an epoch, its random numbers and the mixing of a batch are those of images.

A training item is a clip drawn once from the file and augmented `video.repeats` times. A test item is a
whole file: its frames, resized once, and which of them make up which view, so that a file is decoded once
however many views it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from ...config import Data, Train, Video
from ...errors import ConfigError
from ..batches import (
    Key,
    Order,
    TrainLoader,
    batch_mixing,
    batches_of_epoch,
    in_order,
    part_of,
    share_of_batch,
    worker_processes,
)
from ..failures import Failures, marked_lost
from ..randomness import derive_seed, numpy_seed
from .decode import UnreadableVideoError
from .decoders import Decoder
from .noise import Noise, normalise
from .sampling import Views, distinct_views, training_indices
from .transforms import TrainClipView, centre, resize_short

if TYPE_CHECKING:
    from .datasets import ClipList, VideoData


class TestItem(NamedTuple):
    """One file under test. frames: (f, c, h, w), bytes, or normalised floats with noise; none
    when the file does not decode. positions: (clips, t) places in `frames` of each clip's frames. crops:
    (crops,) offsets on the longer side. weights: (clips * crops,) float64, the share of each view, clips
    outermost. number: in the index."""

    frames: Tensor
    positions: Tensor
    crops: Tensor
    weights: Tensor
    label: int
    number: int


TestItem.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


def video_train_loader(
    videos: VideoData,
    data: Data,
    train: Train,
    video: Video,
    failures: Failures | None = None,
    *,
    rank: int = 0,
    world: int = 1,
    views: int = 1,
) -> TrainLoader:
    """Training batches of one process of `world`: clips (b * repeats, t, c, size, size) float32 and
    targets, (b * repeats,) class ids or (b * repeats, classes) probabilities after mixup, with b =
    train.batch_size / (world * train.accumulation). Views of one clip are neighbours. views: with more than one, clips
    are (b, views, t, c, size, size) instead, which `video.repeats` must leave alone.

    A clip that fails to decode is replaced by another and counted in `failures`; once they are more than its limit, no
    file is opened any more and clips are zeros, with which nobody should go on training.
    Errors: ConfigError when the batch size does not divide or exceeds the clips; UnreadableVideoError when no clip is
    left.
    """
    size = share_of_batch(train, world)
    if views > 1 and video.repeats > 1:
        raise ConfigError(f"video.repeats={video.repeats}: the task takes {views} views of a clip already")
    failures = failures or Failures(len(videos.index.clips), video.max_failed)
    view = TrainClipView(data, videos.mean, videos.std, Noise.of(video), video.antialias)
    clips = _TrainClips(videos.train, view, video, failures, max(views, video.repeats))
    order = Order(videos.train, 1, train.seed, rank, world)
    batches = batches_of_epoch(len(order), size, train, world, "clips")
    mixing = batch_mixing(train, videos.num_classes, size * video.repeats, views)
    workers = worker_processes(data.workers)
    loader = DataLoader(
        clips,
        batch_sampler=BatchSampler(order, size, drop_last=True),  # type: ignore[arg-type]
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_Collate(mixing, (train.seed, rank), stacked=views > 1),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
    return TrainLoader(loader, batches, train.seed, order)


def video_val_loader(
    videos: VideoData,
    data: Data,
    video: Video,
    batch_size: int,
    split: str = "val",
    failures: Failures | None = None,
) -> DataLoader:
    """The middle clip, centre crop, of every clip of a split ("train", "val" or "test"), in order: (clips
    (b, t, c, h, w), labels, numbers). Not shared out among processes: accelerate's `prepare` does that. A
    clip that does not decode is zeros, its label -1 minus the true one, and it is counted in `failures`."""
    failures = failures or Failures(len(videos.index.clips), video.max_failed)
    clips = _MiddleClips(_part(videos, split), data, video, videos.mean, videos.std, failures)
    return in_order(clips, batch_size, data.workers)


def video_test_loader(
    videos: VideoData,
    data: Data,
    video: Video,
    split: str = "test",
    failures: Failures | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """This process's share of a split's files, one `TestItem` each: every `world`-th from the `rank`-th on.
    Do not `prepare` it. A file that does not decode comes as an item without frames and a warning, however many
    there are."""
    part = _part(videos, split)
    failures = failures or Failures(len(videos.index.clips), video.max_failed)
    files = _TestFiles(part, range(rank, len(part), world), data, video, videos.mean, videos.std, failures)
    return in_order(files, None, data.workers)


class _TrainClips(Dataset):
    """Asked with a key and a place in the list; answers (views (views, t, c, h, w), label, key)."""

    def __init__(self, clips: ClipList, view: TrainClipView, video: Video, failures: Failures, views: int) -> None:
        self.clips, self.view, self.video, self.failures, self.views = clips, view, video, failures, views
        self.decode = Decoder(video.decoder)

    def __getitem__(self, item: tuple[Key, int]) -> tuple[Tensor, int, Key]:
        key, place = item
        for attempt in itertools.count():
            clip, number = self.clips[place], int(self.clips.numbers[place])
            if self.failures.too_many():
                shape = (self.views, self.video.frames, len(self.view.mean), self.view.size, self.view.size)
                return torch.zeros(shape), clip.label, key
            draws = torch.Generator().manual_seed(derive_seed(*key, attempt))
            indices = training_indices(clip.frames, self.video.frames, self.video.stride, draws)
            try:
                frames = self.decode(self.clips.index.root / clip.path, [clip.first + i for i in indices])
                break
            except UnreadableVideoError as error:
                self.failures.add(number, error, "another clip takes its place")
                if self.failures.none_left(self.clips.numbers):
                    raise UnreadableVideoError(f"no training clip of {self.clips.index.name} decodes") from error
                place = int(torch.randint(len(self.clips), (), generator=draws))
        views = [self.view(frames, (*key, r), (number, r), indices) for r in range(self.views)]
        return torch.stack(views), clip.label, key


class _MiddleClips(Dataset):
    def __init__(
        self,
        clips: ClipList,
        data: Data,
        video: Video,
        mean: Sequence[float],
        std: Sequence[float],
        failures: Failures,
    ) -> None:
        self.clips, self.data, self.video, self.mean, self.std = clips, data, video, mean, std
        self.failures = failures
        self.decode = Decoder(video.decoder)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        clip, number = self.clips[place], int(self.clips.numbers[place])
        indices = training_indices(max(clip.frames, 1), self.video.frames, self.video.stride)
        size = self.data.image_size
        try:
            shown = self.decode(
                self.clips.index.root / clip.path,
                [clip.first + i for i in indices],
                lambda frame: centre(_short(frame, self.data, self.video), size),
            )
        except UnreadableVideoError as error:
            self.failures.add(number, error, "the clip counts as wrong")
            return torch.zeros(self.video.frames, len(self.mean), size, size), marked_lost(clip.label), number
        return normalise(shown, self.mean, self.std, Noise.of(self.video), (number,), indices), clip.label, number


class _TestFiles(Dataset):
    def __init__(
        self,
        clips: ClipList,
        places: Sequence[int],
        data: Data,
        video: Video,
        mean: Sequence[float],
        std: Sequence[float],
        failures: Failures,
    ) -> None:
        self.clips, self.places, self.data, self.video, self.mean, self.std = clips, places, data, video, mean, std
        self.failures = failures
        self.decode = Decoder(video.decoder)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> TestItem:
        clip = self.clips[self.places[place]]
        number = int(self.clips.numbers[self.places[place]])
        size, video = self.data.image_size, self.video
        try:
            if clip.error:
                raise UnreadableVideoError(clip.error)
            views = distinct_views(
                clip.frames,
                clip.height,
                clip.width,
                frames=video.frames,
                stride=video.stride,
                size=size,
                clips=video.clips,
                crops=video.crops,
            )
            needed = sorted({index for indices in views.clips for index in indices})
            frames = self.decode(
                self.clips.index.root / clip.path,
                [clip.first + i for i in needed],
                lambda frame: _short(frame, self.data, video),
            )
        except UnreadableVideoError as error:
            self.failures.add(number, error, "the clip counts as wrong")
            return _without_frames(clip.label, number)
        if video.noise:
            frames = normalise(frames, self.mean, self.std, Noise.of(video), (number,), needed)
        return TestItem(
            frames, _positions(views, needed), torch.tensor(views.crops), views.weights(), clip.label, number
        )


def _short(frame: Tensor, data: Data, video: Video) -> Tensor:
    """A frame as test views see it. Each is resized as it is decoded: those of a minute of 1080p would fill 10 GB."""
    return resize_short(frame, data.image_size, data.interpolation, video.antialias)


def _positions(views: Views, needed: Sequence[int]) -> Tensor:
    places = {index: place for place, index in enumerate(needed)}
    return torch.tensor([[places[index] for index in indices] for indices in views.clips])


def _without_frames(label: int, number: int) -> TestItem:
    nothing = torch.empty(0, dtype=torch.long)
    return TestItem(torch.empty(0, dtype=torch.uint8), nothing, nothing, torch.empty(0).double(), label, number)


class _Collate:
    """Lays the views of all items side by side, then mixes the batch where a recipe asks for it. stacked: views keep an
    axis of their own."""

    def __init__(self, mixup: Any, salt: tuple[int, int], stacked: bool) -> None:
        self.mixup, self.salt, self.stacked = mixup, salt, stacked

    def __call__(self, items: Sequence[tuple[Tensor, int, Key]]) -> tuple[Tensor, Tensor]:
        views, labels = default_collate([item[:2] for item in items])
        if self.stacked:
            return views, labels
        repeats = views.shape[1]
        clips, labels = views.flatten(0, 1), labels.repeat_interleave(repeats)
        if self.mixup is None:
            return clips, labels
        with numpy_seed(*items[0][2], *self.salt):
            # timm mixes images (b, c, h, w): frames and channels together are as good as channels.
            mixed_clips, targets = self.mixup(clips.flatten(1, 2), labels)
        return mixed_clips.view_as(clips), targets


def _part(videos: VideoData, split: str) -> ClipList:
    return part_of({"train": videos.train, "val": videos.val, "test": videos.test}, split)
