"""What a run says of where it happened."""

from __future__ import annotations

from importlib import metadata

import pytest

from vcreg_hub.env import describe_env


def test_versions_of_what_is_installed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The video decoders too: which one read the clips is part of a number's origin."""
    installed = {"torch": "9.1", "av": "9.2", "torchcodec": "9.3", "decord2": "9.4"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    assert describe_env()["packages"] == installed


def test_no_name_of_the_machine_or_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setattr("platform.node", lambda: "a-machine")
    found = describe_env(processes=3)
    assert found["processes"] == 3
    assert not any(word in str(found) for word in ("somebody", "a-machine", "/home"))
