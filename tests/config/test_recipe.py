"""Recipes survive JSON, and a wrong setting is refused with the nearest right one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcreg_hub.config import (
    Data,
    Eval,
    Model,
    Optim,
    Recipe,
    Train,
    Video,
    differences,
    from_json,
    override,
    to_dict,
    to_json,
)
from vcreg_hub.errors import ConfigError, UnknownNameError
from vcreg_hub.evals.classification import Classification
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.evals.multi_view import MultiView
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
    evals=st.lists(
        st.sampled_from([Classification(), MultiView(), LinearProbe(labels=None, data=Data("digits"))])
        | st.floats(1e-6, 1e6).map(lambda penalty: LinearProbe(penalty=penalty)),
        max_size=3,
    ).map(tuple),
    root=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)
def test_values_survive_json(lr, betas, delta, evals, root):
    recipe = replace(
        PLAIN, optim=Optim(lr=lr, betas=betas), vcreg=VCReg(delta=delta), evals=evals,
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
        ("train.epochs=-1", ConfigError, "train.epochs is a whole number from 0 to 1,000,000, got -1"),
        ("train.batch_size=0", ConfigError, "train.batch_size is a whole number from 1 to 100,000,000"),
        ("data.train_images=0", ConfigError, "train_images is a whole number from 1 to"),
        ("optim.lr=-1", ConfigError, "lr is a number from 0 to 1,000,000, got -1"),
        ("optim.lr=Infinity", ConfigError, "lr is a number from 0 to 1,000,000, got inf"),
        ("optim.lr=NaN", ConfigError, "lr is a number from 0 to 1,000,000, got nan"),
        ("optim.lr=1e7", ConfigError, "lr is a number from 0 to 1,000,000, got 10000000"),
        ("optim.layer_decay=1.1", ConfigError, "layer_decay is a number above 0 and at most 1, or null, got 1.1"),
        ("optim.layer_decay=0", ConfigError, "layer_decay is a number above 0"),
        ("train.seed=-1", ConfigError, "seed is a whole number from 0 to 4,294,967,295, got -1"),
        ("train.seed=4294967296", ConfigError, "seed is a whole number from 0 to 4,294,967,295"),
        ("train.ema_decay=1", ConfigError, "ema_decay is a number from 0 to below 1"),
        ("train.label_smoothing=1", ConfigError, "label_smoothing is a number from 0 to below 1"),
        ("data.split_seed=-1", ConfigError, "data.split_seed is a whole number from 0"),
        ("data.split_seed=4294967296", ConfigError, "split_seed is a whole number from 0"),
        ("data.val_fraction=1", ConfigError, "val_fraction is a number from 0 to below 1"),
        ("data.val_fraction=-0.1", ConfigError, "val_fraction is a number from 0 to below 1"),
        ("data.scale=[1,0.1]", ConfigError, "the smaller first, got [1.0, 0.1]"),
        ("data.ratio=[0,1]", ConfigError, "ratio is numbers, each above 0"),
        ("data.mean=[0.5,0.5]", ConfigError, "1 or 3, got 2"),
        ("data.mean=[NaN]", ConfigError, "mean is numbers, each from"),
        ("data.std=[0]", ConfigError, "std is numbers, each above 0"),
        ("eval.batch_size=0", ConfigError, "batch_size is a whole number from 1"),
        (
            "evals=linear_prob",
            UnknownNameError,
            "evals[0]: unknown evaluation 'linear_prob'; did you mean 'linear_probe'",
        ),
        ("evals=numpy:array", ConfigError, "numpy:array is no evaluation"),
        ("evals=no_such.module:Mine", ConfigError, "no_such.module:Mine cannot be had"),
        ("evals.linear_probe.penalty=1", UnknownNameError, "add others with --set evals=classification,<name>"),
        ("evals.classification.label=x", UnknownNameError, "did you mean 'evals.classification.labels'"),
        ("evals.1.labels=x", UnknownNameError, "The recipe has classification"),
        ('evals=[{"type":"linear_probe","penalty":0}]', ConfigError, "evals[0].penalty is a number above 0"),
        ('evals=[{"type":"linear_probe","penality":1}]', UnknownNameError, "did you mean 'evals[0].penalty'"),
        ("task=clasification", UnknownNameError, "did you mean 'classification'?"),
        ("task=null", ConfigError, "task is null, a name such as classification"),
        ("vcreg=vcregg", UnknownNameError, "did you mean 'vcreg'?"),
        ("eval.split=train", ConfigError, "'test', 'val'"),
        ("name=../mine", ConfigError, "without a slash"),
        ("name=..", ConfigError, "without a slash"),
        ("evals=", ConfigError, "evals is a JSON list, or names"),
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
    ("typed", "found"),
    [
        ("linear_probe", (LinearProbe(),)),
        ("[classification]", (Classification(),)),
        ("[classification, linear_probe]", (Classification(), LinearProbe())),
        ("classification,linear_probe", (Classification(), LinearProbe())),
        ("['linear_probe']", (LinearProbe(),)),
        ('["classification","linear_probe"]', (Classification(), LinearProbe())),
        ('[{"type":"linear_probe","penalty":2}]', (LinearProbe(penalty=2.0),)),
        ("vcreg_hub.evals.linear_probe:LinearProbe", (LinearProbe(),)),
        ("[]", ()),
    ],
)
def test_evaluations_are_named_without_quotes(typed, found):
    assert override(PLAIN, [f"evals={typed}"]).evals == found


def test_an_evaluation_is_changed_by_its_name_or_place_and_kept_where_it_is_named_again():
    both = override(PLAIN, ["evals=classification,linear_probe", "evals.1.penalty=3", "evals.0.labels=class"])
    assert both.evals == (Classification(labels="class"), LinearProbe(penalty=3.0))
    assert override(both, ["evals=linear_probe"]).evals == (LinearProbe(penalty=3.0),)
    other = override(both, ["evals.linear_probe.data.name=synthetic", "data.image_size=32"]).evals[1]
    assert other.data == Data("synthetic"), "it starts from the recipe's own data"
    assert differences(both, override(both, ["evals.linear_probe.penalty=4"])) == ["evals.linear_probe.penalty"]
    assert differences(both, PLAIN) == ["evals"]


def test_what_is_told_by_a_tag_says_it():
    values = to_dict(replace(PLAIN, evals=(LinearProbe(),), vcreg=VCReg()))
    assert values["evals"][0] == {"type": "linear_probe", "data": None, "labels": "class", "penalty": 1.0}
    assert values["vcreg"]["type"] == "vcreg" and values["task"]["type"] == "classification"


OLD = {"protocols": ["classification", "probe"], "split": "val", "batch_size": 8, "probe_labels": "superclass",
       "probe_lambda": 2.0}  # fmt: skip


@pytest.mark.parametrize("video", [None, Video()])
def test_a_recipe_of_the_old_form_is_read(video):
    probe = LinearProbe(labels="superclass", penalty=2.0)
    kind = Classification() if video is None else MultiView()
    recipe = replace(PLAIN, eval=Eval("val", 8), evals=(kind, probe), vcreg=VCReg(alpha=1.0), video=video)
    values = json.loads(to_json(recipe))
    del values["evals"], values["vcreg"]["type"]
    values |= {"eval": OLD, "task": "classification"}
    assert from_json(json.dumps(values)) == recipe


def test_old_settings_are_taken_with_a_line_that_names_the_new_ones(caplog):
    old = ["eval.protocols=classification,probe", "eval.probe_labels=superclass", "eval.probe_lambda=2"]
    assert override(PLAIN, old).evals == (Classification(), LinearProbe(labels="superclass", penalty=2.0))
    said = [record.message for record in caplog.records]
    assert len(said) == 3 and said[0].endswith("use --set evals=[classification,linear_probe]")
    assert said[2].endswith("use --set evals.linear_probe.penalty=2")
    clips = override(replace(PLAIN, video=Video()), ['eval.protocols=["classification"]'])
    assert clips.evals == (MultiView(),), "of clips the old protocol was that of many views"
    assert override(PLAIN, ["eval.protocols=[]"]).evals == ()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda v: v.pop("model"), "lacks model"),
        (lambda v: v["train"].update(epoch=1), "'train.epochs'"),
        (lambda v: v.update(name=3), "name is text, got 3"),
        (lambda v: v["vcreg"].update(delta="x"), "vcreg.delta"),
        (lambda v: v["vcreg"].update(type="vcre"), "vcreg: unknown regularizer 'vcre'"),
        (lambda v: v["evals"][0].update(type=3), "evals[0].type is text, got 3"),
        (lambda v: v.update(task={"type": "ocr"}), "unknown task 'ocr'; known: classification"),
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
