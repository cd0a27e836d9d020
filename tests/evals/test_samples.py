"""Bad input of the probes: said before anything is extracted or fitted, with names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe, Train, override
from vcreg_hub.data import load_data
from vcreg_hub.errors import DataError
from vcreg_hub.evals import context
from vcreg_hub.evals.knn import KNN
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.evals.logreg import LogReg
from vcreg_hub.evals.samples import check_classes, check_rows
from vcreg_hub.run import evaluate_run, train

DIGITS = Data("digits", image_size=32, workers=0)
PROBES = (LinearProbe(), LogReg(), KNN())


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


def folder(root, counts, test):
    """Class folders of grey images: counts and test by class name."""
    from PIL import Image

    for part, of in (("train", counts), ("test", test)):
        for name, count in of.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(root / part / name / f"{i}.png")
    return Data("folder", root=str(root), image_size=32, channels=1, workers=0)


@pytest.fixture
def nothing_is_extracted(monkeypatch):
    def refuse(*_args, **_more):
        raise AssertionError("features were extracted first")

    monkeypatch.setattr(context, "extract", refuse)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.tag)
@pytest.mark.parametrize(
    ("train_images", "says"),
    [
        (7, r"digits/class: 7 training samples for 10 classes: a probe needs one of each"),
        (1, r"digits/class: 1 training sample for 10 classes"),
    ],
)
def test_fewer_samples_than_classes(tmp_path, nothing_is_extracted, probe, train_images, says):
    recipe = Recipe("r", Model("test_convnext"), DIGITS, train=Train(batch_size=32), evals=(probe,))
    with pytest.raises(DataError, match=says):
        train(override(recipe, [f"data.train_images={train_images}"]), tmp_path / "run", log=quiet)
    assert not (tmp_path / "run" / "state").exists()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.tag)
def test_a_class_missing_from_train_is_named(tmp_path, monkeypatch, nothing_is_extracted, probe):
    from vcreg_hub.data.image.module import ImageModule

    labels = ImageModule.labels
    # As of a part of the data set in which no seven was kept.
    monkeypatch.setattr(
        ImageModule, "labels", lambda self, part: labels(self, part) if part != "train" else np.arange(60) % 7
    )
    recipe = Recipe("r", Model("test_convnext"), DIGITS, train=Train(batch_size=32), evals=(probe,))
    with pytest.raises(DataError, match=r"digits/class: no training sample of 3 classes, .*: 7, 8, 9\. Give more"):
        train(recipe, tmp_path / "run", log=quiet)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.tag)
def test_one_class_alone(tmp_path, monkeypatch, nothing_is_extracted, probe):
    from vcreg_hub.data.image.module import ImageModule

    monkeypatch.setattr(ImageModule, "labels", lambda self, part: np.full(60, 4))
    recipe = Recipe("r", Model("test_convnext"), DIGITS, train=Train(batch_size=32), evals=(probe,))
    with pytest.raises(DataError, match="a probe tells classes apart, but there is only '4'"):
        train(recipe, tmp_path / "run", log=quiet)


def test_enough_of_each_class(tmp_path):
    data = load_data(folder(tmp_path, {"ant": 5, "bee": 3}, {"ant": 1, "bee": 1}))
    check_classes(data, each=3)
    with pytest.raises(DataError, match=r"fewer than 4 training samples of 1 class.*: bee"):
        check_classes(data, each=4)


@pytest.mark.parametrize("evaluation", PROBES, ids=lambda probe: probe.tag)
def test_features_that_are_not_finite_name_their_files(tmp_path, monkeypatch, evaluation):
    cfg = folder(tmp_path / "images", {"ant": 4, "bee": 4}, {"ant": 3, "bee": 3})
    recipe = Recipe("r", Model("test_convnext"), cfg, train=Train(batch_size=4), evals=())
    run = train(recipe, tmp_path / "run", log=quiet)
    extract = context.extract

    def spoilt(*args, **more):
        found = extract(*args, **more)
        found.arrays["pooled"][1] = np.nan
        return found

    monkeypatch.setattr(context, "extract", spoilt)
    with pytest.raises(DataError, match=r"of 1 of 8 samples are not finite, such as of .*train/ant/1.png\. Look at"):
        evaluate_run(run.path, [f"evals={evaluation.tag}"])


def rows(n=20, d=4, classes=4):
    labels = np.arange(n) % classes
    return np.random.default_rng(n).normal(size=(n, d)).astype(np.float32) + labels[:, None], labels


def scored(probe, train, test):
    if isinstance(probe, LogReg):
        return probe.search(train, None, test)
    return dict(probe.score(train, test))


@pytest.mark.parametrize("probe", PROBES[:2], ids=lambda probe: probe.tag)
@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (rows(), rows(d=5), "the test features are 5 wide, those of the training 4"),
        (rows(), rows(classes=6), "the test labels hold 5, but training has 4 classes up to 3: are they of another"),
        (rows(classes=1), rows(classes=1), "two classes or more"),
        (rows(), (rows()[0], np.arange(19) % 4), r"expected test features \(n, d\)"),
        (
            rows(),
            (np.full((20, 4), np.inf, np.float32), rows()[1]),
            "the test features hold values that are not finite",
        ),
        ((np.full((20, 4), np.nan, np.float32), rows()[1]), rows(), "the training features hold values"),
    ],
)
def test_rows_that_do_not_fit(probe, train, test, says):
    with pytest.raises(DataError, match=says):
        scored(probe, train, test)


def test_a_sample_that_could_not_be_read_counts_for_nothing():
    train, test = rows(), rows(12)
    features, labels = np.append(train[0], np.full((1, 4), np.nan, np.float32), 0), np.append(train[1], -1 - 2)
    check_rows({"training": (features, labels), "test": test})
    with pytest.raises(DataError, match="labels hold 7"):
        check_rows({"training": (features, labels), "test": (test[0], np.where(labels[:12] == 0, -1 - 7, 1))})
    assert torch.isfinite(torch.from_numpy(train[0])).all()
