"""The picture of metrics over a setting: what is drawn where, and when there is nothing to draw."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from vcreg_hub.results.aggregate import Group, Summary
from vcreg_hub.results.axis_figure import draw_axis
from vcreg_hub.results.rows import Quantity


def row(label: str, *values: float, metric: str = "top1") -> Summary:
    of = Quantity(
        metric=metric, unit="%", higher_is_better=True, dataset="d", dataset_config="class", split="test", protocol=""
    )
    baseline = label.replace("vcreg", "plain") if label.startswith("vcreg") else None
    group = Group(label=label, id=label, vcreg=baseline and "alpha 1", baseline=baseline)
    return Summary(tuple(range(len(values))), values, group, of)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), plain(self, *a, **k)))
    return figures


ROWS = [
    row("plain,epochs=100", 70, 72), row("plain,epochs=6", 80, 82), row("plain,epochs=30", 75, 75),
    row("vcreg,epochs=100", 74, 78), row("vcreg,epochs=6", 80, 83), row("vcreg,epochs=30", 76, 77),
]  # fmt: skip


def test_values_and_differences_stand_over_the_setting_in_its_order(tmp_path, saved):
    rows = [*ROWS, *(row(one.group.label, *(v / 2 for v in one.values), metric="rank") for one in ROWS)]
    assert draw_axis(rows, tmp_path / "axis.png", ["rank", "top1"])
    assert (tmp_path / "axis.png").read_bytes().startswith(b"\x89PNG")
    _, _, values, beside = saved[0].axes
    assert "top1" in values.get_title(loc="left"), "in the order asked for"
    assert [tick.get_text() for tick in values.get_xticklabels()] == ["6", "30", "100"]
    plain, vcreg = (line for line in values.lines if line.get_label() in ("plain", "vcreg"))
    assert list(plain.get_ydata()) == [81, 75, 71] and list(vcreg.get_ydata()) == [81.5, 76.5, 76]
    (gain,) = (line for line in beside.lines if line.get_label() == "vcreg")
    assert list(gain.get_ydata()) == [0.5, 1.5, 5]
    dots = [list(line.get_ydata()) for line in beside.lines if line.get_marker() == "o"]
    assert dots == [[0, 1], [1, 2], [4, 6]]


@pytest.mark.parametrize(
    "rows",
    [
        [row("plain", 70), row("vcreg", 71)],
        ROWS[:2],
        [row(f"plain,crop={way}", 70, 71 + i) for i, way in enumerate(("pad", "none", "resize"))],
        [*ROWS, row("plain,beta=3", 70, 71)],
    ],
)
def test_without_one_numeric_setting_of_three_values_there_is_no_picture(tmp_path, rows):
    assert not draw_axis(rows, tmp_path / "axis.png")
    assert not (tmp_path / "axis.png").exists()
