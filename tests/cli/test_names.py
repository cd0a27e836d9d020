"""Names refused before timm is imported: the tables read from source are those of the libraries."""

from __future__ import annotations

import sys

import accelerate.tracking
import pytest
import timm
from timm.models import _registry

from vcreg_hub.cli import names
from vcreg_hub.errors import UnknownNameError, UsageError
from vcreg_hub.models.outputs import OUTPUTS
from vcreg_hub.models.video_networks import NETWORKS


@pytest.fixture
def before_timm(monkeypatch):
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.delitem(sys.modules, "accelerate")


def test_the_names_in_the_source_are_those_of_timm():
    found = {name for text in names._sources() for name in names._REGISTERED.findall(text)}
    ours = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("vcreg_hub.")}
    assert found >= set(timm.list_models()) - ours
    registered = {name for name in ours if name.endswith("_vcreg")}
    assert {*names._own()} >= set(NETWORKS)
    assert {name for name in names._own() if name not in NETWORKS} <= registered
    assert "resnet32_cifar" in found


def test_no_name_that_a_library_takes_is_refused(before_timm):
    for name in [*_registry._deprecated_models][:5]:
        names.check_model(name)
    for name in ("resnet50", "resnet50.a1_in1k", "resnet50_vcreg.in1k", "resnet32_cifar", "videomae_tiny",
                 "hf:no/such", "hf-hub:timm/resnet18.a1_in1k", "torchvision:nosuch"):  # fmt: skip
        names.check_model(name)
    names.check_tracker_name(None)
    names.check_outputs(OUTPUTS)


def test_a_name_of_nobody_s_is_refused(before_timm):
    with pytest.raises(UnknownNameError, match="unknown model 'resnet5'; did you mean"):
        names.check_model("resnet5")
    with pytest.raises(UnknownNameError, match="did you mean 'videomae_small'"):
        names.check_model("videomae_smal")
    with pytest.raises(UnknownNameError, match="did you mean 'wandb'"):
        names.check_tracker_name("wand")
    with pytest.raises(UnknownNameError, match="did you mean 'spatial'"):
        names.check_outputs(["pooled", "spacial"])


def test_what_a_recipe_s_own_module_registered_is_left_to_timm():
    names.check_model("resnet5")  # timm is imported here


def test_the_trackers_are_those_of_accelerate():
    builtin = {name for name, kind in accelerate.tracking.LOGGER_TYPE_TO_CLASS.items()
               if kind.__module__ == "accelerate.tracking"}  # fmt: skip
    assert set(names._TRACKERS) == builtin


@pytest.mark.parametrize("name", names._TRACKERS)
def test_a_tracker_without_its_package_is_refused_as_accelerate_does(before_timm, name):
    """What is installed here differs; the two agree on each."""
    if name in map(str, accelerate.tracking.get_available_trackers()):
        names.check_tracker_name(name)
    else:
        with pytest.raises(UsageError, match=f"not installed: pip install {name}"):
            names.check_tracker_name(name)
