"""Superclasses from a file: the published lists, counted, and files of one's own on folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcreg_hub.config import Data
from vcreg_hub.data.image import hierarchy
from vcreg_hub.data.image.hierarchy import superclasses
from vcreg_hub.data.image.module import load_images
from vcreg_hub.data.image.source import ArrayReader, Source, Split
from vcreg_hub.errors import ConfigError, DataError, UnknownNameError

# CIFAR-100's coarse label of each fine label, as its pickles have them.
COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
]  # fmt: skip
# Superclasses, classes of each, classes in all (Table 5's own counts).
IMAGENET = {
    "living_9": (9, 8, 72), "mixed_10": (10, 6, 60), "mixed_13": (13, 6, 78), "geirhos_16": (16, 2, 32),
    "big_12": (12, 20, 240),
}  # fmt: skip


def source(classes: int, each: int = 2) -> Source:
    labels = np.tile(np.arange(classes), each)
    pixels = np.zeros((len(labels), 2, 2), np.uint8)
    split = Split(ArrayReader(pixels, "made"), labels, labels)
    return Source(split, None, split, tuple(f"c{i}" for i in range(classes)), (0.5,), (0.5,), "here")


@pytest.mark.parametrize("name", IMAGENET)
def test_the_subsets_of_imagenet_have_the_counts_of_table_5(name: str) -> None:
    groups, each, total = IMAGENET[name]
    coarse, fine = (superclasses(source(1000), name, labels) for labels in ("superclass", "class"))
    assert len(coarse.class_names) == groups and len(fine.class_names) == total
    assert isinstance(coarse.train, Split) and isinstance(fine.train, Split)
    assert np.bincount(coarse.train.labels).tolist() == [2 * each] * groups
    assert np.bincount(fine.train.labels).tolist() == [2] * total
    assert np.array_equal(coarse.train.labels, fine.train.labels // each), "each class in its superclass's row"
    assert np.array_equal(coarse.train.classes, fine.train.labels)
    numbers = [int(class_name[1:]) for class_name in fine.class_names]
    assert all(numbers[i : i + each] == sorted(numbers[i : i + each]) for i in range(0, total, each))


def test_some_classes_of_imagenet_are_where_they_should_be() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    for name, superclass, words in (
        ("living_9", "feline", ("cougar", "lynx", "leopard", "lion", "tiger", "cheetah")),
        ("geirhos_16", "keyboard instrument", ("piano", "organ")),
        ("mixed_13", "computer", ("computer", "laptop", "notebook")),
        ("big_12", "musical instrument", ("drum", "guitar", "flute", "cello")),
    ):
        listed = json.loads((Path(hierarchy.__file__).parent / "hierarchies" / f"{name}.json").read_text())[superclass]
        named = " ".join(info.index_to_description(number) for number in listed)
        assert all(word in named for word in words), named


def test_cifar_100_has_its_twenty_superclasses() -> None:
    groups = json.loads((Path(hierarchy.__file__).parent / "hierarchies" / "cifar100.json").read_text())
    names = sorted(name for group in groups.values() for name in group)
    assert len(names) == 100 and [len(group) for group in groups.values()] == [5] * 20
    of_name = {name: label for label, group in enumerate(groups.values()) for name in group}
    assert [of_name[name] for name in names] == COARSE, "fine labels are in the order of the names"


def folder(root: Path, classes: tuple[str, ...] = ("beagle", "pug", "siamese", "tabby", "oak")) -> Path:
    for number, name in enumerate(classes):
        for part, count in (("train", 4), ("test", 2)):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8), (40 * number, 9 * i, 0)).save(root / part / name / f"{i}.png")
    return root


def write(path: Path, groups: object) -> str:
    path.write_text(groups if isinstance(groups, str) else json.dumps(groups))
    return str(path)


def test_a_file_of_one_s_own_groups_the_folders_that_it_lists(tmp_path: Path) -> None:
    root = str(folder(tmp_path / "images"))
    # Folders are numbered by name: beagle, oak, pug, ...
    name = write(tmp_path / "pets.json", {"cat": ["tabby", "siamese"], "dog": ["beagle", 2]})
    coarse = load_images(Data("folder", root=root, hierarchy=name, labels="superclass"))
    fine = load_images(Data("folder", root=root, hierarchy=name))
    assert coarse.class_names == ("cat", "dog") and fine.class_names == ("tabby", "siamese", "beagle", "pug")
    assert (len(coarse.train), len(coarse.test)) == (16, 8)
    for split in ("train", "test"):
        one, other = getattr(coarse, split), getattr(fine, split)
        assert one.fingerprint() == other.fingerprint()
        for i in range(len(one)):
            (image, label), (_, number) = one[i], other[i]
            red = {"tabby": 120, "siamese": 80, "beagle": 0, "pug": 40}[fine.class_names[number]]
            assert label == number // 2 and image.getpixel((0, 0))[0] == red
    held = load_images(Data("folder", root=root, hierarchy=name, labels="superclass", val_fraction=0.25))
    assert (len(held.train), len(held.val)) == (12, 4)


def test_the_package_s_list_works_on_stand_in_images(tmp_path: Path) -> None:
    data = load_images(Data("synthetic:1000x3", hierarchy="geirhos_16", labels="superclass"))
    assert data.num_classes == 16 and data.class_names[12] == "keyboard instrument"
    assert 0 < len(data.train) < len(load_images(Data("synthetic:1000x3")).train)


@pytest.mark.parametrize(
    "groups, error, says",
    [
        (None, ConfigError, "is no file and none of cifar100, living_9"),
        ("{", ConfigError, "is not JSON"),
        ({"a": ["beagle"]}, ConfigError, "two superclasses or more"),
        (["beagle"], ConfigError, "two superclasses or more"),
        ({"a": ["beagle"], "b": []}, ConfigError, "b has a list of class names or numbers, got"),
        ({"a": ["beagle"], "b": [True]}, ConfigError, "b has a list of class names or numbers, got"),
        ({"a": ["beagle"], "b": ["pgu"]}, DataError, "did you mean 'pug'"),
        ({"a": ["beagle"], "b": [5]}, DataError, "class 5 is not among the 5"),
        ({"a": ["beagle"], "b": ["beagle"]}, ConfigError, "beagle is listed twice"),
    ],
)
def test_what_cannot_be_is_refused(groups: object, error: type[Exception], says: str, tmp_path: Path) -> None:
    root, path = folder(tmp_path / "images"), tmp_path / "groups.json"
    name = str(path) if groups is None else write(path, groups)
    with pytest.raises(error, match=says):
        load_images(Data("folder", root=str(root), hierarchy=name))


def test_another_data_set_than_the_list_s_and_another_label_set_are_refused() -> None:
    with pytest.raises(DataError, match="living_9 is over 1,000 classes, here has 100"):
        superclasses(source(100), "living_9", "class")
    with pytest.raises(UnknownNameError, match=r"label set of data\.hierarchy=living_9"):
        superclasses(source(1000), "living_9", "kind")
