"""Recipes survive JSON, and a wrong setting is refused with the nearest right one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.config import Data, Eval, Model, Optim, Recipe, Train, from_json, override, to_json
from vcreg_hub.core import VCReg
from vcreg_hub.errors import ConfigError, UnknownNameError
from vcreg_hub.recipes import addresses, load_recipe

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
    ],
)
def test_wrong_settings_are_refused(setting, kind, part):
    with pytest.raises(kind) as error:
        override(PLAIN, [setting])
    assert part in str(error.value)


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
