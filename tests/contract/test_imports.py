"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vcreg_hub"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

ABOVE = {"models", "data", "train", "evals", "recipes", "run", "hub", "bench", "cli"}
# A room, and the rooms it may not enter. `errors` is open to all.
CLOSED = {
    "core": {"*"},
    "baselines": {"*"},
    "errors": {"*"},
    "blocks": ABOVE | {"config", "hooks", "rundir"},
    "hooks": ABOVE | {"config", "rundir"},
    "config": ABOVE | {"blocks", "hooks", "rundir"},
    "rundir": ABOVE,
    "models": ABOVE - {"models"},
    "data": ABOVE - {"data"},
    "analysis": ABOVE,
    "train": {"evals", "recipes", "run", "hub", "bench", "cli"},
    "evals": {"train", "recipes", "run", "hub", "bench", "cli"},
    "hub": {"train", "run", "study", "summary", "experiments", "cli", "bench"},
    "bench": {"train", "run", "study", "summary", "experiments", "cli", "hub"},
    "run": {"hub", "bench", "cli"},
}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of this package that a file imports anywhere, also inside functions."""
    inside = ["vcreg_hub", *path.relative_to(PACKAGE).with_suffix("").parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: -node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names] if stem == "vcreg_hub" else [stem]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("vcreg_hub.")}
    return found - {"errors", room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_house(path):
    closed = CLOSED.get(room(path), set())
    entered = imported(path)
    assert not (entered if "*" in closed else entered & closed)
    assert "cli" not in entered or room(path) == "__main__"


def test_recipes_import_config_only():
    for path in (PACKAGE / "recipes").glob("*.py"):
        assert imported(path) <= {"config", "core"}, path.name


def test_the_rule_can_fail(tmp_path):
    file = PACKAGE / "evals" / "imaginary.py"
    tree = "from ..train.loop import fit\nfrom .. import run\nimport vcreg_hub.cli\n"
    names = imported_from_text(file, tree)
    assert {"train", "run", "cli"} <= names


def imported_from_text(path: Path, text: str) -> set[str]:
    class Fake(type(path)):  # type: ignore[misc]
        def read_text(self, encoding=None):
            return text

    return imported(Fake(path))
