"""The page on analysis: its snippet runs, its evaluations are there, and its pictures are small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vcreg_hub.config import Evaluation
from vcreg_hub.config.tagged import tagged_class

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "analysis.md").read_text(encoding="utf-8")


def test_the_snippet_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(snippet, "analysis.md", "exec"), {"__name__": "__main__"})
    *_, similarity = capsys.readouterr().out.split()
    assert float(similarity) == pytest.approx(1, abs=1e-4)


def test_the_evaluations_are_there():
    for tag in re.findall(r"^\| `(\w+)` \|", PAGE, re.M):
        assert tagged_class(Evaluation, tag).metrics


def test_the_pictures_are_there_and_small():
    for name in re.findall(r"\((\w+\.png)\)", PAGE):
        assert 10_000 < (DOCS / name).stat().st_size < 300_000
