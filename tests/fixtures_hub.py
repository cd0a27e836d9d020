"""A loopback hub for each test, and huggingface_hub pointed at nothing else."""

from __future__ import annotations

import time
import types

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session, httpx
from loopback import Loopback

from vcreg_hub.checkpoints.client import RetryPolicy


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The waits asked for, none of which is waited."""
    asked: list[float] = []
    awake = types.SimpleNamespace(**{**vars(time), "sleep": asked.append})
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download", "vcreg_hub.checkpoints.client"):
        monkeypatch.setattr(f"{module}.time", awake)
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
    monkeypatch.setattr("vcreg_hub.checkpoints.client._answers", {})
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
def retries(naps) -> RetryPolicy:
    """Three attempts, waits noted and not waited, half a second of silence."""
    return RetryPolicy(attempts=3, timeout=0.5, sleep=naps.append)


@pytest.fixture
def default_hub(monkeypatch, hub):
    """Make the hub at a URL, at first the loopback hub, the one of this environment: HF_ENDPOINT, as huggingface_hub
    keeps it after its import. With a token it is logged in to."""

    def make(url: str, token: str | None = None) -> None:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)

    make(hub.url)
    return make
