"""Every address that was ever given resolves, and a row of the table changes what it says and nothing else."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from vcreg_hub import recipes
from vcreg_hub.config import Recipe, differences
from vcreg_hub.errors import UnknownNameError
from vcreg_hub.recipes import addresses, load_recipe, summaries
from vcreg_hub.recipes.aliases import ALIASES

PROMISED = """
action_shapes: videomae_tiny videomae_tiny_vcreg videomae_tiny_pretraining videomae_tiny_finetuned
 videomae_tiny_finetuned_vcreg vivit_tiny vivit_tiny_vcreg
digits: convnext_atto convnext_atto_vcreg
fashion_mnist: superclass superclass_vcreg superclass_resized superclass_resized_vcreg superclass_augmented
 superclass_augmented_vcreg convnext_atto convnext_atto_vcreg resnet32_cifar resnet32_cifar_vcreg convnext_zepto_rms
 convnext_zepto_rms_vcreg
finetune: image image_plain video video_plain
hmdb51: videomae_small videomae_small_vcreg videomae_base videomae_base_vcreg videomaev2_small videomaev2_small_vcreg
 videomaev2_base videomaev2_base_vcreg vivit_base vivit_base_vcreg
imagenet: resnet50 resnet50_vcreg resnet50_v1 resnet50_v1_vcreg convnext_tiny convnext_tiny_vcreg vit_base_patch32
 vit_base_patch32_vcreg convnext_atto convnext_atto_vcreg
noise: videomae_small videomae_small_vcreg videomaev2_small videomaev2_small_vcreg videomae_base videomae_base_vcreg
 videomaev2_base videomaev2_base_vcreg action_shapes action_shapes_vcreg action_shapes_finetuned
 action_shapes_finetuned_vcreg
"""


def promised() -> set[str]:
    found, module = set(), ""
    for word in PROMISED.split():
        if word.endswith(":"):
            module = word
        else:
            found.add(module + word)
    return found


def test_no_address_is_lost():
    assert promised() <= set(addresses())
    assert len(promised()) == 57


def test_the_source_is_read_as_python_would():
    """What the syntax tree says of the recipes is what importing them says."""
    found = {}
    for path in Path(recipes.__file__).parent.glob("[!_]*.py"):
        module = importlib.import_module(f"vcreg_hub.recipes.{path.stem}")
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
            if own and inspect.signature(value).return_annotation in ("Recipe", Recipe):
                found[f"{path.stem}:{name}"] = inspect.getdoc(value).partition("\n")[0]
    assert found | {address: alias.about for address, alias in ALIASES.items()} == summaries()
    assert not found.keys() & ALIASES.keys(), "an alias has the address of a function"
    assert all(summaries().values())


@pytest.mark.parametrize("address", ALIASES)
def test_an_alias_changes_what_it_says_and_nothing_else(address):
    alias = ALIASES[address]
    base, recipe = load_recipe(alias.of), load_recipe(address)
    changed = {setting.partition("=")[0] for setting in alias.settings}
    allowed = {*changed, *(path.partition(".")[0] for path in changed), "name", *(["assumed"] if alias.assumed else [])}
    assert set(differences(base, recipe)) <= allowed
    assert len(differences(base, recipe)) >= 2, "a name and a setting"
    assert recipe.assumed == (*base.assumed, *alias.assumed)


def test_the_names_that_runs_have_always_had():
    names = {
        "digits:convnext_atto_vcreg": "digits_convnext_atto_vcreg",
        "fashion_mnist:superclass_resized_vcreg": "fashion_mnist_superclass_resized_vcreg",
        "finetune:image_plain": "finetune_image_plain",
        "imagenet:resnet50_vcreg": "resnet50_vcreg",
        "noise:videomae_small_vcreg": "noise_hmdb51_videomae_small_vcreg",
        "noise:action_shapes": "noise_action_shapes_videomae_tiny",
    }
    assert {address: load_recipe(address).name for address in names} == names


@pytest.mark.parametrize(
    "address", ["noise:videomae", "aliases:ALIASES", "digits:convnext_ato_vcreg", "hmdb51:_recipe"]
)
def test_an_address_that_is_none(address):
    with pytest.raises(UnknownNameError, match="unknown recipe"):
        load_recipe(address)
