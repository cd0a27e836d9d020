"""What a report shows of trained networks, against slow forms on the same features."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vcreg_hub.analysis.similarity import linear_cka
from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.errors import DataError
from vcreg_hub.evals.blocks import Blocks
from vcreg_hub.evals.classification import Classification
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import portrait, train
from vcreg_hub.run.portrait import _context, portray

RECIPE = Recipe(
    name="tiny",
    model=Model("test_convnext"),
    data=Data("digits", labels="superclass", train_images=128, image_size=32, crop="none", workers=0),
    optim=Optim(lr=2e-3),
    train=Train(epochs=1, batch_size=32),
    evals=(Classification(),),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    both = {"plain": RECIPE, "vcreg": replace(RECIPE, vcreg=VCReg())}
    return [train(recipe, folder / name, log=lambda _: None) for name, recipe in both.items()]


@pytest.fixture(scope="module")
def shown(runs):
    return portray(runs, samples=40)


def test_both_networks_are_shown_on_the_same_samples(runs, shown):
    one, other = shown.portraits
    assert one.labels == other.labels and len(one.labels) == 40 == len(one.points) and one.points != other.points
    assert shown.classes == ("even", "odd") and shown.split == "test" and not shown.notes
    assert {reading.labels for reading in one.readings} == {"", "superclass", "class"}
    assert {reading.split for reading in one.readings} == {"train", "test"}
    assert all(np.isfinite(one.points).flatten())


def test_neighbours_mistakes_and_similarity_are_those_of_the_features(runs, shown):
    contexts = [_context(run) for run in runs]
    rows = [context.at_blocks(Blocks(), "test", "blocks", 40) for context in contexts]
    for of, seen in zip(shown.portraits, rows, strict=True):
        features = seen.features["head.fc (input)"]
        centred = features - features.mean(0)
        for query, *near in of.neighbours:
            cosine = [float(torch.cosine_similarity(centred[query], other, dim=0)) for other in centred]
            order = sorted((i for i in range(40) if i != query), key=lambda i: -cosine[i])
            assert [cosine[i] for i in near] == pytest.approx([cosine[i] for i in order[:5]], abs=1e-5)
        wrong = {i for i, (label, said) in enumerate(zip(of.labels, of.answers, strict=True)) if label != said}
        assert set(of.mistakes) <= wrong and len(of.mistakes) == min(12, len(wrong))
        assert len({of.labels[query] for query, *_ in of.neighbours}) == 2
    (found,) = shown.similarity
    first = next(iter(found.row_names))
    expected = linear_cka(rows[0].features[first], rows[1].features[first])
    assert found.values[0][0] == pytest.approx(expected, abs=1e-4)


def test_the_pictures_are_the_samples(runs, shown):
    context = _context(runs[0])
    places = context.at_blocks(Blocks(), "test", "blocks", 40).places
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(shown.sprite.image.partition(",")[2]))))
    assert sheet.shape == (2 * 32, 20 * 32)
    batch, *_ = next(iter(context.trained_on.take("test", [int(places[21])], 1)))
    pixels = (batch[0, 0] * context.trained_on.std[0] + context.trained_on.mean[0]).clamp(0, 1)
    assert np.abs(sheet[32:64, 32:64] / 255 - pixels.numpy()).max() < 0.01


def test_a_run_without_its_data_is_named(runs, monkeypatch):
    def absent(path):
        if path == runs[1].path:
            raise DataError("no such folder")
        return real(path)

    real = portrait.load_run
    monkeypatch.setattr(portrait, "load_run", absent)
    found = portray(runs, samples=10)
    assert len(found.portraits) == 1 and "no such folder" in found.notes[0]
