"""Metrics on a terminal: noise and fold are said, where a row has them."""

from __future__ import annotations

import pytest

from vcreg_hub.cli.printing import print_metrics
from vcreg_hub.config import Data, Model, Recipe

ROW = {"metric": "top1", "value": 61.234, "unit": "%", "higher_is_better": True, "dataset": "hmdb51",
       "dataset_config": "class", "split": "test"}  # fmt: skip


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics([ROW, ROW | {"fold": 2, "sigma": 1.5}])
    plain, noisy = (line for line in capsys.readouterr().out.splitlines() if "61.23 %" in line)
    assert "\thmdb51/class\t" in plain and "fold" not in plain and "noise" not in plain
    assert "hmdb51/class, noise 1.5" in noisy and "test, fold 2" in noisy


def test_a_terminal_gets_columns_that_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_metrics([ROW | {"dataset": "a" * 40}])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 50 and lines[0].split() == ["metric", "value", "data", "split", "better"]


def test_a_folder_of_one_s_own_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe("r", Model("resnet18"), Data("folder", root="data/flowers/"))
    print_metrics([ROW | {"dataset": "folder"}, ROW], recipe)
    out = capsys.readouterr().out
    assert "\tflowers/class\t" in out and "\thmdb51/class\t" in out
    assert Data("folder").title == "folder" and Data("digits", root="x").title == "digits"
