"""One page of finished runs that opens from disk without a request: what was compared and how, tables with paired
differences, curves, what each block makes of its classes, the features, their neighbours and the mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

from ..files import write_text
from .aggregate import over_splits
from .charts import charts_of
from .comparison import Comparison
from .gallery import Gallery
from .report import tabulated


def write_page(path: Path, compared: Sequence[Comparison], galleries: Mapping[str, Gallery]) -> None:
    """Writes the page. galleries: digest -> what is shown of the networks; a comparison without one has its numbers."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    sections, data = [], []
    for one in compared:
        gallery = _named(galleries.get(one.digest, Gallery()), one.labels)
        charts = charts_of(one, gallery)
        shown = [*one.summaries, *over_splits(one.summaries)]
        sections.append({"title": f"{one.facts[0][1]}", "digest": one.digest, "facts": one.facts, "charts": charts,
                         "table": tabulated(shown).html(), "portraits": gallery.portraits, "split": gallery.split,
                         "similarity": gallery.similarity, "notes": gallery.notes})  # fmt: skip
        data.append({"charts": asdict(charts), **asdict(gallery)})
    runs = sum(len(of) for one in compared for of in one.runs.values())
    page = environment.from_string(template).render(title="Runs compared", runs=runs, comparisons=sections, data=data)
    write_text(path, page + "\n")


def _named(gallery: Gallery, labels: Mapping[str, str]) -> Gallery:
    """The gallery with the labels of its groups in place of their ids."""
    portraits = tuple(replace(one, label=labels.get(one.group, one.group)) for one in gallery.portraits)
    similarity = tuple(
        replace(one, rows=labels.get(one.rows, one.rows), columns=labels.get(one.columns, one.columns))
        for one in gallery.similarity
    )
    return replace(gallery, portraits=portraits, similarity=similarity)
