"""What the package imports is what pyproject.toml declares, and the extras that its messages name exist."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted((ROOT / "vcreg_hub").rglob("*.py"))
# Where the distribution is not called as its module is, also for those that are not installed here.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "decord": "decord2"}


def named(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_.-]+", text)[0].lower().replace("_", "-") for text in requirements}


REQUIRED = named(PROJECT["dependencies"])
EXTRAS = {extra: named(texts) for extra, texts in PROJECT["optional-dependencies"].items()}


def imports(text: str) -> Iterator[tuple[str, bool]]:
    """(top-level module, whether the import runs when the file is imported) of what is not ours or Python's."""
    tree = ast.parse(text)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            module = name.partition(".")[0]
            if module not in sys.stdlib_module_names:
                yield module, id(node) not in late


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module).lower().replace("_", "-")


def test_every_import_is_declared() -> None:
    optional = set().union(*(found for extra, found in EXTRAS.items() if extra != "test"))
    for path in FILES:
        for module, at_once in imports(path.read_text(encoding="utf-8")):
            name = distribution(module)
            allowed = REQUIRED if at_once else REQUIRED | optional
            assert name in allowed, f"{path.relative_to(ROOT)} imports {module}{' at once' if at_once else ''}"


def test_the_check_sees_both_kinds() -> None:
    text = "import numpy as np\nfrom yaml import load\ndef f():\n    import av.video\n    from . import mine\n"
    assert set(imports(text)) == {("numpy", True), ("yaml", True), ("av", False)}


def test_distributions_are_called_what_is_said_here() -> None:
    installed = packages_distributions()
    for module, name in DISTRIBUTIONS.items():
        assert module not in installed or name in {found.lower() for found in installed[module]}


def test_extras_named_in_messages_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [*FILES, *sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]]
    said = {extra for text in texts for extra in re.findall(r"(?:vcreg_hub|\.)\[([a-z]+)\]", text)}
    assert {"video", "decoders"} <= said <= EXTRAS.keys()


def test_the_tests_have_the_video_extra() -> None:
    assert EXTRAS["video"] <= EXTRAS["test"]
