"""The picture of a study: what it draws, what it leaves out, and what an empty row says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vcreg_hub.results import figures
from vcreg_hub.results.aggregate import Group, Summary
from vcreg_hub.results.rows import Quantity


def row(label: str, metric: str, *values: float, baseline: str | None = None, dataset: str = "d") -> Summary:
    of = Quantity(
        metric=metric, unit="%", higher_is_better=True, dataset=dataset, dataset_config="class", split="test",
        protocol="what it is; last epoch",
    )  # fmt: skip
    group = Group(label=label, id=label, vcreg=None if label == "plain" else label, baseline=baseline)
    return Summary(tuple(range(len(values))), values, group, of)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Draws rows; returns the figure."""
    saved: list[Figure] = []
    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), plain(self, *a, **k)))

    def draw(rows: list[Summary]) -> Figure:
        figures.draw_metrics(rows, tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        return saved[-1]

    return draw


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes if axes.get_title(loc="left")]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def dots(axes) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]


def test_every_seed_is_a_dot_with_the_mean_and_its_interval_and_the_difference_beside(drawn) -> None:
    rows = [row("plain", "top1", 70, 71, 72), row("vcreg", "top1", 71, 73, 75, baseline="plain")]
    values, beside = drawn(rows).axes
    assert dots(values) == [[70, 71, 72], [71, 73, 75]] and dots(beside) == [[1, 2, 3]]
    (low, high) = next(list(line.get_xdata()) for line in beside.lines if line.get_linewidth() == 5)
    assert (low, high) == pytest.approx((2 - 2.4841377, 2 + 2.4841377)), "t(2) 4.302653 / sqrt(3)"
    assert [text.get_text() for text in beside.texts] == ["the baseline", "+2.00"]
    assert "n = 3 seeds" in values.get_title(loc="left") and "what it is" in values.get_title(loc="left")
    assert not values.patches, "a bar that does not start at zero exaggerates"


def test_only_the_metrics_that_say_something(drawn) -> None:
    of = {"top1": (70, 71), "mean_per_class": (70, 71), "loss": (1, 2), "top5": (90, 91), "logreg_penalty": (1, 3),
          "undecodable": (0, 0), "probe_top1": (60, 61)}  # fmt: skip
    assert titles(drawn([row("plain", metric, *values) for metric, values in of.items()])) == ["top1", "probe_top1"]
    assert titles(drawn([row("plain", "loss", 1, 2)])) == ["loss"], "without an accuracy it stays"
    assert titles(drawn([row("plain", "top1", 100, 100)])) == ["top1"], "one that is alone stays"
    assert titles(drawn([row("plain", "top1", 70, 71), row("plain", "mean_per_class", 60, 71)]))[1] == "mean_per_class"


def test_an_empty_row_says_why(drawn) -> None:
    rows = [row("plain", "top1", 1, 2), row("other", "top1", 3, 4, dataset="cars"), row("third", "probe_top1", 5, 6)]
    said = texts(drawn(rows))
    assert said.count("measured on cars, class labels, test") == 1
    assert said.count("its evaluations have no top1") == 2 and "not yet run" not in said


def test_one_seed_has_no_interval_and_says_so(drawn) -> None:
    (axes,) = drawn([row("plain", "top1", 1.0), row("vcreg", "top1", 1.5)]).axes
    assert "1 seed, so no interval" in axes.get_title(loc="left")
    assert not [line for line in axes.lines if line.get_linewidth() == 5]
    low, high = axes.get_xlim()
    assert high - low >= 1, "half a point does not fill the picture"


def test_a_group_with_other_seeds_than_its_baseline_says_so(drawn) -> None:
    lonely = replace(row("third", "top1", 9.0, baseline="plain"), seeds=(7,))
    rows = [row("plain", "top1", 1, 2), row("vcreg", "top1", 2, 3, baseline="plain"), lonely]
    figure = drawn(rows)
    assert "no baseline with its seeds" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "plain (n = 2)", "vcreg (n = 2)", "third (n = 1)",
    ]  # fmt: skip


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [row("plain", "top1", 70, 71), row("vcreg", "top1", 71, 73, baseline="plain")]
    for name in "ab":
        figures.draw_metrics(rows, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
