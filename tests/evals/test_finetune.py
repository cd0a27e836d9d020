"""Fine-tuning as an evaluation: the network stays, the whole copy learns, validation chooses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Optim, Recipe, Train
from vcreg_hub.data import load_data
from vcreg_hub.errors import ConfigError, DivergedError
from vcreg_hub.evals.finetune import Finetune
from vcreg_hub.run import make_accelerator, train
from vcreg_hub.run import tune as module
from vcreg_hub.run.tune import tuned

DATA = Data("digits", image_size=32, workers=0, train_images=256, val_fraction=0.2, crop="none", hflip=0.0)
RECIPE = Recipe("r", Model("test_convnext"), DATA, train=Train(batch_size=64, max_steps=1))
SHORT = Finetune(rates=(1e-5, 3e-3), layer_decays=(1.0,), epochs=4, batch_size=32)


def network():
    import timm

    torch.manual_seed(0)
    return timm.create_model("test_convnext", in_chans=1, num_classes=3)


def test_a_copy_of_other_classes_is_trained_whole_and_the_network_stays():
    before, data = network(), load_data(DATA)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    after = tuned(RECIPE, before, data, Optim(lr=1e-3), Train(epochs=1, batch_size=64), make_accelerator(RECIPE))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.state_dict().items())
    assert after(torch.zeros(1, 1, 32, 32)).shape == (1, 10) and not after.training
    changed = [name for name, tensor in after.named_parameters() if name not in kept or
               tensor.shape != kept[name].shape or not torch.equal(tensor, kept[name])]  # fmt: skip
    assert changed == [name for name, _ in after.named_parameters()]


def test_layer_wise_decay_moves_the_stem_less():
    def moved(decay):
        before = network()
        after = tuned(
            RECIPE, before, load_data(DATA), Optim(lr=1e-3, weight_decay=0.0, layer_decay=decay),
            Train(epochs=1, batch_size=64), make_accelerator(RECIPE),
        )  # fmt: skip
        return (after.stem[0].weight - before.stem[0].weight).norm()

    assert moved(0.3) < 0.3 * moved(None)


def test_in_a_run_the_best_on_validation_is_tested(tmp_path):
    recipe = replace(RECIPE, evals=(SHORT,))
    folder = train(recipe, tmp_path / "run", log=lambda text: None)
    rows = folder.results()["metrics"]
    assert [row["metric"] for row in rows] == ["finetune_top1", "finetune_mean_per_class"]
    assert rows[0]["rate"] == 3e-3 and rows[0]["layer_decay"] == 1.0 and rows[0]["value"] > 40
    kept = json.loads((folder.path / rows[0]["details"]).read_text())
    assert [one["rate"] for one in kept["path"]] == [1e-5, 3e-3]
    assert kept["path"][1]["held_out"] > kept["path"][0]["held_out"]


def test_a_rate_that_diverges_loses_and_all_of_them_is_an_error(tmp_path, monkeypatch):
    def diverging(recipe, own, data, optim, settings, accelerator):
        if optim.lr == 3e-3:
            raise DivergedError("not finite")
        return tuned(recipe, own, data, optim, settings, accelerator)

    from vcreg_hub.run import evaluate

    monkeypatch.setattr(evaluate, "tuned", diverging)
    folder = train(replace(RECIPE, evals=(replace(SHORT, epochs=1),)), tmp_path / "one", log=lambda text: None)
    assert folder.results()["metrics"][0]["rate"] == 1e-5
    with pytest.raises(DivergedError, match="diverged at every rate"):
        train(replace(RECIPE, evals=(replace(SHORT, rates=(3e-3,)),)), tmp_path / "all", log=lambda text: None)
    assert module.tuned is tuned


@pytest.mark.parametrize(
    ("evaluation", "data", "says"),
    [
        (SHORT, replace(DATA, val_fraction=0.0), "2 settings to choose from and digits/class no validation samples"),
        (replace(SHORT, batch_size=512), DATA, "batches of 512, but digits/class has 256 training samples"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(tmp_path, evaluation, data, says):
    with pytest.raises(ConfigError, match=says):
        train(replace(RECIPE, data=data, evals=(evaluation,)), tmp_path / "run", log=lambda text: None)
    for fields in ({"rates": ()}, {"layer_decays": (1.5,)}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            replace(SHORT, **fields)
