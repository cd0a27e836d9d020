"""Each setting's meaning comes from a docstring, and none is missing."""

from __future__ import annotations

import dataclasses

import pytest

from vcreg_hub.config import Data, Eval, Evaluation, Model, Optim, Recipe, Regularizer, Task, Train, VCReg, Video
from vcreg_hub.config.meanings import _meanings, settings_of
from vcreg_hub.config.overrides import override
from vcreg_hub.config.tagged import _tags, tagged_class
from vcreg_hub.recipes import addresses, load_recipe

KINDS = [Recipe, Model, Data, Video, Optim, Train, Eval]
KINDS += [tagged_class(family, tag) for family in (Evaluation, Task, Regularizer) for tag in _tags(family)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_field_has_a_meaning(kind):
    found = _meanings(kind)
    lacking = [field.name for field in dataclasses.fields(kind) if len(found.get(field.name, "")) < 3]
    assert not lacking, f"{kind.__name__}: say in its docstring what these mean, `name: text`: {lacking}"


def test_a_meaning_ends_where_the_next_begins():
    found = _meanings(Data)
    assert found["mean"] == found["std"] == "per channel; None takes the data set's own."
    assert found["labels"].startswith("the label set") and "train_split" not in found["labels"]
    assert _meanings(VCReg)["sync"].endswith("as BatchNorm does."), "not the paragraph that follows"


@pytest.mark.parametrize("address", addresses())
def test_a_recipe_s_settings_make_it_again(address):
    """All that is shown is what `--set` takes: a recipe with everything else changed becomes the same one."""
    recipe = load_recipe(address)
    rows = settings_of(recipe)
    assert len({path for path, _, _ in rows}) == len(rows)
    shown = [f"{path}={value}" for path, value, _ in rows if not path.endswith(".kwargs")]
    other = dataclasses.replace(
        recipe, train=Train(), optim=Optim(), eval=Eval(), vcreg=None, where="final", assumed=(), name="other"
    )
    assert override(other, shown) == recipe


def test_a_class_of_one_s_own_inherits_meanings():
    @dataclasses.dataclass(frozen=True)
    class Mine(Evaluation):
        """A count. most: the largest one."""

        most: int = 3

    assert _meanings(Mine)["most"] == "the largest one."
    assert _meanings(Mine)["data"] == _meanings(Evaluation)["data"]
