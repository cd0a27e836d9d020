"""The order of the images where classes come in groups."""

from __future__ import annotations

import numpy as np
import pytest

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.data import load_data
from vcreg_hub.data.batches import GroupedOrder
from vcreg_hub.errors import ConfigError
from vcreg_hub.run.build import build


def images_of(order, epoch):
    order.set_epoch(epoch)
    return [image for _, image in order]


def test_each_epoch_shows_the_images_of_its_group_and_no_others():
    labels = np.repeat(np.arange(6), 10)
    train = Train(epochs=6, class_groups=3, batch_size=4)
    order = GroupedOrder(labels, 6, 1, train, 0, 1)
    for epoch in range(6):
        assert sorted(images_of(order, epoch)) == list(np.flatnonzero(labels // 2 == epoch // 2))
    assert images_of(order, 0) == images_of(order, 0) != images_of(order, 1)
    halves = [GroupedOrder(labels, 6, 1, train, rank, 2) for rank in range(2)]
    assert sorted(image for half in halves for image in images_of(half, 3)) == list(range(20, 40))


def test_a_group_s_epoch_is_as_long_as_that_of_the_smallest():
    labels = np.array([0] * 5 + [1] * 9)
    order = GroupedOrder(labels, 2, 1, Train(epochs=2, class_groups=2), 0, 1)
    assert len(order) == len(images_of(order, 0)) == len(images_of(order, 1)) == 5
    assert all(labels[image] == 1 for image in images_of(order, 1))


@pytest.mark.parametrize(("classes", "epochs"), [(7, 6), (6, 7)])
def test_what_does_not_divide_is_refused(classes, epochs):
    with pytest.raises(ConfigError, match="choose a number that does"):
        GroupedOrder(np.arange(classes), classes, 1, Train(epochs=epochs, class_groups=3), 0, 1)


def test_batches_follow_the_groups_and_other_data_refuse_them():
    data = load_data(Data("digits", image_size=8, train_images=200, workers=0, crop="none"))
    batches = data.train_batches(Train(epochs=10, batch_size=8, class_groups=5), 0, 1)
    for epoch in (0, 1, 2, 9):
        batches.set_epoch(epoch)
        assert {int(label) // 2 for _, labels in batches for label in labels} == {epoch // 2}
    recipe = Recipe("r", Model("mlp"), Data("moons:0.1"), train=Train(epochs=2, batch_size=300, class_groups=2))
    with pytest.raises(ConfigError, match="shows all classes at once"):
        build(recipe)
