"""Data sets of the `datasets` library, from local files; nothing here asks the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vcreg_hub.config import Data
from vcreg_hub.data.image.decode import UnreadableImageError
from vcreg_hub.data.image.module import load_images
from vcreg_hub.errors import DataError, UnknownNameError

FINE, COARSE = ["ant", "bee", "cow", "dog"], ["insect", "mammal"]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(count: int, start: int = 0, **extra: Any) -> datasets.Dataset:
    """Row i: a plain image of brightness start + i, class i modulo 4, and its coarse class."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=FINE),
            "kind": datasets.ClassLabel(names=COARSE),
            "animal": datasets.Value("string"),
        }
    )
    rows = {
        "image": [Image.new("RGB", (8, 8), (start + i,) * 3) for i in range(count)],
        "label": [i % 4 for i in range(count)],
        "kind": [i % 4 // 2 for i in range(count)],
        "animal": [FINE[i % 4] for i in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features)


def save(folder: Path, form: str, **splits: datasets.Dataset) -> str:
    """Write splits as one of the forms a user may have; returns the data's name."""
    folder.mkdir(exist_ok=True)
    if form == "saved":
        datasets.DatasetDict(splits).save_to_disk(str(folder))
    else:
        (folder / "data").mkdir()
        for name, part in splits.items():
            part.to_parquet(str(folder / "data" / f"{name}-00000-of-00001.parquet"))
    return f"hf:{folder}"


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_local_folder(tmp_path: Path, form: str) -> None:
    name = save(tmp_path / "d", form, train=table(40), test=table(8, start=100))
    data = load_images(Data(name, root=str(tmp_path / "cache"), val_fraction=0.1))
    assert [len(data.train), len(data.val), len(data.test)] == [36, 4, 8]
    assert data.class_names == tuple(FINE) and data.in_chans == 3
    for i in range(8):
        image, label = data.test[i]
        assert image.getpixel((0, 0)) == (100 + i,) * 3 and label == i % 4


def test_other_columns_are_other_labels_of_the_same_images(tmp_path: Path) -> None:
    name = save(tmp_path / "d", "saved", train=table(40), test=table(8))
    cfg = Data(name, labels="kind", val_fraction=0.2, train_images=20)
    coarse, fine, text = (load_images(replace(cfg, labels=column)) for column in ("kind", "class", "animal"))
    assert coarse.class_names == tuple(COARSE) and text.class_names == tuple(FINE)
    for split in ("train", "val", "test"):
        one, other = getattr(coarse, split), getattr(fine, split)
        assert np.array_equal(one.indices, other.indices) and np.array_equal(one.labels, other.labels // 2)
        assert np.array_equal(getattr(text, split).labels, other.labels)


def test_one_parquet_file_is_carved(tmp_path: Path) -> None:
    table(40).to_parquet(str(tmp_path / "all.parquet"))
    data = load_images(Data(f"hf:{tmp_path / 'all.parquet'}", root=str(tmp_path / "cache")))
    assert [len(data.train), len(data.test)] == [32, 8]


def test_an_image_folder_is_read_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (6, 6), (i, i, i)).save(tmp_path / "d" / split / name / f"{i}.png")
    data = load_images(Data(f"hf:{tmp_path / 'd'}", root=str(tmp_path / "cache")))
    assert data.class_names == ("ant", "bee") and [len(data.train), len(data.test)] == [6, 6]


def test_imagenet_as_a_data_set(tmp_path: Path, any_size) -> None:  # type: ignore[no-untyped-def]
    any_size("imagenet")
    save(tmp_path / "d", "saved", train=table(40), validation=table(8), test=table(4))
    data = load_images(Data("imagenet", root=f"hfds/{tmp_path / 'd'}"))
    assert [len(data.train), len(data.val), len(data.test)] == [40, 0, 8]


def test_validation_and_test_of_its_own(tmp_path: Path) -> None:
    name = save(tmp_path / "d", "saved", train=table(40), validation=table(8), test=table(4))
    data = load_images(Data(name, val_fraction=0.5))
    assert [len(data.train), len(data.val), len(data.test)] == [40, 8, 4]


def refused(cfg: Data, error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        load_images(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    name = save(tmp_path / "d", "saved", train=table(8), test=table(4))
    assert "did you mean 'kind'" in refused(Data(name, labels="kinds"), UnknownNameError)
    assert "it has train, test" in refused(Data(name, test_split="validation"))
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert "no image column" in refused(Data(save(tmp_path / "e", "saved", train=plain)))
    nameless = table(4).remove_columns(["label"]).rename_column("animal", "name").remove_columns(["kind"])
    assert "data.labels=name" in refused(Data(save(tmp_path / "f", "saved", train=nameless)), UnknownNameError)


def test_unlabelled_test_images_are_refused(tmp_path: Path) -> None:
    unlabelled = table(4).map(lambda row: {"label": -1})
    said = refused(Data(save(tmp_path / "d", "saved", train=table(8), test=unlabelled)))
    assert "-1" in said and "data.test_split" in said


def test_labels_that_training_lacks_are_refused(tmp_path: Path) -> None:
    strange = table(4).map(lambda row: {"animal": "elk"})
    name = save(tmp_path / "d", "saved", train=table(8), test=strange)
    assert "'elk'" in refused(Data(name, labels="animal"))


def test_a_data_set_nobody_has_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'someone/nothing' doesn't exist\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    said = refused(Data("hf:someone/nothing"))
    assert "someone/nothing" in said and "doesn't exist" in said and "local folder" in said


def test_a_configuration_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*args: object, **kwargs: object) -> datasets.DatasetDict:
        asked.append(args)
        return datasets.DatasetDict(train=table(20))

    monkeypatch.setattr(datasets, "load_dataset", load)
    load_images(Data("hf:someone/birds:large"))
    load_images(Data("hf:someone/birds"))
    assert asked == [("someone/birds", "large"), ("someone/birds", None)]


def test_a_row_that_does_not_decode_is_named(tmp_path: Path) -> None:
    whole = table(8).cast_column("image", datasets.Image(decode=False))
    broken = whole.map(
        lambda row, i: {"image": {"bytes": b"nothing", "path": None}} if i == 5 else {}, with_indices=True
    )
    name = save(tmp_path / "d", "saved", train=broken.cast_column("image", datasets.Image()), test=table(4))
    data = load_images(Data(name))
    with pytest.raises(UnreadableImageError, match=r"row 5 of train split of .* does not decode"):
        [data.train[i] for i in range(8)]


def test_columns_may_have_any_names(tmp_path: Path) -> None:
    """No column says that it is the class: the labels asked for must not decide which images are tested."""
    columns = {"image": "photo", "label": "species", "kind": "group", "animal": "says"}
    data = table(40).rename_columns(columns).add_column("number", list(range(40)))
    name = save(tmp_path / "d", "saved", train=data)
    species, group, says = (load_images(Data(name, labels=labels)) for labels in ("species", "group", "says"))
    assert species.class_names == says.class_names == tuple(FINE) and group.class_names == tuple(COARSE)
    assert len(species.test) == 8
    assert species.test.indices.tolist() == group.test.indices.tolist() == says.test.indices.tolist()
    said = refused(Data(name), UnknownNameError)
    assert "data.labels=species" in said and "group, says, species" in said and "number" not in said
