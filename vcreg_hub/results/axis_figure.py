"""Draws metrics against a setting that the runs vary, such as the number of epochs, plain beside VCReg.

The runs of an experiment with an axis are labelled `plain,epochs=6`, `vcreg,epochs=6`, `plain,epochs=15` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import replacing
from .aggregate import Sample, Summary, differences
from .figures import telling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#7f8c99", "#1f6fb2", "#c2571a", "#2a8a57", "#8a4fa3", "#b8930b")
# Variant -> value of the setting -> what was found.
_Curves = Mapping[str, Mapping[float, Sample]]


def draw_axis(summaries: Sequence[Summary], path: Path, metrics: Sequence[str] | None = None) -> bool:
    """Write a row for each metric: its values over the setting, and the differences to the baseline beside them.

    Seeds are dots, the line joins the means, bars are 95% intervals of the mean. The places along the setting are
    evenly spaced. metrics: those to draw, in that order; None for all that say something.
    False, and no file, unless exactly one numeric setting has three values or more.
    """
    name, places = _axis(summaries)
    if name is None:
        return False
    found = [one for one in summaries if one.group.label in places]
    columns = {of: list(ones.values()) for of, ones in telling(found).items() if metrics is None or of[0] in metrics}
    order = sorted(columns, key=lambda of: metrics.index(of[0]) if metrics is not None else 0)
    if not order:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.5 * len(order)), layout="constrained")
    grid = figure.subplots(len(order), 2, squeeze=False)
    for of, (values, beside) in zip(order, grid, strict=True):
        metric, config, split, data = of
        quantity = columns[of][0].quantity
        _draw(values, _curves(columns[of], places), name)
        counts = sorted({one.n for one in columns[of]})
        seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
        values.set_title(f"{metric}: {data}, {config} labels, {split}, {seeds} seeds", fontsize=8, loc="left")
        values.set_ylabel(quantity.unit, fontsize=7)
        pairs = [pair for pair in differences(found) if pair.one.column == of]
        compared: dict[str, dict[float, Sample]] = {}
        for pair in pairs:
            head, at = places[pair.one.group.label]
            compared.setdefault(head, {})[at] = pair
        if not compared:
            beside.axis("off")
            continue
        beside.axhline(0, color="black", linewidth=0.8, alpha=0.5)
        _draw(beside, compared, name, first=1)
        beside.set_title("minus the baseline, the same seed in both", fontsize=8, loc="left")
        beside.set_ylabel("points" if quantity.unit == "%" else quantity.unit, fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return True


def _axis(summaries: Sequence[Summary]) -> tuple[str | None, dict[str, tuple[str, float]]]:
    """The setting's name, and label -> (variant, value of the setting); no name where no single setting varies."""
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for label in dict.fromkeys(one.group.label for one in summaries):
        head, _, rest = label.partition(",")
        key, _, value = rest.partition("=")
        try:
            found.setdefault(key, {})[label] = head, float(value)
        except ValueError:
            return None, {}
    if len(found) != 1:
        return None, {}
    (name, places), = found.items()  # fmt: skip
    return (name, places) if len({at for _, at in places.values()}) >= 3 else (None, {})


def _curves(summaries: Sequence[Summary], places: Mapping[str, tuple[str, float]]) -> _Curves:
    curves: dict[str, dict[float, Sample]] = {}
    for one in summaries:
        head, at = places[one.group.label]
        curves.setdefault(head, {})[at] = one
    return curves


def _draw(axes: Axes, curves: _Curves, name: str, first: int = 0) -> None:
    """first: the place of the first curve's colour; the first of all is the baseline's."""
    settings = sorted({at for points in curves.values() for at in points})
    for i, (head, points) in enumerate(curves.items()):
        color = _COLORS[(first + i) % len(_COLORS)]
        shift = (i - (len(curves) - 1) / 2) * 0.12  # so that the bars of two curves lie side by side
        at = [settings.index(one) + shift for one in sorted(points)]
        samples = [points[one] for one in sorted(points)]
        axes.plot(at, [one.mean for one in samples], "-", color=color, linewidth=1.2, label=head)
        for place, one in zip(at, samples, strict=True):
            if one.interval is not None:
                axes.plot([place, place], one.interval, color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot([place] * one.n, one.values, "o", color=color, markersize=3, alpha=0.75, markeredgewidth=0)
    axes.set_xticks(range(len(settings)), [f"{one:g}" for one in settings])
    axes.set_xlabel(name, fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)
