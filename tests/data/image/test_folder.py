"""Class folders and tar files: every layout, and every way they can be wrong."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcreg_hub.config import Data
from vcreg_hub.data.image.decode import UnreadableImageError
from vcreg_hub.data.image.module import load_images
from vcreg_hub.errors import DataError, UnknownNameError

CLASSES = {"ant": (200, 0, 0), "bee": (0, 200, 0), "cow": (0, 0, 200)}


def paint(folder: Path, count: int, classes: dict[str, tuple[int, int, int]] = CLASSES, suffix: str = ".png") -> Path:
    """`count` plain images a class, in the class's colour; brightness tells them apart."""
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (12, 10), tuple(c + i for c in colour)).save(folder / name / f"{i:03d}{suffix}")
    return folder


def pack(folder: Path) -> None:
    """Replace a folder of class folders by a tar file of its name."""
    with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
        for file in sorted(folder.rglob("*.*")):
            tar.add(file, file.relative_to(folder))
            file.unlink()
    for child in folder.iterdir():
        child.rmdir()
    folder.rmdir()


def colours_match(images: object, names: tuple[str, ...]) -> bool:
    pairs = [images[i] for i in range(len(images))]  # type: ignore[index, arg-type]
    return all(int(np.argmax(image.getpixel((0, 0)))) == list(CLASSES).index(names[label]) for image, label in pairs)


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    paint(tmp_path, 2, {"ant": CLASSES["ant"]})
    with pytest.raises(DataError, match="two class folders or more, found only 'ant'"):
        load_images(Data("folder", root=str(tmp_path)))


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "tars"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "test")])
def test_three_splits_on_disk(tmp_path: Path, packed: bool, names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (4, 2, 3), strict=True):
        paint(tmp_path / name, count)
        if packed:
            pack(tmp_path / name)
    data = load_images(Data("folder", root=str(tmp_path), val_fraction=0.5))
    assert [len(data.train), len(data.val), len(data.test)] == [12, 6, 9]  # a split on disk is not carved again
    assert data.class_names == ("ant", "bee", "cow") and data.in_chans == 3
    for split in (data.train, data.val, data.test):
        assert colours_match(split, data.class_names)


def test_without_test_the_validation_folder_is_the_test_split(tmp_path: Path) -> None:
    paint(tmp_path / "train", 10)
    paint(tmp_path / "val", 2)
    data = load_images(Data("folder", root=str(tmp_path), val_fraction=0.2))
    assert [len(data.train), len(data.val), len(data.test)] == [24, 6, 6]
    assert np.bincount(data.val.labels).tolist() == [2, 2, 2]


def test_one_folder_of_classes_is_carved(tmp_path: Path) -> None:
    paint(tmp_path, 10)
    data = load_images(Data("folder", root=str(tmp_path), val_fraction=0.25))
    assert [len(data.train), len(data.val), len(data.test)] == [18, 6, 6]
    files = [{split.reader.where(int(i)) for i in split.indices} for split in (data.train, data.val, data.test)]
    assert len(set.union(*files)) == 30  # no image in two splits
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_a_test_split_with_fewer_classes_keeps_the_numbers_of_training(tmp_path: Path) -> None:
    paint(tmp_path / "train", 2)
    paint(tmp_path / "test", 2, {"cow": CLASSES["cow"], "bee": CLASSES["bee"]})
    data = load_images(Data("folder", root=str(tmp_path)))
    assert data.test.labels.tolist() == [1, 1, 2, 2] and colours_match(data.test, data.class_names)


def test_imagenet_takes_validation_images_for_the_test(tmp_path: Path, any_size) -> None:  # type: ignore[no-untyped-def]
    any_size("imagenet")
    paint(tmp_path / "train", 4)
    paint(tmp_path / "val", 2)
    (tmp_path / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / "unlabelled.png")
    data = load_images(Data("imagenet", root=str(tmp_path), val_fraction=0.25))
    assert [len(data.train), len(data.val), len(data.test)] == [9, 3, 6]


def test_splits_by_other_names(tmp_path: Path) -> None:
    paint(tmp_path / "fold1", 3)
    paint(tmp_path / "fold2", 2)
    data = load_images(Data("folder", root=str(tmp_path), train_split="fold1", test_split="fold2"))
    assert [len(data.train), len(data.test)] == [9, 6]


def test_images_of_any_mode_are_shown_in_colour(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i, mode in enumerate(("L", "RGBA", "P", "1", "RGB")):
            Image.new("RGB", (6, 6), (9, 90, 9)).convert(mode).save(tmp_path / name / f"{i}.png")
    data = load_images(Data("folder", root=str(tmp_path)))
    assert {data.train[i][0].mode for i in range(len(data.train))} == {"RGB"}


def refused(cfg: Data) -> str:
    with pytest.raises(DataError) as caught:
        load_images(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_says_where_it_looked(tmp_path: Path) -> None:
    said = refused(Data("folder", root=str(tmp_path / "absent")))
    assert str(tmp_path / "absent") in said and "data.root" in said


def test_a_missing_split_lists_what_is_there(tmp_path: Path) -> None:
    paint(tmp_path / "val", 1)
    assert "no train/ or train.tar" in refused(Data("folder", root=str(tmp_path)))
    paint(tmp_path / "train", 1)
    said = refused(Data("folder", root=str(tmp_path), test_split="fold2"))
    assert "no fold2/" in said and "train/, val/" in said


def test_empty_folders_are_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(Data("folder", root=str(tmp_path)))
    paint(tmp_path / "train", 2)
    (tmp_path / "train" / "dog").mkdir()
    assert "class folder 'dog'" in refused(Data("folder", root=str(tmp_path)))


def test_images_outside_class_folders_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "train", 2)
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "stray.png")
    assert f"directly in {tmp_path / 'train'}" in refused(Data("folder", root=str(tmp_path)))


def test_classes_that_training_lacks_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "train", 2)
    paint(tmp_path / "test", 1, {"ant": CLASSES["ant"], "elk": (9, 9, 9)})
    said = refused(Data("folder", root=str(tmp_path)))
    assert "'elk'" in said and "'ant', 'bee', 'cow'" in said


def test_too_few_images_to_split(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    assert "need both" in refused(Data("folder", root=str(tmp_path)))


def test_an_empty_tar_file_is_named(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "train.tar", "w").close()
    assert str(tmp_path / "train.tar") in refused(Data("folder", root=str(tmp_path)))


def test_a_damaged_tar_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(b"<html>" * 200)
    assert str(tmp_path / "train.tar") in refused(Data("folder", root=str(tmp_path)))


def test_a_tar_of_one_tar_a_class(tmp_path: Path) -> None:
    """The form in which ImageNet's training images are handed out."""
    paint(tmp_path / "train", 6)
    with tarfile.open(tmp_path / "all.tar", "w") as whole:
        for name in CLASSES:
            with tarfile.open(tmp_path / f"{name}.tar", "w") as part:
                for file in sorted((tmp_path / "train" / name).iterdir()):
                    part.add(file, file.name)
            whole.add(tmp_path / f"{name}.tar", f"{name}.tar")
    data = load_images(Data("folder", root=str(tmp_path / "all.tar")))
    assert [len(data.train), len(data.test)] == [14, 4] and data.class_names == tuple(CLASSES)
    assert colours_match(data.train, data.class_names) and colours_match(data.test, data.class_names)


def test_readers_can_be_sent_to_another_process(tmp_path: Path) -> None:
    paint(tmp_path / "train", 6)
    pack(tmp_path / "train")
    data = load_images(Data("folder", root=str(tmp_path)))
    sent = pickle.loads(pickle.dumps(data.train))
    assert sent[3][0].tobytes() == data.train[3][0].tobytes()


def test_other_label_sets_are_refused(tmp_path: Path) -> None:
    paint(tmp_path, 5)
    with pytest.raises(UnknownNameError, match="label set"):
        load_images(Data("folder", root=str(tmp_path), labels="superclass"))


def png_with_bad_data() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[60:80] = bytes(20)
    return bytes(raw)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", zlib.compress(b"x" * 99), png_with_bad_data(), b"\x89PNG\r\n\x1a\n" + b"\0" * 30],
    ids=["empty", "html", "noise", "damaged", "header only"],
)
def test_an_image_that_does_not_decode_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    paint(tmp_path / "train", 2)
    paint(tmp_path / "test", 1)
    bad = tmp_path / "train" / "bee" / "000.png"
    bad.write_bytes(content)
    data = load_images(Data("folder", root=str(tmp_path)))
    with pytest.raises(UnreadableImageError, match=f"{bad} does not decode as an image") as caught:
        [data.train[i] for i in range(len(data.train))]
    assert "\n" not in str(caught.value) and f"{len(content)} bytes" in str(caught.value)


def test_an_image_cut_short_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "train", 1, suffix=".jpg")
    paint(tmp_path / "test", 1, suffix=".jpg")
    bad = tmp_path / "train" / "ant" / "000.jpg"
    Image.effect_noise((64, 64), 50).save(bad)
    bad.write_bytes(bad.read_bytes()[:-600])
    data = load_images(Data("folder", root=str(tmp_path)))
    with pytest.raises(UnreadableImageError, match="truncated"):
        data.train[0]


def test_hidden_files_are_no_images(tmp_path):
    """macOS leaves a ._1.png beside a 1.png."""
    paint(tmp_path / "train", 4)
    for file in list((tmp_path / "train").rglob("*.png")):
        (file.parent / f"._{file.name}").write_bytes(b"Mac OS X")
    images = load_images(Data("folder", root=str(tmp_path)))
    assert len(images.train) + len(images.test) == 12
