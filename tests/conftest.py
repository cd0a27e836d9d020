"""Set before anything reads them: no hub is asked, and each test process keeps to one thread."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from fixtures_hub import api, closed_at_the_end, default_hub, hub, naps, retries
from fixtures_release import no_places, write_release

__all__ = ["api", "closed_at_the_end", "default_hub", "hub", "naps", "no_places", "retries", "write_release"]

# Tiny tensors gain nothing from more threads, and processes of one test would fight over the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def features_of_this_session(tmp_path_factory):
    """No test finds what another run of the tests extracted."""
    os.environ["VCREG_FEATURES_DIR"] = str(tmp_path_factory.mktemp("features"))


@pytest.fixture
def any_size(monkeypatch):
    """Lets a data set hold other numbers of images and classes than it is known by: a test makes a small one."""
    from dataclasses import replace

    from vcreg_hub.data.datasets import IMAGE_SETS

    def let(name: str) -> None:
        row = replace(IMAGE_SETS[name], classes=None, train=None, val=None, test=None)
        monkeypatch.setitem(IMAGE_SETS, name, row)

    return let


@pytest.fixture
def fresh_compiler():
    """Code that a test compiles is reused by whatever comes after it in this process, and refused by `attach`."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
