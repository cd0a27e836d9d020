"""The data sets that come with the machine, and what `load_images` does with any of them."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.config import Data
from vcreg_hub.data.datasets import IMAGE_SETS
from vcreg_hub.data.image import digits, fashion_mnist
from vcreg_hub.data.image.fashion_mnist import _read_idx
from vcreg_hub.data.image.module import ImageData, load_images
from vcreg_hub.errors import ConfigError, DataError, UnknownNameError

# Of the test labels, in order.
DIGITS_TEST = 3708319008
needs_debian = pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is absent")


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).astype("<i8").tobytes())


def pixels(images: object) -> np.ndarray:
    return np.stack([np.asarray(images[i][0]) for i in range(len(images))])  # type: ignore[index, arg-type]


def test_digits_are_scikit_learns_split_once_and_for_all() -> None:
    from sklearn.datasets import load_digits

    data = load_images(Data("digits"))
    assert (len(data.train), len(data.val), len(data.test)) == (1297, 0, 500)
    bunch = load_digits()
    assert np.array_equal(np.rint(pixels(data.test) * (16 / 255)), bunch.images[_test_rows()])
    counts = np.bincount(data.test.labels) / np.bincount(bunch.target)
    assert np.allclose(counts, 500 / 1797, atol=0.005)
    shown = pixels(data.train) / 255
    assert np.allclose([shown.mean(), shown.std()], [data.mean[0], data.std[0]], atol=5e-4)
    assert crc(data.test.labels) == DIGITS_TEST


def _test_rows() -> np.ndarray:
    from sklearn.datasets import load_digits

    from vcreg_hub.data.splits import stratified

    return stratified(load_digits().target, 500, 0)


@needs_debian
def test_fashion_mnist_has_its_images_and_four_kinds() -> None:
    data = load_images(Data("fashion_mnist", labels="superclass"))
    assert (len(data.train), len(data.test), data.in_chans) == (60_000, 10_000, 1)
    assert data.class_names == ("tops", "trousers", "footwear", "bag")
    # Ten classes of 6,000: five tops, one kind of trousers, three of footwear, one of bag.
    assert np.bincount(data.train.labels).tolist() == [30_000, 6_000, 18_000, 6_000]
    fine = load_images(Data("fashion_mnist"))
    pairs = {
        (fine.class_names[c], data.class_names[s]) for c, s in zip(fine.test.labels, data.test.labels, strict=True)
    }
    assert len(pairs) == 10 and ("Ankle boot", "footwear") in pairs and ("Coat", "tops") in pairs
    sample = np.stack([np.asarray(fine.train[i][0]) for i in range(0, 60_000, 25)]) / 255
    assert np.allclose([sample.mean(), sample.std()], [data.mean[0], data.std[0]], atol=0.01)
    assert fine.train[0][0].mode == "L" and fine.train[0][0].size == (28, 28) and fine.train[0][1] == 9


@pytest.mark.parametrize("name", ["digits", pytest.param("fashion_mnist", marks=needs_debian), "synthetic:9x1"])
def test_superclasses_and_classes_are_asked_of_the_same_images(name: str) -> None:
    cfg = Data(name, labels="superclass", val_fraction=0.1, train_images=400, split_seed=4)
    coarse, fine = load_images(cfg), load_images(replace(cfg, labels="class"))
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(coarse, split).indices, getattr(fine, split).indices)
    assert len(fine.train) == 400 and len(fine.val) > 0
    assert not set(fine.train.indices) & set(fine.val.indices)
    # A superclass is a function of the class.
    assert len(set(zip(fine.train.labels, coarse.train.labels, strict=True))) == fine.num_classes
    other = load_images(replace(cfg, split_seed=5))
    assert not np.array_equal(coarse.val.indices, other.val.indices)
    assert np.array_equal(coarse.test.indices, other.test.indices)


def test_validation_images_do_not_depend_on_the_cap() -> None:
    cfg = Data("digits", val_fraction=0.2)
    whole, capped = load_images(cfg), load_images(replace(cfg, train_images=100))
    assert np.array_equal(whole.val.indices, capped.val.indices)
    assert set(capped.train.indices) < set(whole.train.indices)
    assert np.ptp(np.bincount(capped.train.labels)) <= 2


def test_synthetic_images_are_told_apart_by_their_class() -> None:
    data = load_images(Data("synthetic:5x3", image_size=16))
    assert (data.num_classes, data.in_chans) == (5, 3)
    rows, labels = pixels(data.train).reshape(len(data.train), -1).astype(float), data.train.labels
    means = np.stack([rows[labels == c].mean(0) for c in range(5)])
    tested = pixels(data.test).reshape(len(data.test), -1)
    nearest = ((tested[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == data.test.labels).all()
    again = load_images(Data("synthetic:5x3", image_size=16))
    assert np.array_equal(pixels(again.train), pixels(data.train))
    assert not np.array_equal(pixels(data.train)[:5], pixels(data.test)[:5])


@pytest.mark.parametrize(
    ("name", "labels", "classes", "channels"),
    [
        ("synthetic", "class", 10, 3),
        ("synthetic:digits", "superclass", 2, 1),
        ("synthetic:fashion_mnist", "superclass", 4, 1),
        ("synthetic:imagenet", "class", 1000, 3),
        ("synthetic:folder", "class", 10, 3),
        ("synthetic:hf:someone/birds", "coarse_label", 10, 3),
        ("synthetic:7x1", "class", 7, 1),
    ],
)
def test_synthetic_images_stand_in_for_other_data(name: str, labels: str, classes: int, channels: int) -> None:
    data = load_images(Data(name, labels=labels, image_size=24, val_fraction=0.1))
    assert (data.num_classes, data.in_chans) == (classes, channels)
    image, label = data.train[3]
    assert image.size == (24, 24) and len(image.getbands()) == channels and 0 <= label < classes


def test_own_statistics_can_be_overridden() -> None:
    data = load_images(Data("digits", mean=(0.5,), std=(0.5,)))
    assert (data.mean, data.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize(
    ("cfg", "error", "says"),
    [
        (Data("digit"), UnknownNameError, "did you mean 'digits'"),
        (Data("hf"), UnknownNameError, "hf:<id>"),
        (Data("digits", labels="superclas"), UnknownNameError, "did you mean 'superclass'"),
        (Data("digits", mean=(0.5, 0.5, 0.5), std=(1, 1, 1)), ConfigError, "expected 1 values"),
        (Data("folder"), ConfigError, "data.root"),
        (Data("imagenet"), ConfigError, "data.root"),
    ],
)
def test_what_cannot_be_is_refused(cfg: Data, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load_images(cfg)


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + array.tobytes()) if path.suffix == ".gz" else head + array.tobytes())


def hold(monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int) -> None:
    """Says of a data set that it holds that many images."""
    monkeypatch.setitem(IMAGE_SETS, name, replace(IMAGE_SETS[name], train=train, test=test))


@pytest.fixture
def fashion_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hold(monkeypatch, "fashion_mnist", 40, 20)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 20)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def test_fashion_mnist_from_a_folder_gzipped_or_not(fashion_folder: Path) -> None:
    data = load_images(Data("fashion_mnist", root=str(fashion_folder)))
    assert (len(data.train), len(data.test)) == (40, 20) and data.origin == str(fashion_folder)


def test_a_folder_without_the_files_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte is in {tmp_path}.*dataset-fashion-mnist"):
        load_images(Data("fashion_mnist", root=str(tmp_path)))


def test_without_package_and_network_every_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nsecond line")

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"absent.*dataset-fashion-mnist.*Couldn't reach the Hub.*data.root") as caught:
        load_images(Data("fashion_mnist"))
    assert "\n" not in str(caught.value)


def test_without_the_package_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def hub(name: str, *args: object, **kwargs: object) -> object:
        assert name == "zalando-datasets/fashion_mnist"
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(fashion_mnist.CLASSES))}
        )
        image = np.zeros((28, 28), np.uint8)
        rows = {"image": [image] * 20, "label": list(range(10)) * 2}
        return datasets.DatasetDict({s: datasets.Dataset.from_dict(rows, features, split=s) for s in ("train", "test")})

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(datasets, "load_dataset", hub)
    hold(monkeypatch, "fashion_mnist", 20, 20)
    data = load_images(Data("fashion_mnist", labels="superclass"))
    assert data.train.labels[:10].tolist() == [0, 1, 0, 0, 0, 2, 0, 2, 3, 2]
    assert data.train[0][0].mode == "L" and data.mean == fashion_mnist.MEAN


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged gzip"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-7]), "values, not"),
        (lambda raw: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(raw)[4:]), "not an IDX file"),
        (lambda raw: b"<html>not found</html>", "not an IDX file"),
        (lambda raw: b"", "not an IDX file"),
    ],
)
def test_damaged_idx_files_are_named(fashion_folder: Path, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    path = fashion_folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=says) as caught:
        load_images(Data("fashion_mnist", root=str(fashion_folder)))
    assert str(path) in str(caught.value)


def test_labels_out_of_range_are_refused(fashion_folder: Path) -> None:
    path = fashion_folder / "t10k-labels-idx1-ubyte"
    write_idx(path, np.full(20, 10, np.uint8))
    with pytest.raises(DataError, match=f"{path}: labels run to 10"):
        load_images(Data("fashion_mnist", root=str(fashion_folder)))
    write_idx(path, np.zeros(19, np.uint8))
    with pytest.raises(DataError, match=r"expected \(n, 28, 28\) and \(n,\)"):
        load_images(Data("fashion_mnist", root=str(fashion_folder)))


def test_idx_round_trip(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a", array)
    assert np.array_equal(_read_idx(tmp_path / "a", 3), array)


def test_a_source_whose_labels_do_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vcreg_hub.data.image import module

    def broken(cfg: Data) -> object:
        source = digits.load(cfg)
        return replace(source, class_names=source.class_names[:7])

    assert module._READERS.keys() == IMAGE_SETS.keys()
    monkeypatch.setitem(module._READERS, "digits", broken)
    with pytest.raises(DataError, match="labels run from 0 to 9, there are 7 classes"):
        load_images(Data("digits"))


def test_it_says_what_it_is() -> None:
    data = load_images(Data("digits", val_fraction=0.1))
    assert isinstance(data, ImageData)
    assert "1167 training, 130 validation and 500 test images, 10 classes (class)" in str(data)


@pytest.mark.parametrize("name", [name for name, row in IMAGE_SETS.items() if row.classes is not None])
def test_every_known_data_set_says_what_papers_need(name: str) -> None:
    row = IMAGE_SETS[name]
    assert row.train and row.test and row.licence
    assert row.files or name == "digits"
    # A copy on the Hub is read at one commit, so that a run can be repeated.
    assert row.hub is None or row.name == "fashion_mnist" or (row.revision and len(row.revision) == 40)


def test_a_folder_of_all_data_sets_is_looked_into(
    fashion_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all" / "fashion_mnist").mkdir(parents=True)
    for path in fashion_folder.glob("*ubyte*"):
        path.rename(tmp_path / "all" / "fashion_mnist" / path.name)
    monkeypatch.setenv("VCREG_DATA_DIR", str(tmp_path / "all"))
    data = load_images(Data("fashion_mnist"))
    assert len(data.train) == 40 and data.origin == str(tmp_path / "all" / "fashion_mnist")
    assert len(load_images(Data("digits")).train) == 1297


def test_a_long_tail_is_cut_from_what_is_not_held_out_and_leaves_the_test_images() -> None:
    whole = load_images(Data("fashion_mnist", val_fraction=0.1))
    tail = load_images(Data("fashion_mnist", val_fraction=0.1, imbalance=100, train_images=2200))
    counts = np.bincount(tail.train.labels).tolist()
    assert counts == [889, 532, 319, 191, 114, 68, 41, 24, 14, 8]
    assert np.array_equal(tail.val.indices, whole.val.indices) and len(tail.test) == 10_000
    assert not set(tail.train.indices) & set(tail.val.indices)
    superclasses = load_images(
        Data("fashion_mnist", labels="superclass", val_fraction=0.1, imbalance=100, train_images=2200)
    )
    assert np.array_equal(superclasses.train.indices, tail.train.indices), "the tail is one of the finest labels"
