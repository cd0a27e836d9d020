"""A loopback hub for each test, and huggingface_hub pointed at nothing else."""

from __future__ import annotations

import time
import types

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session, httpx
from loopback import Loopback

from vcreg_hub.checkpoints.retry import Patience


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The waits asked for, none of which is waited."""
    asked: list[float] = []
    awake = types.SimpleNamespace(**{**vars(time), "sleep": asked.append})
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", awake)
    return asked


@pytest.fixture
def hub(monkeypatch, tmp_path, naps):
    """A loopback hub; offline mode and Xet are off, the cache is empty, and no login is known."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("vcreg_hub.checkpoints.locations._answers", {})
    with Loopback() as loopback:
        yield loopback
    # One client for all tests: making one reads the certificates again. What publishing sets on it does not stay.
    assert get_session().timeout == httpx.Timeout(None)
    assert [hook.__module__.partition(".")[0] for hook in get_session().event_hooks["request"]] == ["huggingface_hub"]


@pytest.fixture(autouse=True, scope="session")
def closed_at_the_end():
    yield
    huggingface_hub.close_session()


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def patience(naps) -> Patience:
    """Three attempts, waits noted and not waited, half a second of silence."""
    return Patience(attempts=3, timeout=0.5, sleep=naps.append)
