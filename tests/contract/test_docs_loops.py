"""docs/loops.md: its Python runs, section by section, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "loops.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
# `tests/room/test_file.py` (`test_name`), in the table of cases.
CASES = re.findall(r"`(tests/[\w/]+\.py)`(?: \(`(\w+)`\))?", PAGE)


# What libraries warn of while they import or train: schedulers, small machines.
@pytest.mark.filterwarnings("ignore")
def test_python_snippets_run(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    assert len(SNIPPETS) >= 4
    namespace: dict[str, object] = {"__name__": "page"}
    for snippet in SNIPPETS:
        exec(compile(snippet, "docs/loops.md", "exec"), namespace)


@pytest.mark.parametrize(("path", "name"), CASES)
def test_the_tests_that_it_names_are_there(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert not name or name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_first_page_links_to_it():
    assert "docs/loops.md" in (ROOT / "README.md").read_text(encoding="utf-8")
