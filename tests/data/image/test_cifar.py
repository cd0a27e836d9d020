"""CIFAR's batches: read right from folder and archive, and nothing is built that is no array and no string."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vcreg_hub.config import Data
from vcreg_hub.data import datasets
from vcreg_hub.data.image import cifar
from vcreg_hub.data.image.module import load_images
from vcreg_hub.errors import DataError, UnknownNameError

EACH = 20  # images of a batch of the made files
TRAIN = {"cifar10": 5 * EACH, "cifar100": EACH}


def drawn(seed: int, count: int = EACH) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, 3072)).astype(np.uint8)


def python2(value: object) -> bytes:
    """What Python 2 wrote: strings are bytes of no declared encoding, arrays are built from such a string."""

    def put(value: object) -> bytes:
        if isinstance(value, np.ndarray):
            rows, columns = value.shape
            raw = value.tobytes()
            return (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                + b"(K\x01" + put(rows) + put(columns) + b"\x86"
                + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
                + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
            )  # fmt: skip
        if isinstance(value, str):
            return b"U" + bytes([len(value)]) + value.encode("latin1")
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(put, value)) + b"e"
        assert isinstance(value, dict)
        return b"}(" + b"".join(put(key) + put(part) for key, part in value.items()) + b"u"

    return b"\x80\x02" + put(value) + b"."


def contents(name: str, dump=python2) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    """The files of a small CIFAR by their path in the archive."""
    if name == "cifar10":
        parts = {
            part: {"batch_label": "made", "data": drawn(seed), "labels": [i % 10 for i in range(EACH)]}
            for seed, part in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
        }
        parts["batches.meta"] = {"label_names": [f"thing {i}" for i in range(10)]}
        return {f"cifar-10-batches-py/{part}": dump(value) for part, value in parts.items()}
    parts = {
        part: {
            "data": drawn(seed),
            "fine_labels": [5 * i % 100 for i in range(EACH)],
            "coarse_labels": [i % 20 for i in range(EACH)],
        }
        for seed, part in enumerate(("train", "test"))
    }
    parts["meta"] = {
        "fine_label_names": [f"fine {i}" for i in range(100)],
        "coarse_label_names": [f"coarse {i}" for i in range(20)],
    }
    return {f"cifar-100-python/{part}": dump(value) for part, value in parts.items()}


def lay_out(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made files hold few images."""
    for name, count in TRAIN.items():
        monkeypatch.setitem(datasets.IMAGE_SETS, name, replace(datasets.IMAGE_SETS[name], train=count, test=EACH))


def check(data, name: str) -> None:  # type: ignore[no-untyped-def]
    assert (len(data.train), len(data.test), data.in_chans) == (TRAIN[name], EACH, 3)
    image, label = data.train[1]
    assert image.mode == "RGB" and image.size == (32, 32)
    # A row holds the red plane, then green, then blue, each row by row.
    assert np.array_equal(np.asarray(image), drawn(0)[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert label == {"cifar10": 1, "cifar100": 5}[name]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("dump", [python2, lambda value: pickle.dumps(value, 2), pickle.dumps])
def test_folder_and_archive_are_read(tmp_path: Path, name: str, dump) -> None:  # type: ignore[no-untyped-def]
    files = contents(name, dump)
    folder = lay_out(tmp_path / "folder", files)
    check(load_images(Data(name, root=str(folder))), name)
    inside = folder / next(iter(files)).partition("/")[0]
    check(load_images(Data(name, root=str(inside))), name)
    archive = f"{inside.name.replace('-batches-py', '-python')}.tar.gz"
    (tmp_path / "packed").mkdir()
    packed = pack(tmp_path / "packed" / archive, files)
    check(load_images(Data(name, root=str(packed.parent))), name)
    check(load_images(Data(name, root=str(packed))), name)


def test_cifar100_has_twenty_superclasses(tmp_path: Path) -> None:
    root = lay_out(tmp_path, contents("cifar100"))
    fine, coarse = (load_images(Data("cifar100", root=str(root), labels=asked)) for asked in ("class", "superclass"))
    assert (fine.num_classes, coarse.num_classes) == (100, 20)
    assert coarse.class_names[3] == "coarse 3"
    assert np.array_equal(fine.train.labels // 5, coarse.train.labels)
    with pytest.raises(UnknownNameError, match="did you mean 'superclass'"):
        load_images(Data("cifar100", root=str(root), labels="superclas"))


def test_other_numbers_of_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out(tmp_path, contents("cifar10"))
    monkeypatch.setitem(datasets.IMAGE_SETS, "cifar10", replace(datasets.IMAGE_SETS["cifar10"], train=50_000))
    with pytest.raises(DataError, match=r"cifar10 has 50,000 images in its train part, but .* holds 100"):
        load_images(Data("cifar10", root=str(root)))


class _Runs:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (_Runs(), "posix.mkdir"),
        ({"data": _Runs(), "labels": []}, "posix.mkdir"),
        ({"data": np.array([{}], dtype=object), "labels": [0]}, "an array of object"),
        ({"data": np.zeros(2, [("a", "u1")]), "labels": [0]}, "an array of"),
        (Path("/"), "pathlib"),
    ],
)
def test_a_batch_that_asks_for_more_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        root = lay_out(tmp_path / str(protocol), contents("cifar10"))
        (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(value, protocol))
        with pytest.raises(DataError, match="data_batch_2 asks for"):
            load_images(Data("cifar10", root=str(root)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "damaged"),
        (b"<html>", "damaged"),
        (python2({"data": drawn(0), "labels": [0] * EACH})[:3000], "damaged"),
        (python2([1]), "holds a list"),
        (python2({"labels": [0]}), "bytes, got NoneType"),
        (python2({"data": drawn(0)[:, :300], "labels": [0] * EACH}), r"got uint8 \(20, 300\)"),
        (python2({"data": drawn(0), "labels": [0] * (EACH - 1)}), "not one whole number an image"),
        (python2({"data": drawn(0), "labels": ["0"] * EACH}), "not one whole number an image"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, value: bytes, says: str) -> None:
    root = lay_out(tmp_path, contents("cifar10"))
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(value)
    with pytest.raises(DataError, match=f"test_batch.*{says}"):
        load_images(Data("cifar10", root=str(root)))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither cifar-10-batches-py/ nor cifar-10-python.tar.gz .*Fetch .*data.root"):
        load_images(Data("cifar10", root=str(tmp_path)))
    root = lay_out(tmp_path, contents("cifar10"))
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3 is missing"):
        load_images(Data("cifar10", root=str(root)))
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(DataError, match="damaged archive"):
        load_images(Data("cifar100", root=str(tmp_path)))


def test_the_hubs_copy_is_read_at_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets as library
    from PIL import Image

    asked = []

    def load_dataset(path: str, name: str | None = None, **more: object) -> dict[str, object]:
        asked.append((path, more["revision"]))
        columns = {
            "img": [Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)) for row in drawn(0)],
            "fine_label": [5 * i % 100 for i in range(EACH)],
            "coarse_label": [i % 20 for i in range(EACH)],
        }
        features = library.Features({
            "img": library.Image(),
            "fine_label": library.ClassLabel(names=[f"fine {i}" for i in range(100)]),
            "coarse_label": library.ClassLabel(names=[f"coarse {i}" for i in range(20)]),
        })  # fmt: skip
        table = library.Dataset.from_dict(columns, features=features)
        return {"train": table, "test": table}

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    data = load_images(Data("cifar100", labels="superclass"))
    assert asked == [("mteb/cifar100", datasets.IMAGE_SETS["cifar100"].revision)]
    assert data.num_classes == 20 and data.train.labels.tolist() == [i % 20 for i in range(EACH)]
    assert data.mean == cifar._LAYOUTS["cifar100"].mean


def test_without_hub_and_root_it_says_what_to_fetch() -> None:
    with pytest.raises(DataError, match=r"cifar10 is not at hand: .* Fetch cifar-10-python.tar.gz .* set data.root"):
        load_images(Data("cifar10"))
