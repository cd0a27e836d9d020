"""A plugin of pytest for timm's own test_models.py: registers `*_vcreg` names, and keeps the tests of some names only.

VCREG_TIMM_NAMES: architectures, with commas between; each is tested under its own name and as `<name>_vcreg`.
"""

from __future__ import annotations

import os

import timm

import vcreg_hub

ARCHITECTURES = os.environ["VCREG_TIMM_NAMES"].split(",")
for _name in ARCHITECTURES:
    vcreg_hub.register_model(_name)
# Of a stock name's tags the default one: the others differ in their weights.
_TAGGED = [f"{name}.{timm.get_pretrained_cfg(name).tag}" for name in ARCHITECTURES]
STOCK = {*ARCHITECTURES, *_TAGGED}
OURS = {f"{name}_vcreg" for name in ARCHITECTURES}


def pytest_collection_modifyitems(config, items):
    """Leaves out what is not about one of the names."""
    about = [getattr(item, "callspec", None) and item.callspec.params.get("model_name") for item in items]
    kept = [name in STOCK or (name or "").partition(".")[0] in OURS for name in about]
    config.hook.pytest_deselected(items=[item for item, keep in zip(items, kept, strict=True) if not keep])
    items[:] = [item for item, keep in zip(items, kept, strict=True) if keep]
