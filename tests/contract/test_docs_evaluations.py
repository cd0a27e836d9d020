"""docs/evaluations.md says what there is: its tables are rendered from those of the package."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluations.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_package():
    script = runpy.run_path(str(ROOT / "scripts" / "evaluations"))
    assert script["rendered"](PAGE) == PAGE, "run scripts/evaluations"
    assert "| `food101` | 101 | 75,750 / 25,250 | top-1 |" in PAGE and "`linear` on `places205`" in PAGE


def test_every_probe_is_named():
    for name in ("linear_probe", "logreg", "linear", "knn", "few_shot", "finetune", "collapse"):
        assert f"| `{name}` |" in PAGE and (ROOT / "vcreg_hub" / "evals" / f"{name}.py").is_file()
