"""Every number of a recipe has a range, and nothing that is typed leads to a traceback or to nonsense."""

from __future__ import annotations

import dataclasses
import json
import math
import string
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vcreg_hub.config import (
    Data,
    Eval,
    Evaluation,
    Model,
    Optim,
    Recipe,
    Regularizer,
    Task,
    Train,
    VCReg,
    Video,
    from_json,
    number,
    override,
    to_dict,
    to_json,
)  # fmt: skip
from vcreg_hub.config.tagged import _tags, tagged_class
from vcreg_hub.errors import ConfigError, UsageError
from vcreg_hub.recipes import load_recipe
from vcreg_hub.regularizer.ranges import check_ranges, range_of
from vcreg_hub.training.optim import build_optimizer
from vcreg_hub.training.schedule import lr_at, peak_lr

PLAIN = Recipe("r", Model("convnext_atto"), Data("digits"))
FAMILIES = (Evaluation, Task, Regularizer)
SETTINGS = [Model, Data, Video, Optim, Train, Eval, *(tagged_class(one, tag) for one in FAMILIES for tag in _tags(one))]
NUMBERS = [
    (kind, field) for kind in SETTINGS for field in dataclasses.fields(kind)
    if field.type.replace(" | None", "") in ("int", "float") or field.type.startswith(("tuple[int", "tuple[float"))
]  # fmt: skip
named = pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda one: getattr(one, "__name__", None) or one.name)


def made(kind, **values):
    """One of the settings; its required fields are texts."""
    required = [one.name for one in dataclasses.fields(kind) if one.default is one.default_factory]
    return kind(**dict.fromkeys(required, "digits") | values)


@named
def test_every_number_has_a_range(kind, field):
    assert len(NUMBERS) > 80
    assert range_of(field), f"{kind.__name__}.{field.name} takes any number"


@named
@pytest.mark.parametrize("value", [-1e30, 1e30, 10**400, math.nan, math.inf, -math.inf, "1", True, [1]], ids=repr)
def test_nonsense_is_no_value_of_any_number(kind, field, value):
    """Also where a recipe is written in Python, with whatever type."""
    several = field.type.startswith("tuple")
    with pytest.raises(ConfigError, match=rf"^{field.name} is .*(from|above) .*(to|at most|below) .*, got "):
        made(kind, **{field.name: (value,) * 2 if several else value})


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("optim.warmup_start=-100", "optim.warmup_start is a number from 0 to 1, got -100"),
        ("optim.step_gamma=-3", "optim.step_gamma is a number above 0 and at most 1, got -3"),
        ("optim.momentum=5", "optim.momentum is a number from 0 to below 1, got 5"),
        ("optim.norm_weight_decay=-5", "optim.norm_weight_decay is a number from 0 to 1,000, or null, got -5"),
        ("optim.bias_weight_decay=-1e9", "optim.bias_weight_decay is a number from 0 to 1,000, or null, got -1000000"),
        ("optim.eps=1e30", "optim.eps is a number above 0 and at most 1, got 1e+30"),
        ("train.clip_norm=0", "train.clip_norm is a number above 0 and at most 1,000,000,000,000, or null, got 0"),
        ("data.scale=[5,9]", "data.scale is numbers, each above 0 and at most 1, got [5.0, 9.0]"),
        ("optim.betas=[2,-1]", "optim.betas is numbers, each from 0 to below 1, got [2.0, -1.0]"),
        ("optim.eps=-1", "optim.eps is a number above 0 and at most 1, got -1"),
        ("data.hflip=3", "data.hflip is a number from 0 to 1, got 3"),
        ("data.random_erase=5", "data.random_erase is a number from 0 to 1, got 5"),
        ("model.kwargs.drop_path_rate=7", "kwargs.drop_path_rate is a probability from 0 to below 1, got 7"),
        ('model.kwargs={"hidden_dropout_prob": -1}', "kwargs.hidden_dropout_prob is a probability from 0 to below 1"),
        ("model.kwargs.depths=[3,NaN]", "kwargs.depths is a number from -1e+12 to 1e+12, got nan"),
        ("video.frames=1000000", "video.frames is a whole number from 1 to 4,096, got 1000000"),
        ("vcreg.alpha=1e30", "vcreg.alpha is a number from 0 to 1,000,000,000, got 1e+30"),
        ("vcreg.delta=0", "vcreg.delta is a number above 0 and at most 1,000,000,000,000, or null, got 0"),
        ("train.epochs=1" + 5000 * "0", "train.epochs is a whole number, got '1000"),
        ("optim.lr=1" + 400 * "0", "optim.lr is a number, got 1000"),
        ("data.channels=true", "data.channels is one of 1, 3, got True"),
        ("data.root=a\0b", "data.root is text in UTF-8 without a zero byte, got 'a\\x00b'"),
        ('data.root="\\ud800"', "data.root is text in UTF-8 without a zero byte, got '\\ud800'"),
        ("name=", "name becomes a folder's name of 1 to 200 bytes, got ''"),
        ("name=" + 300 * "x", "name becomes a folder's name of 1 to 200 bytes"),
        ("name=a\nb", "without a slash or control character, got 'a\\nb'"),
        ("evals=.own:Mine", "evals[0]: .own:Mine cannot be had: TypeError"),
        ("evals=" + 100_000 * "[", "evals[0]: unknown evaluation"),
        ("evals=context", "evals[0]: unknown evaluation 'context'"),
    ],
)
def test_what_was_taken_once_is_refused_with_field_range_and_value(setting, part):
    with pytest.raises(UsageError) as error:
        override(PLAIN, [setting])
    told = str(error.value)
    assert part in told and len(told) < 1000
    assert error.value.exit_code == 2


def test_what_does_not_go_together_is_refused_whatever_the_order():
    """Between two settings a recipe may be what a whole one may not."""
    higher = override(PLAIN, ["optim.min_lr=0.01", "optim.lr=0.1"])
    higher.check()
    with pytest.raises(ConfigError, match=r"optim.min_lr is from 0 to optim.lr=0.1, the peak, got 0.2"):
        override(higher, ["optim.min_lr=0.2"]).check()
    grouped = load_recipe("fashion_mnist:class_incremental")
    grouped.check()
    assert grouped.train.class_groups == 5
    with pytest.raises(ConfigError, match=r"evals.incremental.groups is train.class_groups=2.*, got 5"):
        override(grouped, ["train.class_groups=2"]).check()
    override(grouped, ["train.class_groups=2", "evals.incremental.groups=2"]).check()


@dataclass(frozen=True)
class Own:
    share: float = number(0.5, at_least=0, below=1)
    width: int | None = number(None, above=0, at_most=10)
    rates: tuple[float, ...] = number((1.0,), above=0, below=3)
    free: float = 1.0

    def __post_init__(self):
        check_ranges(self)


@settings(max_examples=200, deadline=None)
@given(value=st.floats() | st.integers(-20, 20), several=st.lists(st.floats(-1, 4), max_size=3).map(tuple))
@example(value=0, several=(3.0,))
@example(value=1.0, several=(0.0,))
@example(value=10, several=())
def test_a_range_holds_what_it_says(value, several):
    taken = {
        "share": 0 <= value < 1,
        "width": isinstance(value, int) and 0 < value <= 10,
        "rates": all(0 < one < 3 for one in several),
        "free": not math.isnan(value) and not math.isinf(value),
    }
    for name, right in taken.items():
        given_value = several if name == "rates" else value
        try:
            made_so = getattr(Own(**{name: given_value}), name)
        except ConfigError as error:
            assert not right and str(error).startswith(f"{name} is ")
        else:
            assert right and made_so == given_value


# ---- fuzzing -----------------------------------------------------------------------------------------------------

RECIPES = [
    replace(load_recipe("digits:convnext_atto_vcreg")), load_recipe("fashion_mnist:class_incremental"),
    load_recipe("noise:videomae_small_vcreg"), load_recipe("moons:mlp_vcreg"),
]  # fmt: skip
ODD = st.sampled_from(
    ["null", "true", "[]", "{}", "-1", "0", "1e400", "-1e400", "NaN", "Infinity", "1e30", "1.5", "[[1]]", "[null,1]",
     "", '{"type":"vcreg","alpha":null}', '{"type":[]}', "9" * 5000, "1" + "0" * 400, '"\\u0000"', "[NaN,NaN]", "a,b"]
)  # fmt: skip
VALUES = ODD | st.text(max_size=30) | st.integers().map(str) | st.floats().map(repr) | st.lists(st.floats()).map(str)
ADDRESSES = st.text(string.ascii_lowercase + "._0123456789[]:", max_size=40)


def paths_of(values, at=""):
    for name, value in values.items():
        yield at + name
        if isinstance(value, dict):
            yield from paths_of(value, f"{at}{name}.")
        for part in value if isinstance(value, (list, tuple)) else ():
            if isinstance(part, dict):
                yield from paths_of(part, f"{at}{name}.{part['type']}.")


PATHS = sorted({path for recipe in RECIPES for path in paths_of(to_dict(recipe))})


def is_sensible(recipe):
    """What a recipe that was taken promises: it is JSON of this language, comes back, and each number is in range."""
    text = json.dumps(to_dict(recipe), allow_nan=False)
    assert from_json(to_json(recipe)) == recipe
    text.encode()
    for section in (recipe.data, recipe.optim, recipe.train, recipe.eval, recipe.vcreg, recipe.task, *recipe.evals):
        if dataclasses.is_dataclass(section):
            check_ranges(section)


@settings(max_examples=300, deadline=None)
@given(
    recipe=st.sampled_from(RECIPES),
    changes=st.lists(st.tuples(st.sampled_from(PATHS) | ADDRESSES, VALUES), min_size=1, max_size=3),
)
def test_any_setting_is_taken_whole_or_refused_in_a_line(recipe, changes):
    try:
        changed = override(recipe, [f"{path}={value}" for path, value in changes])
        changed.check()
    except UsageError as error:
        assert error.exit_code == 2 and len(str(error)) < 20_000
    else:
        is_sensible(changed)


JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(recipe=st.sampled_from(RECIPES), path=st.sampled_from(PATHS), value=JSONS)
def test_any_recipe_file_is_read_or_refused_in_a_line(recipe, path, value):
    values = json.loads(to_json(recipe))
    *way, last = path.split(".")
    inside = values
    for name in way:
        if isinstance(inside, list):
            inside = next((part for part in inside if part["type"] == name), {})
        else:
            inside = inside.get(name) or {}
    if isinstance(inside, dict):
        inside[last] = value
    try:
        read = from_json(json.dumps(values))
    except UsageError as error:
        assert error.exit_code == 2
    else:
        is_sensible(read)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
@example("[" * 100_000)
@example('{"name": ' + "1" * 5000 + "}")
@example("3")
def test_what_is_no_recipe_is_refused_in_a_line(text):
    with pytest.raises(ConfigError):
        from_json(text)


def of_range(field):
    """Values of a field within its range, and its default."""
    low, high, with_low, with_high = field.metadata["range"]
    whole = "int" in field.type
    one = (
        st.integers(int(low) + (not with_low), int(min(high, 2**53)))
        if whole
        else st.floats(low, high, exclude_min=not with_low, exclude_max=not with_high)
    )
    return st.just(field.default) | (st.tuples(one, one) if field.type.startswith("tuple") else one)


OPTIM = st.fixed_dictionaries({field.name: of_range(field) for kind, field in NUMBERS if kind is Optim})


@settings(max_examples=150, deadline=None)
@given(
    values=OPTIM, schedule=st.sampled_from(["cosine", "step", "constant"]), per=st.sampled_from(["epoch", "step"]),
    name=st.sampled_from(["adamw", "sgd", "momentum", "lamb", "rmsprop"]), epochs=st.integers(1, 5),
)  # fmt: skip
def test_every_optimizer_and_schedule_within_the_ranges_can_be_used(values, schedule, per, name, epochs):
    """The whole range is usable: torch takes the optimizer, and each step's rate lies between 0 and the peak."""
    from torch import nn

    optim = Optim(name=name, schedule=schedule, schedule_per=per, **values)
    try:
        replace(PLAIN, optim=optim).check()
    except ConfigError:
        assert optim.min_lr > optim.lr or (name == "sgd" and optim.momentum == 0)
        return
    peak = peak_lr(optim, 128)
    build_optimizer(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), optim, peak)
    rates = [lr_at(optim, step, 3, epochs, peak) for step in range(3 * epochs)]
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates), rates


def test_a_family_s_base_checks_what_its_members_forget():
    @dataclass(frozen=True)
    class Mine(VCReg):
        strength: float = 1.0

    with pytest.raises(ConfigError, match="strength is a finite number, got nan"):
        Mine(strength=math.nan)
