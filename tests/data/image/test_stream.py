"""ImageNet streamed from webdataset shards and from a `datasets` folder; shards are made here."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from vcreg_hub.config import Data, Train
from vcreg_hub.data.image.batches import test_loader as fixed_loader
from vcreg_hub.data.image.batches import train_loader
from vcreg_hub.data.image.module import load_images
from vcreg_hub.errors import ConfigError, DataError


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def shards(folder: Path, splits: dict[str, tuple[int, int]]) -> Path:
    """For each split (shards, images a shard); image v has grey level v and class 3 v."""
    info: dict[str, dict] = {"splits": {}}  # type: ignore[type-arg]
    for name, (count, each) in splits.items():
        files = [f"{name}-{i:02d}.tar" for i in range(count)]
        for i, file in enumerate(files):
            with tarfile.open(folder / file, "w") as tar:
                for value in range(i * each, (i + 1) * each):
                    for suffix, content in (("png", png(value)), ("cls", str(3 * value).encode())):
                        entry = tarfile.TarInfo(f"{value:05d}.{suffix}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
        info["splits"][name] = {
            "name": name, "num_samples": count * each, "filenames": files, "shard_lengths": [each] * count,
        }  # fmt: skip
    (folder / "_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(autouse=True)
def small_shards(any_size) -> None:  # type: ignore[no-untyped-def]
    any_size("imagenet")


def data_of(root: str, workers: int = 0, **fields: object) -> Data:
    return Data(
        "imagenet", root=root, image_size=8, crop="none", hflip=0.0, workers=workers, mean=(0, 0, 0), std=(1, 1, 1),
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def values(batch: tuple) -> list[int]:  # type: ignore[type-arg]
    return (batch[0][:, 0, 0, 0] * 255).round().int().tolist()


# webdataset leaves its shards open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_shards_are_streamed_and_an_epoch_can_be_repeated(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("webdataset")
    root = f"wds/{shards(tmp_path, {'train': (4, 16), 'validation': (2, 10)})}"
    cfg = data_of(root, workers)
    images = load_images(cfg)
    assert [len(images.train), len(images.val), len(images.test)] == [64, 0, 20] and images.num_classes == 1000

    loader = train_loader(images, cfg, Train(batch_size=16, seed=3))
    loader.set_epoch(1)
    first = list(loader)
    assert len(first) == len(loader) == 4 and first[0][0].shape == (16, 3, 8, 8)
    for batch in first:
        assert batch[1].tolist() == [3 * value for value in values(batch)]
    again = list(loader)
    assert [values(batch) for batch in first] == [values(batch) for batch in again]
    loader.set_epoch(2)
    second = list(loader)
    loader.set_epoch(1)
    for one, again in zip(first, loader, strict=True):
        assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert [values(batch) for batch in first] != [values(batch) for batch in second]

    tested = Counter(value for batch in fixed_loader(images, cfg, "test", 8) for value in values(batch))
    assert tested == Counter(range(20))
    indices = [int(i) for batch in fixed_loader(images, cfg, "test", 8) for i in batch[2]]
    assert len(set(indices)) == 20


def test_what_a_stream_cannot_do_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    root = f"wds/{shards(tmp_path, {'train': (1, 8), 'validation': (1, 8)})}"
    with pytest.raises(ConfigError, match="streamed"):
        load_images(data_of(root, val_fraction=0.1))
    with pytest.raises(ConfigError, match="streamed"):
        load_images(data_of(root, train_images=4))
    cfg = data_of(root, repeats=4)
    with pytest.raises(ConfigError, match="repeat"):
        train_loader(load_images(cfg), cfg, Train(batch_size=4))
    with pytest.raises(DataError, match=r"split 'valid' of wds/.* could not be opened"):
        load_images(data_of(root, test_split="valid"))


def test_without_webdataset_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.data.readers import reader_wds

    monkeypatch.setattr(reader_wds, "wds", None)
    with pytest.raises(DataError, match="pip install webdataset"):
        load_images(data_of(f"wds/{tmp_path}"))


def test_a_data_set_of_the_hub_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"c{i}" for i in range(5)])}
    )
    (tmp_path / "d" / "data").mkdir(parents=True)
    for split, count in (("train", 40), ("validation", 20)):
        rows = {
            "image": [Image.new("RGB", (8, 8), (i,) * 3) for i in range(count)],
            "label": [i % 5 for i in range(count)],
        }
        table = datasets.Dataset.from_dict(rows, features)
        table.to_parquet(str(tmp_path / "d" / "data" / f"{split}-00000-of-00001.parquet"))
    # The card states the sizes, as it does on the Hub.
    (tmp_path / "d" / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n"
        + "".join(f"          '{i}': c{i}\n" for i in range(5))
        + "  splits:\n  - name: train\n    num_examples: 40\n  - name: validation\n    num_examples: 20\n---\n"
    )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    cfg = data_of(f"hfids/{tmp_path / 'd'}")
    images = load_images(cfg)
    assert [len(images.train), len(images.test), images.num_classes] == [40, 20, 5]
    loader = train_loader(images, cfg, Train(batch_size=8))
    loader.set_epoch(1)
    once = [values(batch) for batch in loader]
    assert sorted(value for batch in once for value in batch) == list(range(40))
    assert once == [values(batch) for batch in loader]
    loader.set_epoch(2)
    assert once != [values(batch) for batch in loader]
    tested = [value for batch in fixed_loader(images, cfg, "test", 8) for value in values(batch)]
    assert sorted(tested) == list(range(20))
    assert_goes_on(train_loader(images, cfg, Train(batch_size=8)))


def assert_goes_on(loader) -> None:  # type: ignore[no-untyped-def]
    """From any place of an epoch, twice in a row, as resumes do: the batches that were left, augmentation included."""
    assert loader.rereads
    loader.set_epoch(1)
    whole = list(loader)
    for seen in (1, len(whole) - 1):
        loader.set_epoch(1, seen)
        rest = list(loader)
        assert len(rest) == len(whole) - seen
        for one, again in zip(whole[seen:], rest):
            assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    loader.set_epoch(1)
    assert len(list(loader)) == len(whole), "an epoch without a place is whole again"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_shards_go_on_exactly_at_a_second_resume_too(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("webdataset")
    cfg = data_of(f"wds/{shards(tmp_path, {'train': (4, 16), 'validation': (2, 10)})}", workers)
    assert_goes_on(train_loader(load_images(cfg), cfg, Train(batch_size=16, seed=3)))
