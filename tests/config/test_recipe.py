"""Recipes survive JSON, and a wrong setting is refused with the nearest right one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.config import Data, Eval, Model, Optim, Recipe, Train, from_json, override, to_json
from vcreg_hub.errors import ConfigError, UnknownNameError
from vcreg_hub.recipes import addresses, load_recipe
from vcreg_hub.regularizer.vcreg import VCReg

PLAIN = Recipe("r", Model("convnext_atto"), Data("digits"))


@pytest.mark.parametrize("address", addresses())
def test_every_recipe_survives_json(address):
    recipe = load_recipe(address)
    assert from_json(to_json(recipe)) == recipe


@settings(max_examples=50, deadline=None)
@given(
    lr=st.floats(1e-8, 1e3),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    delta=st.none() | st.floats(1e-3, 10),
    protocols=st.lists(st.text(max_size=8), max_size=3).map(tuple),
    root=st.none() | st.text(max_size=20),
)
def test_values_survive_json(lr, betas, delta, protocols, root):
    recipe = replace(
        PLAIN, optim=Optim(lr=lr, betas=betas), vcreg=VCReg(delta=delta), eval=Eval(protocols),
        data=replace(PLAIN.data, root=root),
    )  # fmt: skip
    assert from_json(to_json(recipe)) == recipe


def test_override_reaches_every_kind_of_field():
    changed = override(
        PLAIN,
        ["train.epochs=3", "optim.lr=1", "data.mean=[0.5]", "data.root=a=b", "vcreg.alpha=0.32", "where=final",
         "model.kwargs.drop_path_rate=0.1", "model.pretrained=true", "train.clip_norm=null"],
    )  # fmt: skip
    assert changed.train == Train(epochs=3)
    assert changed.optim.lr == 1.0 and isinstance(changed.optim.lr, float)
    assert changed.data.mean == (0.5,)
    assert changed.data.root == "a=b"
    assert changed.vcreg == VCReg(alpha=0.32)
    assert changed.model.kwargs == {"drop_path_rate": 0.1}
    assert changed.model.pretrained is True
    assert override(changed, ["vcreg=null"]).vcreg is None
    assert PLAIN.train.epochs == 1, "the recipe itself is untouched"


@pytest.mark.parametrize(
    ("setting", "kind", "part"),
    [
        ("train.epoch=3", UnknownNameError, "'train.epochs'"),
        ("trian.epochs=3", UnknownNameError, "'train.epochs'"),
        ("lr=3", UnknownNameError, "unknown field 'lr'"),
        ("train.epochs=many", ConfigError, "a whole number, got 'many'"),
        ("train.epochs=true", ConfigError, "a whole number, got True"),
        ("train.precision=fp8", ConfigError, "'bf16'"),
        ("optim.betas=[0.9]", ConfigError, "2 values, got 1"),
        ("train.epochs.more=1", ConfigError, "single value"),
        ("train.epochs", ConfigError, "field=value"),
        ("vcreg.gradient=fast", ConfigError, "vcreg.gradient"),
        ("vcreg.alpha=-1", ConfigError, "vcreg.alpha"),
        ("train.epochs=-1", ConfigError, "epochs is 1 or more, got -1"),
        ("train.batch_size=0", ConfigError, "batch_size is 1 or more"),
        ("data.train_images=0", ConfigError, "train_images is 1 or more"),
        ("optim.lr=-1", ConfigError, "lr is 0 or more"),
        ("optim.lr=Infinity", ConfigError, "lr is 0 or more, got inf"),
        ("optim.lr=NaN", ConfigError, "lr is 0 or more, got nan"),
        ("optim.lr=1e7", ConfigError, "lr is from 0 to 1000000"),
        ("optim.layer_decay=1.1", ConfigError, "layer_decay is above 0 and at most 1"),
        ("optim.layer_decay=0", ConfigError, "layer_decay is above 0"),
        ("train.seed=-1", ConfigError, "seed is from 0 to 4294967295, got -1"),
        ("train.seed=4294967296", ConfigError, "seed is from 0 to 4294967295"),
        ("train.ema_decay=1", ConfigError, "ema_decay is below 1"),
        ("train.label_smoothing=1", ConfigError, "label_smoothing is below 1"),
        ("data.split_seed=-1", ConfigError, "data.split_seed: split_seed is from 0"),
        ("data.split_seed=4294967296", ConfigError, "split_seed is from 0"),
        ("data.val_fraction=1", ConfigError, "val_fraction is below 1"),
        ("data.val_fraction=-0.1", ConfigError, "val_fraction is 0 or more"),
        ("data.scale=[1,0.1]", ConfigError, "the smaller first, got [1.0, 0.1]"),
        ("data.ratio=[0,1]", ConfigError, "ratio is two numbers above 0"),
        ("data.mean=[0.5,0.5]", ConfigError, "1 or 3, got 2"),
        ("data.mean=[NaN]", ConfigError, "mean is finite"),
        ("data.std=[0]", ConfigError, "std is numbers above 0"),
        ("eval.batch_size=0", ConfigError, "batch_size is 1 or more"),
        ("eval.probe_lambda=0", ConfigError, "probe_lambda is a number above 0"),
        ("eval.split=train", ConfigError, "'test', 'val'"),
        ("name=../mine", ConfigError, "without a slash"),
        ("name=..", ConfigError, "without a slash"),
        ("eval.protocols=", ConfigError, "eval.protocols is a JSON list"),
        ("optim.betas=0.9,0.99", ConfigError, "optim.betas is a JSON list such as '[0.5, 0.9]', got '0.9,0.99'"),
        ("where=null", ConfigError, "where is text, got None"),
    ],
)
def test_wrong_settings_are_refused(setting, kind, part):
    with pytest.raises(kind) as error:
        override(PLAIN, [setting])
    assert part in str(error.value)


def test_the_limits_themselves_are_taken():
    override(
        PLAIN,
        ["train.seed=4294967295", "data.split_seed=4294967295", "optim.layer_decay=1", "data.scale=[1,1]",
         "train.ema_decay=0", "data.val_fraction=0", "data.mean=[0.5,0.5,0.5]", "data.std=[1,1,1]", "optim.lr=1e6"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="'test' or 'val'"):
        Eval(split="train")


@pytest.mark.parametrize("typed", ["2024", "true", "1", "1.50", "[1]", "plain"])
def test_text_stays_as_it_was_typed(typed):
    changed = override(PLAIN, [f"data.root={typed}", f"name={typed}"])
    assert (changed.data.root, changed.name) == (typed, typed)


def test_text_or_something_else():
    found = {t: override(PLAIN, [f"model.pretrained={t}"]).model.pretrained for t in ("true", "false", "2024", "a/b")}
    assert found == {"true": True, "false": False, "2024": "2024", "a/b": "a/b"}
    assert override(PLAIN, ["data.root=2024", "data.root=null"]).data.root is None
    assert override(PLAIN, ['data.root="2024"']).data.root == "2024"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("probe", ("probe",)),
        ("[classification]", ("classification",)),
        ("[classification, probe]", ("classification", "probe")),
        ("classification,probe", ("classification", "probe")),
        ("['probe']", ("probe",)),
        ('["classification","probe"]', ("classification", "probe")),
        ("[]", ()),
    ],
)
def test_names_need_no_quotes(typed, names):
    assert override(PLAIN, [f"eval.protocols={typed}"]).eval.protocols == names


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda v: v.pop("model"), "lacks model"),
        (lambda v: v["train"].update(epoch=1), "'train.epochs'"),
        (lambda v: v.update(name=3), "name is text, got 3"),
        (lambda v: v["vcreg"].update(delta="x"), "vcreg.delta"),
    ],
)
def test_a_broken_recipe_file_is_refused(change, part):
    values = json.loads(to_json(replace(PLAIN, vcreg=VCReg())))
    change(values)
    with pytest.raises((ConfigError, UnknownNameError)) as error:
        from_json(json.dumps(values))
    assert part in str(error.value)
    with pytest.raises(ConfigError, match="not"):
        from_json("{")
