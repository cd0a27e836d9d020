"""Data sets of listed files, in layouts made here: parts, labels, and what is said where something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as library

from vcreg_hub.config import Data
from vcreg_hub.data.datasets import IMAGE_SETS
from vcreg_hub.data.image import listed
from vcreg_hub.data.image.module import load_images
from vcreg_hub.errors import DataError, UnknownNameError

# (image, class id) of each part, as the made lists say; an image's colour tells which one it is.
PARTS = {"train": [(1, 0), (2, 1), (3, 2), (4, 0)], "val": [(5, 1), (6, 2), (7, 0)], "test": [(8, 2), (9, 1)]}
NAMES = ("abbey", "beach", "cliff")


def paint(path: Path, image: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (20 * image, 0, 0)).save(path, quality=100, subsampling=0)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def matlab(path: Path, **values: object) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)


def food101(root: Path) -> Path:
    for part in ("train", "test"):
        by_class = {name: [f"{name}/{i}" for i, label in PARTS[part] if label == c] for c, name in enumerate(NAMES)}
        write(root / "food-101" / "meta" / f"{part}.json", json.dumps(by_class))
        for i, label in PARTS[part]:
            paint(root / "food-101" / "images" / NAMES[label] / f"{i}.jpg", i)
    return root / "food-101"


def stanford_cars(root: Path) -> Path:
    base = root / "stanford_cars"
    matlab(base / "devkit" / "cars_meta.mat", class_names=np.array(NAMES, dtype=object))
    for part, place in (
        ("train", base / "devkit" / "cars_train_annos.mat"),
        ("test", base / "cars_test_annos_withlabels.mat"),
    ):
        rows = [(f"{i:05d}.jpg", label + 1) for i, label in PARTS[part]]
        matlab(place, annotations=np.array(rows, dtype=[("fname", object), ("class", object)]))
        for i, _ in PARTS[part]:
            paint(base / f"cars_{part}" / f"{i:05d}.jpg", i)
    return base


def fgvc_aircraft(root: Path) -> Path:
    base = root / "fgvc-aircraft-2013b"
    write(base / "data" / "variants.txt", "\n".join(NAMES))
    for part, rows in PARTS.items():
        write(base / "data" / f"images_variant_{part}.txt", "".join(f"{i:07d} {NAMES[label]}\n" for i, label in rows))
        for i, _ in rows:
            paint(base / "data" / "images" / f"{i:07d}.jpg", i)
    return base


def oxford_pets(root: Path) -> Path:
    base = root / "oxford-iiit-pet"
    for part, name in (("train", "trainval"), ("test", "test")):
        rows = PARTS[part] if part == "train" else [*PARTS[part], (10, 0)]
        write(base / "annotations" / f"{name}.txt", "".join(f"{NAMES[c]}_{i} {c + 1} 1 1\n" for i, c in rows))
        for i, label in rows:
            paint(base / "images" / f"{NAMES[label]}_{i}.jpg", i)
    return base


def flowers102(root: Path) -> Path:
    base = root / "flowers-102"
    everything = sorted(row for rows in PARTS.values() for row in rows)
    matlab(base / "imagelabels.mat", labels=np.array([label + 1 for _, label in everything]))
    keys = {"train": "trnid", "val": "valid", "test": "tstid"}
    matlab(base / "setid.mat", **{keys[part]: np.array([i for i, _ in rows]) for part, rows in PARTS.items()})
    for i, _ in everything:
        paint(base / "jpg" / f"image_{i:05d}.jpg", i)
    return base


def dtd(root: Path) -> Path:
    base = root / "dtd"
    for part, rows in PARTS.items():
        rows = rows if part != "test" else [*rows, (10, 0)]
        write(base / "dtd" / "labels" / f"{part}1.txt", "".join(f"{NAMES[c]}/{NAMES[c]}_{i}.jpg\n" for i, c in rows))
        for i, label in rows:
            paint(base / "dtd" / "images" / NAMES[label] / f"{NAMES[label]}_{i}.jpg", i)
    return base


def inaturalist18(root: Path) -> Path:
    kinds = {2: "Plantae", 0: "Plantae", 1: "Aves"}
    categories = [{"id": i, "name": str(i), "supercategory": kind} for i, kind in kinds.items()]
    for part, name in (("train", "train2018"), ("test", "val2018")):
        images = [{"id": 100 + i, "file_name": f"train_val2018/x/{c}/{i}.jpg"} for i, c in PARTS[part]]
        labels = [{"image_id": 100 + i, "category_id": c} for i, c in reversed(PARTS[part])]
        write(root / f"{name}.json", json.dumps({"images": images, "annotations": labels, "categories": categories}))
        for i, c in PARTS[part]:
            paint(root / "train_val2018" / "x" / str(c) / f"{i}.jpg", i)
    return root


def places205(root: Path) -> Path:
    for part, name in (("train", "train"), ("test", "val")):
        paths = {i: f"{NAMES[c][0]}/{NAMES[c]}/gsun_{i}.jpg" for i, c in PARTS[part]}
        lines = "".join(f"{paths[i]} {c}\n" for i, c in PARTS[part])
        write(root / "trainvalsplit_places205" / f"{name}_places205.csv", lines)
        for i, _ in PARTS[part]:
            paint(root / "data/vision/torralba/deeplearning/images256" / paths[i], i)
    return root


MADE: dict[str, Callable[[Path], Path]] = {
    "food101": food101, "stanford_cars": stanford_cars, "fgvc_aircraft": fgvc_aircraft, "oxford_pets": oxford_pets,
    "flowers102": flowers102, "dtd": dtd, "inaturalist18": inaturalist18, "places205": places205,
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a layout, and says of the data set that it holds what was made."""

    def make(name: str) -> Path:
        own = MADE[name](tmp_path)
        row = IMAGE_SETS[name]
        test = 3 if name in ("oxford_pets", "dtd") else 2
        monkeypatch.setitem(IMAGE_SETS, name, replace(row, classes=3, train=4, val=row.val and 3, test=test))
        if name == "flowers102":  # torchvision compares the lists with the hashes of the real ones
            files = {key: (file, None) for key, (file, _) in library.Flowers102._file_dict.items()}
            monkeypatch.setattr(library.Flowers102, "_file_dict", files)
            monkeypatch.setattr(library.Flowers102, "classes", list(NAMES))
        return own

    return make


def seen(images) -> list[tuple[int, int]]:  # type: ignore[no-untyped-def]
    """(image, label) of a part, the image told by its colour."""
    return sorted((round(images[i][0].getpixel((3, 3))[0] / 20), images[i][1]) for i in range(len(images)))


@pytest.mark.parametrize("name", MADE)
def test_a_layout_is_read_as_its_lists_say(made: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    own = made(name)
    for root in {tmp_path, own}:
        data = load_images(Data(name, root=str(root)))
        assert data.num_classes == 3 and data.in_chans == 3
        found = {part: seen(getattr(data, part)) for part in ("train", "val", "test")}
        for part, rows in PARTS.items():
            wanted = rows if part != "val" or IMAGE_SETS[name].val else []
            extra = [(10, 0)] if part == "test" and name in ("oxford_pets", "dtd") else []
            assert found[part] == wanted + extra
        assert data.train.fingerprint() != data.test.fingerprint()


def test_the_layouts_are_those_of_the_rows() -> None:
    assert MADE.keys() == listed._LISTS.keys()
    for name, archive in listed._ARCHIVES.items():
        row = IMAGE_SETS[name]
        assert hasattr(library, str(row.torchvision)) and archive.folder in row.files
        assert ("val" in archive.parts) == (row.val is not None)


def test_species_have_kinds(made: Callable[[str], Path]) -> None:
    root = made("inaturalist18")
    data = load_images(Data("inaturalist18", root=str(root), labels="superclass"))
    assert data.class_names == ("Aves", "Plantae")
    assert [label for _, label in seen(data.train)] == [1, 0, 1, 1]
    with pytest.raises(UnknownNameError, match="unknown label set of places205"):
        load_images(Data("places205", root=str(made("places205")), labels="superclass"))


@pytest.mark.parametrize("name", MADE)
def test_what_is_missing_says_what_to_fetch_and_where_to_put_it(tmp_path: Path, name: str) -> None:
    for root in (str(tmp_path), None):
        with pytest.raises(DataError) as caught:
            load_images(Data(name, root=root))
        told = str(caught.value)
        assert name in told and f"Fetch {IMAGE_SETS[name].files}" in told and "data.root" in told and "\n" not in told
        assert "download=True" not in told


@pytest.mark.parametrize("name", MADE)
def test_other_sizes_and_missing_images_are_refused(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    own = made(name)
    row = IMAGE_SETS[name]
    monkeypatch.setitem(IMAGE_SETS, name, replace(row, train=5))
    with pytest.raises(DataError, match=rf"{name} has 5 images in its train part, but {own.parent}.* holds 4"):
        load_images(Data(name, root=str(tmp_path)))
    monkeypatch.setitem(IMAGE_SETS, name, replace(row, classes=4))
    with pytest.raises(DataError, match=f"{name} has 4 classes, but .* holds 3"):
        load_images(Data(name, root=str(tmp_path)))
    for image in tmp_path.rglob("*.jpg"):
        image.unlink()
    with pytest.raises(DataError, match=f"{name} .*is not there. Fetch"):
        load_images(Data(name, root=str(tmp_path)))


def test_bad_lines_of_a_list_are_named(made: Callable[[str], Path]) -> None:
    root = made("places205")
    path = root / "trainvalsplit_places205" / "val_places205.csv"
    path.write_text(path.read_text() + "a/abbey/x.jpg one\n")
    with pytest.raises(DataError, match=r"val_places205.csv, line 3: expected a path, a space and a class id"):
        load_images(Data("places205", root=str(root)))
