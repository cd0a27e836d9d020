"""docs/architecture.md names files and functions that are there, and every room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vcreg_hub"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# A file, and the function or class in it that the page names behind it.
NAMED = sorted(set(re.findall(r"`([\w/.]+\.(?:py|md|svg))`(?:\s+\(`(\w+)`\))?", PAGE)))
SCRIPTS = sorted(set(re.findall(r"`(scripts/\w+)", PAGE)))
ROOMS = sorted({path.parent.name for path in PACKAGE.glob("*/__init__.py")})


def place(name: str) -> Path:
    inside = not name.startswith(("docs/", "scripts/", "tests/", "vcreg_hub/"))
    return (PACKAGE if inside else ROOT) / name


@pytest.mark.parametrize(("name", "defined"), NAMED)
def test_what_the_page_names_is_there(name, defined):
    path = place(name)
    assert path.is_file(), f"docs/architecture.md names {name}, which is not there"
    if defined:
        found = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")}
        assert defined in found, f"docs/architecture.md names {defined} in {name}"


def test_the_page_names_something():
    assert len(NAMED) > 30 and sum(bool(defined) for _, defined in NAMED) > 15


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_scripts_are_there(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_row(room):
    assert f"| `{room}/` |" in PAGE


def test_the_picture_is_there_and_the_page_is_linked():
    assert "(house.svg)" in PAGE and (ROOT / "docs" / "house.svg").read_text(encoding="utf-8").startswith("<")
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "docs/architecture.md" in (ROOT / name).read_text(encoding="utf-8"), name
