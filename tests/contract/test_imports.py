"""Who may import whom: one table, held against the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vcreg_hub"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room, a folder or a module at the root, and the rooms it may import, also inside functions. All may import `errors`.
HOUSE: dict[str, set[str]] = {
    "errors": set(),
    "paper": set(),
    "releases": set(),
    "files": set(),
    "env": {"files"},
    "placement": set(),
    "regularizer": {"placement"},
    "config": {"files", "regularizer"},
    "rundir": {"config", "files"},
    "analysis": set(),
    "results": {"config", "files", "paper", "rundir"},
    "checkpoints": {"files", "releases"},
    "data": {"config", "files"},
    "models": {"checkpoints", "config", "files", "placement", "regularizer", "releases", "rundir"},
    "tasks": {"config", "models", "regularizer"},
    "evals": {"analysis", "config", "data", "files", "models", "placement"},
    "training": {"config", "files", "rundir"},
    "loops": {"models", "regularizer"},
    "run": {
        "analysis", "checkpoints", "config", "data", "env", "evals", "files", "models", "placement", "recipes",
        "regularizer", "releases", "results", "rundir", "tasks", "training",
    },
    "recipes": {"config", "evals", "tasks"},
    "experiments": {"bench", "config", "data", "evals", "files", "paper", "recipes", "results", "run", "rundir"},
    "hub": {"checkpoints", "config", "env", "files", "models", "paper", "placement", "releases", "results", "rundir"},
    "bench": {"config", "data", "env", "evals", "files", "paper", "placement", "regularizer", "results"},
}  # fmt: skip
# The command line joins them all, and nobody imports it; the front door names what is public.
OPEN = {"cli", "__init__", "__main__"}
EVERYBODY = {"errors", "__init__"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(text: str, path: Path) -> Iterator[str]:
    """Rooms of this package that a file imports anywhere; imports for the type checker alone do not count."""
    inside = ["vcreg_hub", *path.relative_to(PACKAGE).with_suffix("").parts]
    tree = ast.parse(text)
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: -node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names] if stem == "vcreg_hub" else [stem]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("vcreg_hub."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_table(path):
    entered = set(imported(path.read_text(encoding="utf-8"), path)) - {room(path)} - EVERYBODY
    if room(path) in OPEN:
        return
    assert entered <= HOUSE[room(path)], f"{room(path)} may not import {sorted(entered - HOUSE[room(path)])}"


def test_the_table_names_the_rooms_that_there_are():
    there = {room(path) for path in FILES} - OPEN
    assert HOUSE.keys() >= there
    assert set().union(*HOUSE.values()) <= HOUSE.keys()


def test_the_table_has_no_circle():
    below: dict[str, set[str]] = {}

    def all_below(name: str, path: tuple[str, ...] = ()) -> set[str]:
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        if name not in below:
            below[name] = set().union(*({other} | all_below(other, (*path, name)) for other in HOUSE[name]))
        return below[name]

    for name in HOUSE:
        all_below(name)


def test_no_modules_import_one_another_in_a_circle():
    """The imports that run when a module is imported, module by module."""
    edges: dict[str, set[str]] = {}
    modules = {".".join(("vcreg_hub", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    for name, path in modules.items():
        edges[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*name.split(".")[: -node.level], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                full = [".".join([*base, alias.name]), ".".join(base)]
                edges[name] |= {found for found in full[:1] if found in modules} or {
                    found for found in full[1:] if found in modules
                }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_the_root_holds_these_modules_only():
    root = {path.stem for path in PACKAGE.glob("*.py")}
    assert root == {"__init__", "__main__", "errors", "files", "rundir", "releases", "env", "paper"}


def test_no_public_function_has_the_name_of_a_room():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {path.stem for path in PACKAGE.glob("*.py")}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name not in rooms, f"{path.relative_to(PACKAGE)} defines {node.name}, the name of a room"


def test_the_check_can_fail():
    file = PACKAGE / "evals" / "imaginary.py"
    text = (
        "from ..training.loop import fit\nfrom .. import run\nimport vcreg_hub.cli\n"
        "def f():\n    from ..hub import card\nif TYPE_CHECKING:\n    from ..bench import table\n"
    )
    assert set(imported(text, file)) == {"training", "run", "cli", "hub"}
