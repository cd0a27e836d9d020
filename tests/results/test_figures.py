"""The bar chart of a study: what it draws, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vcreg_hub.results import figures
from vcreg_hub.results.aggregate import Group, Summary
from vcreg_hub.results.rows import Quantity


def row(label: str, metric: str, *values: float) -> Summary:
    of = Quantity(
        metric=metric, unit="%", higher_is_better=True, dataset="d", dataset_config="class", split="test"
    )  # fmt: skip
    group = Group(label=label, id=label, vcreg=None if label == "plain" else label)
    return Summary(tuple(range(len(values))), values, group, of)


def drawn(rows: list[Summary], path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The labels of each panel."""
    panels: list[list[str]] = []
    plain = figures._draw_bars

    def panel(axes: Any, labels: list[str], found: dict[str, Any]) -> None:
        panels.append([label for label in labels if label in found])
        plain(axes, labels, found)

    monkeypatch.setattr(figures, "_draw_bars", panel)
    figures.draw_bars(rows, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return panels


def test_a_metric_that_never_differs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("plain", "top1", 70, 71),
        row("vcreg", "top1", 72),
        row("plain", "top5", 100),
        row("vcreg", "top5", 100),
    ]
    assert drawn(rows, tmp_path / "both.png", monkeypatch) == [["plain", "vcreg"]]
    assert drawn(rows[2:], tmp_path / "same.png", monkeypatch) == [["plain", "vcreg"]], "one that is alone stays"
    assert drawn([*rows[:2], row("vcreg", "top5", 99, 98)], tmp_path / "part.png", monkeypatch)[1] == ["vcreg"]


def test_no_empty_panel_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    saved: list[int] = []
    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(len(self.axes)), plain(self, *a, **k)))
    rows = [row("plain", metric, 1, 2) for metric in ("top1", "top5", "loss")]
    figures.draw_bars(rows, tmp_path / "odd.png")
    assert saved == [3]
