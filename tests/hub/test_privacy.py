"""Nothing that is published names this machine, this login, or a path on it."""

from __future__ import annotations

import pytest

from vcreg_hub.hub import privacy


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "titan7.lab.example")
    monkeypatch.setattr("getpass.getuser", lambda: "mquux")


@pytest.mark.parametrize(
    "text",
    [
        "/home/somebody/data",
        "read from /mnt/a/b.json, then",
        "file:///srv/data/x",
        "~/data/x",
        "~somebody/data",
        "/data",
        "C:\\Users\\x",
        "\\\\server\\share",
        "ran on titan7",
        "TITAN7.lab.example",
        "by mquux",
        "hf_" + "a1B2" * 8,
    ],
)
def test_gives_away(text):
    assert privacy._private_parts(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b/c",
        "hf:mquux/data",
        "hf-hub:mquux/model@v1",
        "NVIDIA H200, 3.5 km/h and/or 1/2",
        "test/superclass",
        "top-1 / top-5",
        "2026-11-22T04:39:04+00:00",
        "titan70 mquuxes",
        "root of the tree",
        "layer2.*.conv1",
    ],
)
def test_gives_nothing_away(text):
    assert privacy._private_parts(text) == []


def test_names_the_field():
    value = {"data": {"roots": ["x", "/home/a/b"]}, "mquux": 1}
    assert list(privacy.private_fields(value)) == [
        ("data.roots[1]", "an absolute path: /home/a/b"),
        ("the top level", "the login name: mquux"),
    ]


def test_the_owner_of_the_repo_may_appear():
    assert privacy._private_parts("by mquux", allowed=frozenset({"mquux"})) == []


def test_generic_names_tell_nothing(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert privacy._private_parts("the root of data") == []
