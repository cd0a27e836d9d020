"""The charts of a report as plain values for a script in the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .aggregate import Sample, differences
from .comparison import Comparison
from .figures import telling
from .gallery import Gallery

# What a curve over epochs is drawn of, where a run has it, and its title. A name that ends in "/" is a column a block.
_CURVES = {
    "train_loss": "Training loss",
    "val_loss": "Held-out loss",
    "val_top1": "Held-out top-1 accuracy (%)",
    "vcreg_gradient_share": "Regularizer's share of the gradient, mean over blocks",
    "val_effective_rank/": "Effective rank, mean over blocks",
    "val_collapsed/": "Collapsed share, mean over blocks",
    "val_cdnv/": "CDNV, mean over blocks",
    "train_effective_rank/": "Effective rank on training samples, mean over blocks",
    "train_cdnv/": "CDNV on training samples, mean over blocks",
}
_LOGGED = ("cdnv", "share")
_LIVE = {
    "vcreg_gradient_share/": "Regularizer's share of the gradient",
    "val_effective_rank/": "Effective rank of a held-out batch",
    "val_cdnv/": "CDNV of a held-out batch",
}
_READINGS = {
    "block_effective_rank": "Effective rank",
    "block_collapsed": "Collapsed channels (%)",
    "block_cdnv": "CDNV",
    "block_ncc_top1": "Nearest class mean (% right)",
    "block_ncc_agreement": "Nearest class mean agrees with the network (%)",
}


@dataclass(frozen=True)
class _Line:
    """points: (x, y, name of x). color: the place of its group. dashed: of training samples."""

    name: str
    color: int
    points: list[tuple[float, float, str]]
    dashed: bool = False


@dataclass(frozen=True)
class _Lines:
    title: str
    x: str
    series: list[_Line]
    log: bool = False
    note: str = ""


@dataclass(frozen=True)
class _Row:
    name: str
    color: int
    mean: float
    values: tuple[float, ...]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class _Dots:
    title: str
    rows: list[_Row]
    percent: bool
    signed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """The charts of a comparison, by section."""

    results: list[_Dots]
    curves: list[_Lines]
    blocks: list[_Lines]
    spectrum: list[_Lines] = field(default_factory=list)


def charts_of(one: Comparison, gallery: Gallery) -> Charts:
    """Makes what a report draws of a comparison, from results.json, metrics.csv and the gallery of its networks."""
    colors = _colors(one)
    rows = {group: [run.epochs() for run in runs] for group, runs in one.runs.items()}
    curves = [_curve(column, title, rows, one.labels, colors) for column, title in _CURVES.items()]
    live = [_live(column, title, rows, one.labels, colors) for column, title in _LIVE.items()]
    read = list(_read(gallery, colors))
    spectra = [
        _Line(of.label, colors[of.group], [(i + 1.0, value, "") for i, value in enumerate(of.spectrum)])
        for of in gallery.portraits
    ]
    spectrum = [_Lines("Singular values of what enters the classifier", "rank", spectra, log=True)] if spectra else []
    drawn = [chart for chart in curves if any(len(line.points) > 1 for line in chart.series)]
    return Charts(list(_dots(one, colors)), drawn, [c for c in [*live, *read] if c.series], spectrum)


def _colors(one: Comparison) -> dict[str, int]:
    """Group id -> the place of its colour: grey for a baseline, the others after it."""
    plain = {of.group.id for of in one.summaries if of.group.vcreg is None}
    free = iter(range(1, len(one.runs) + 1))
    return {group: 0 if group in plain and len(plain) == 1 else next(free) for group in one.runs}


def _dots(one: Comparison, colors: Mapping[str, int]) -> Iterator[_Dots]:
    compared: dict[tuple[str, ...], list[tuple[str, Sample]]] = {}
    for pair in differences(one.summaries):
        compared.setdefault(pair.one.column, []).append((pair.one.group.id, pair))
    for column, found in telling(one.summaries).items():
        of = next(iter(found.values())).quantity
        title = f"{of.metric}, {of.dataset_config} labels, {of.split}{f' ({of.unit})' if of.unit else ''}"
        note = f"{of.protocol.partition(';')[0] or of.metric}; {'higher' if of.higher_is_better else 'lower'} is better"
        percent = of.unit == "%"
        rows = [_row(one.labels[group], colors[group], each) for group, each in found.items() if group in colors]
        yield _Dots(title, rows, percent, note=f"{note}. Each dot a seed, the bar the 95% interval of the mean.")
        paired = [_row(one.labels[group], colors[group], each) for group, each in compared.get(column, [])]
        if paired:
            yield _Dots(f"{of.metric} minus the baseline", paired, percent, signed=True, note="The same seed in both.")


def _row(name: str, color: int, of: Sample) -> _Row:
    return _Row(name, color, of.mean, of.values, of.interval)


_Table = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]


def _curve(column: str, title: str, rows: _Table, labels: Mapping[str, str], colors: Mapping[str, int]) -> _Lines:
    """A line a run; of a column a block, the mean over the blocks."""
    series = []
    for group, runs in rows.items():
        for run in runs:
            points = []
            for row in run:
                values = [value for name, value in row.items() if _is_of(name, column)]
                if values:
                    points.append((row["epoch"], statistics.fmean(values), ""))
            if points:
                series.append(_Line(labels[group], colors[group], points))
    return _Lines(title, "epoch", series, log=column.rstrip("/").endswith(_LOGGED))


def _is_of(name: str, column: str) -> bool:
    return name.startswith(column) if column.endswith("/") else name == column


def _live(column: str, title: str, rows: _Table, labels: Mapping[str, str], colors: Mapping[str, int]) -> _Lines:
    """A line a group: the last row that has the column's blocks, mean over its runs."""
    series = []
    for group, runs in rows.items():
        ends = [
            next((row for row in reversed(run) if any(name.startswith(column) for name in row)), {}) for run in runs
        ]
        blocks = list(dict.fromkeys(name for row in ends for name in row if name.startswith(column)))
        points = [
            (i + 1.0, statistics.fmean([row[block] for row in ends if block in row]), block.removeprefix(column))
            for i, block in enumerate(blocks)
        ]
        if points:
            series.append(_Line(labels[group], colors[group], points))
    return _Lines(title, "block", series, log=column.rstrip("/").endswith(_LOGGED))


def _read(gallery: Gallery, colors: Mapping[str, int]) -> Iterator[_Lines]:
    """A chart for each metric of blocks and label set; the training samples dashed."""
    kinds = dict.fromkeys((one.metric, one.labels) for of in gallery.portraits for one in of.readings)
    for metric, labels in kinds:
        series = []
        for of in gallery.portraits:
            for split in (gallery.split, "train"):
                points = [one for one in of.readings if (one.metric, one.labels, one.split) == (metric, labels, split)]
                places = [(i + 1.0, one.value, one.block) for i, one in enumerate(points)]
                if places:
                    series.append(_Line(of.label, colors[of.group], places, dashed=split == "train"))
        by = f", by {labels}" if labels else ""
        title = f"{_READINGS.get(metric, metric)}{by}"
        note = f"{gallery.split} samples; dashed: training samples. First seed."
        yield _Lines(title, "block, the classifier's input last", series, metric == "block_cdnv", note)
