"""Adapters for other people's training loops, one line each; `docs/loops.md` shows them.

Each tells the regularizer how its loop scales the loss, as `vc.watch(loss)` does in a loop of your own. timm's train.py
takes `timm_train` as a device module, and `script` runs any program with the `*_vcreg` names registered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accelerate import watch_accelerator
    from .lightning import VCRegLightningCallback
    from .trainer import VCRegTrainerCallback

__all__ = ["VCRegLightningCallback", "VCRegTrainerCallback", "watch_accelerator"]

# Each file needs the library that it serves, so it is imported when its name is first asked for.
_HOMES = {
    "VCRegLightningCallback": "lightning",
    "VCRegTrainerCallback": "trainer",
    "watch_accelerator": "accelerate",
}


def __getattr__(name: str) -> Any:
    """An adapter, imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
