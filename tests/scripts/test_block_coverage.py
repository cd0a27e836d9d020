"""docs/block_coverage.md is what docs/block_coverage.json says, and the sweep behind them still finds as much."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    path = DOCS.parent / "scripts" / "block_coverage"
    loader = importlib.machinery.SourceFileLoader("block_coverage", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("block_coverage", loader))
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published():
    return json.loads((DOCS / "block_coverage.json").read_text(encoding="utf-8"))


def test_the_page_is_rendered_from_the_numbers(script, published):
    assert script.render(published) == (DOCS / "block_coverage.md").read_text(encoding="utf-8")
    assert script.dump(published) == (DOCS / "block_coverage.json").read_text(encoding="utf-8")
    for library in ("timm", "torchvision", "transformers"):
        assert script.count(published[library]["models"]) == published[library]["counts"]


def test_published_counts_are_no_lower_than_the_first_measurement(published):
    counts = published["timm"]["counts"]
    assert counts["models"] >= 1371 and counts["sensible"] >= 1357 and counts["called_twice"] == 0


def test_a_small_sweep_repeats_the_published_rows(script, published):
    found = script.sweep("test_*net", report=lambda *_, **__: None)["timm"]["models"]
    assert len(found) >= 5
    if published["environment"]["packages"]["timm"] == version("timm"):
        assert found == {name: published["timm"]["models"][name] for name in found}
    assert all(row["blocks"] > 0 for row in found.values())


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.filterwarnings("ignore")
def test_the_whole_registry(script, published):
    """As many as published, model for model with the same versions; at least 99% with others."""
    found = script.sweep(report=lambda *_, **__: None)
    for library in ("timm", "torchvision", "transformers"):
        then, now = published[library], found[library]
        if version(library) == published["environment"]["packages"][library]:
            assert now["counts"] == then["counts"]
            assert now["models"] == then["models"]
        assert now["counts"]["sensible"] >= 0.9 * now["counts"]["models"]
    timm = found["timm"]["counts"]
    assert timm["sensible"] >= 0.99 * timm["models"]
