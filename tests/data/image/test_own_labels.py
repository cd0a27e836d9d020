"""Several sets of labels over the same images of one's own: folders in folders, folders beside folders, columns."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcreg_hub.config import Data
from vcreg_hub.data.image.module import ImageData, load_images
from vcreg_hub.errors import ConfigError, DataError, UnknownNameError

KINDS = {"cat": "mammal", "dog": "mammal", "crow": "bird", "hen": "bird"}
COLOURS = ("black", "white")


def draw(path: Path, number: int) -> Path:
    """Image `number`: its kind and colour can be read off its one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9 + number, 9), (number % 4 * 60, number // 4 % 2 * 200, number)).save(path)
    return path


def kind_and_colour(image: Image.Image) -> tuple[str, str]:
    red, green, _ = image.getpixel((0, 0))
    return list(KINDS)[red // 60], COLOURS[green // 200]


def nested(root: Path, count: int = 40) -> Path:
    for number in range(count):
        kind = list(KINDS)[number % 4]
        draw(root / KINDS[kind] / kind / f"{number // 4}.png", number)
    return root


def trees(root: Path, count: int = 40) -> Path:
    for number in range(count):
        kind, colour = list(KINDS)[number % 4], COLOURS[number // 4 % 2]
        file = draw(root / "by_kind" / kind / f"{number}.png", number)
        other = root / "by_colour" / colour / file.name
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, other)
    return root


def table(file: Path, count: int = 40, **columns: list[str]) -> Path:
    rows = {
        "where": [str(draw(file.parent / "photos" / f"{n}.png", n).relative_to(file.parent)) for n in range(count)],
        "kind": [list(KINDS)[n % 4] for n in range(count)],
        "colour": [COLOURS[n // 4 % 2] for n in range(count)],
        "photographer": [f"somebody {n}" for n in range(count)],
    } | columns
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return file


def same_images(one: ImageData, other: ImageData) -> bool:
    return all(
        [getattr(one, split)[i][0].tobytes() for i in range(len(getattr(one, split)))]
        == [getattr(other, split)[i][0].tobytes() for i in range(len(getattr(other, split)))]
        for split in ("train", "val", "test")
    )


def shown(images: ImageData, split: str) -> list[tuple[tuple[str, str], str]]:
    part = getattr(images, split)
    return [(kind_and_colour(part[i][0]), images.class_names[part[i][1]]) for i in range(len(part))]


def test_folders_in_folders_have_two_label_sets(tmp_path: Path) -> None:
    cfg = Data("folder", root=str(nested(tmp_path)), val_fraction=0.25)
    fine, coarse = load_images(cfg), load_images(replace(cfg, labels="superclass"))
    assert fine.class_names == ("cat", "crow", "dog", "hen") and coarse.class_names == ("bird", "mammal")
    assert same_images(fine, coarse) and [len(fine.train), len(fine.val), len(fine.test)] == [24, 8, 8]
    assert np.bincount(coarse.test.labels).tolist() == [4, 4] and np.bincount(fine.test.labels).tolist() == [2] * 4
    for split in ("train", "val", "test"):
        assert all(kind == label for (kind, _), label in shown(fine, split))
        assert all(KINDS[kind] == label for (kind, _), label in shown(coarse, split))


def test_folders_in_folders_with_splits_of_their_own(tmp_path: Path) -> None:
    nested(tmp_path / "train"), nested(tmp_path / "test", 8)
    coarse = load_images(Data("folder", root=str(tmp_path), labels="superclass"))
    assert [len(coarse.train), len(coarse.test)] == [40, 8]
    assert all(KINDS[kind] == label for (kind, _), label in shown(coarse, "test"))


def test_a_name_in_two_folders_is_two_classes(tmp_path: Path) -> None:
    for number, place in enumerate(("bird/other", "mammal/other", "mammal/cat") * 5):
        draw(tmp_path / place / f"{number}.png", number)
    found = load_images(Data("folder", root=str(tmp_path)))
    assert found.class_names == ("bird/other", "mammal/cat", "mammal/other")


def test_folders_of_the_same_files_are_label_sets(tmp_path: Path) -> None:
    cfg = Data("folder", root=str(trees(tmp_path)), labels="by_kind", val_fraction=0.25)
    kind, colour = load_images(cfg), load_images(replace(cfg, labels="by_colour"))
    assert kind.class_names == ("cat", "crow", "dog", "hen") and colour.class_names == COLOURS
    assert same_images(kind, colour) and len(kind.train) + len(kind.val) + len(kind.test) == 40
    for split in ("train", "val", "test"):
        assert all(truth == label for (truth, _), label in shown(kind, split))
        assert all(truth == label for (_, truth), label in shown(colour, split))
    with pytest.raises(DataError, match=r"hold the same files.*data\.labels=by_colour"):
        load_images(replace(cfg, labels="class"))
    with pytest.raises(UnknownNameError, match="did you mean 'by_colour'"):
        load_images(replace(cfg, labels="by_color"))
    (tmp_path / "by_colour" / "black" / "0.png").unlink()
    with pytest.raises(DataError, match=r"by_colour lacks 0\.png, which by_kind has"):
        load_images(cfg)


def test_equal_names_of_other_files_are_no_label_sets(tmp_path: Path) -> None:
    for number in range(20):
        place = ("mammal/cat", "bird/crow")[number % 2]
        draw(tmp_path / place / f"{number // 2}.png", number)
    assert load_images(Data("folder", root=str(tmp_path))).class_names == ("cat", "crow")


@pytest.mark.parametrize("layout", ["classes", "splits", "train"])
def test_a_folder_one_level_too_high_is_noticed(tmp_path: Path, layout: str) -> None:
    root, inner = tmp_path / "data", {"classes": "photos", "splits": "photos/train", "train": "train/photos"}[layout]
    nested(root / inner)
    if layout == "splits":
        nested(root / "photos" / "test", 8)
    meant = root / ("train/photos" if layout == "train" else "photos")
    with pytest.raises(DataError, match=f"too high.*{meant}"):
        load_images(Data("folder", root=str(root)))


def test_a_csv_has_a_label_set_a_column(tmp_path: Path) -> None:
    cfg = Data("csv", root=str(table(tmp_path / "labels.csv")), labels="kind", val_fraction=0.25)
    kind, colour = load_images(cfg), load_images(replace(cfg, labels="colour"))
    assert kind.class_names == ("cat", "crow", "dog", "hen") and same_images(kind, colour)
    assert np.bincount(kind.test.labels).tolist() == [2] * 4, "each combination of labels has its share"
    for split in ("train", "val", "test"):
        assert all(truth == label for (truth, _), label in shown(kind, split))
        assert all(truth == label for (_, truth), label in shown(colour, split))
    with pytest.raises(UnknownNameError, match="did you mean 'colour'"):
        load_images(replace(cfg, labels="color"))
    with pytest.raises(UnknownNameError, match=r"Say which column with data\.labels"):
        load_images(replace(cfg, labels="class"))


def test_a_csv_may_say_the_split_and_the_class(tmp_path: Path) -> None:
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    numbers = [str(n % 12) for n in range(40)]
    file = table(tmp_path / "labels.csv", split=splits, label=numbers)
    found = load_images(Data("csv", root=str(file)))
    assert [len(found.train), len(found.val), len(found.test)] == [24, 8, 8]
    assert found.class_names == tuple(map(str, range(12))), "numbers by their value"
    assert found.test.reader.where(0).endswith("32.png")
    assert len(load_images(Data("csv", root=str(file), test_split="val")).test) == 8


def refused(file: Path, old: str = "", new: str = "", labels: str = "kind") -> str:
    if old:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_images(Data("csv", root=str(file), labels=labels))
    return str(caught.value)


def test_a_csv_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = table(tmp_path / "labels.csv")
    whole = file.read_text(encoding="utf-8")

    def said(old: str, new: str) -> str:
        file.write_text(whole, encoding="utf-8")
        return refused(file, old, new)

    assert "names 1 file of 40 that are not there, such as" in said("photos/3.png", "photos/x.png")
    assert "photos/3.png twice" in said("photos/4.png", "photos/3.png")
    assert "line 3: 3 values for 4 columns" in said("photos/1.png,dog,", "photos/1.png,")
    assert "line 2: no value for 'kind'" in said("photos/0.png,cat", "photos/0.png,")
    assert "no column of image paths" in said("photos/3.png", "photos/3")
    assert "each with a name of its own" in said("colour", "kind")
    file.write_text("path,kind\n", encoding="utf-8")
    assert "a header and no rows" in refused(file)
    assert "no CSV file" in refused(tmp_path / "absent.csv")
    with pytest.raises(ConfigError, match=r"data\.root=FILE\.csv"):
        load_images(Data("csv"))
    split = table(tmp_path / "split.csv", split=["train"] * 39 + ["tset"])
    assert "'tset'; expected train, val or test" in refused(split)
    alone = table(tmp_path / "alone.csv", kind=["cat"] * 40)
    assert "two values of 'kind' or more, found only 'cat'" in refused(alone)
    strange = table(
        tmp_path / "strange.csv", split=["train"] * 39 + ["test"], kind=["cat", "dog"] * 19 + ["cat", "elk"]
    )
    assert "has class 'elk', which" in refused(strange)
