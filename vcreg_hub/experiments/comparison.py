"""Sets our numbers beside the paper's: what the runs of a target gave, as tables, a page and a picture."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench.table import networks_table
from ..errors import RunFolderError
from ..files import write_text
from ..paper import PAPER_TABLES
from ..results.aggregate import Difference, Summary, differences
from ..results.figures import draw_metrics
from ..results.report import read_summary
from ..results.tables import Column, Table
from .targets import Line, Scale, Target

_NOT_RUN = "not yet run"
# The folder of the measurements of time, and their files.
OVERHEAD = "overhead"
TIMINGS: Mapping[Scale, str] = {"small": "cpu.json", "full": "cuda.json"}


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave. summaries: of its final runs. env: of one of them, as `describe_env` gives it. timing:
    what `vcreg bench overhead` gave instead."""

    summaries: Sequence[Summary] = ()
    env: Mapping[str, Any] | None = None
    timing: Mapping[str, Any] | None = None


def read_outcome(folder: Path) -> Outcome:
    """The outcome of an experiment in its folder of runs, or in one of `docs/results`; empty for neither."""
    for place in (folder / "final", folder):
        try:
            summaries = read_summary(place)
        except RunFolderError:
            continue
        envs = [place / "env.json", *sorted(place.glob("*/seed*/env.json"))]
        env = next((json.loads(path.read_text(encoding="utf-8")) for path in envs if path.is_file()), None)
        return Outcome(summaries, env)
    return Outcome()


def read_outcomes(target: Target, scale: Scale, folder: Path) -> dict[str, Outcome]:
    """The outcome of every experiment of a target, each below its own name in `folder`."""
    if target.bench:
        path = folder / OVERHEAD / TIMINGS[scale]
        timing = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return {OVERHEAD: Outcome(timing=timing, env=timing and timing["env"])}
    return {name: read_outcome(folder / name) for name in target.experiments(scale)}


def command_of(name: str, scale: Scale) -> str:
    return f"vcreg reproduce {name}{' --scale full' if scale == 'full' else ''}"


def compared(target: Target, scale: Scale, outcomes: Mapping[str, Outcome]) -> Table:
    """A line for each number: the paper's, ours with its seeds and 95% interval, and what VCReg adds, seed by seed."""
    if target.bench:
        return _timed(target, outcomes[OVERHEAD].timing)
    paper = "the paper's" if scale == "full" else "the paper's (own data)"
    columns: list[str | Column] = ["setting", "run", "metric", paper]
    columns += [Column(name, "right") for name in ("ours", "n", "95% interval", "minus baseline (95% interval)")]
    return Table.of(columns, [_cells(target, line, outcomes) for line in target.lines(scale)])


def _provenance(target: Target, outcomes: Mapping[str, Outcome]) -> Table:
    """Of each experiment that was run: its command, hardware and commit."""
    rows = []
    for name, outcome in outcomes.items():
        if (env := outcome.env) is not None:
            device = f"{env.get('devices', 1)} x {env['device']}, {_counted(env.get('processes', 1), 'process')}"
            commit = str(env.get("commit") or "unknown")[:12] + (" (changed)" if env.get("dirty") else "")
            command = "vcreg bench overhead" if target.bench else f"vcreg reproduce {name}"
            rows.append([name, f"`{command}`", device, commit, str(env.get("date", ""))[:10]])
    return Table.of(["experiment", "command", "hardware", "commit", "date"], rows)


def render(target: Target, scale: Scale, outcomes: Mapping[str, Outcome]) -> str:
    """The comparison as Markdown: a table, and where its numbers are from."""
    parts = [compared(target, scale, outcomes).markdown()]
    where = _provenance(target, outcomes)
    if where.rows:
        parts.append(where.markdown())
    return "\n\n".join(parts)


def write_comparison(name: str, target: Target, scale: Scale, outcomes: Mapping[str, Outcome], folder: Path) -> Table:
    """Write <name>.<scale>.md, .html and, where anything was run, .png in `folder`; returns the table."""
    stem, title = f"{name}.{scale}", f"{name}: {target.title}"
    table, where = compared(target, scale, outcomes), _provenance(target, outcomes)
    write_text(
        folder / f"{stem}.md", f"# {title}\n\n`{command_of(name, scale)}`\n\n{render(target, scale, outcomes)}\n"
    )
    drawn = [found for line in target.lines(scale) if (found := _summary(line, outcomes)) is not None]
    if drawn:
        draw_metrics(drawn, folder / f"{stem}.png")
    image = f'<p><img src="{stem}.png" alt="{html.escape(title)}" style="max-width: 100%"></p>' if drawn else ""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p><code>{command_of(name, scale)}</code></p>", table.html()]
    body += [where.html()] * bool(where.rows) + [image]
    write_text(folder / f"{stem}.html", "\n".join([_HEAD.format(title=html.escape(title)), *body, ""]))
    return table


_HEAD = """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ padding: .2em .7em; border-bottom: 1px solid #8885 }}
</style>"""


def _timed(target: Target, timing: Mapping[str, Any] | None) -> Table:
    if timing is not None:
        return networks_table(timing["networks"])
    assert target.paper is not None
    paper = PAPER_TABLES[target.paper]
    rows = [[name, layer, _NOT_RUN, paper.shown(name, layer)] for name in paper.rows for layer in paper.columns]
    return Table.of(["network", "layer", "ms", "the paper's"], rows)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'es' * (count != 1)}"


def _cells(target: Target, line: Line, outcomes: Mapping[str, Outcome]) -> list[object]:
    paper = PAPER_TABLES[target.paper].shown(*line.cell) if target.paper and line.cell else None
    found = _summary(line, outcomes, relabelled=False)
    start: list[object] = [line.what, line.run, line.metric, paper]
    if found is None:
        return [*start, _NOT_RUN, None, None, None]
    interval = None if found.interval is None else "{:.2f} to {:.2f}".format(*found.interval)
    difference = next((pair for pair in _differences(line, outcomes) if pair.one == found), None)
    return [*start, found.shown, found.n, interval, difference and difference.shown]


def _differences(line: Line, outcomes: Mapping[str, Outcome]) -> Iterator[Difference]:
    yield from differences(list(outcomes.get(line.experiment, Outcome()).summaries))


def _summary(line: Line, outcomes: Mapping[str, Outcome], relabelled: bool = True) -> Summary | None:
    """The line's number. Of a run on several splits, the mean over them; under the line's own label where
    `relabelled`, since every experiment calls its baseline `plain`."""
    fits = [
        one
        for one in outcomes.get(line.experiment, Outcome()).summaries
        if one.quantity.metric == line.metric
        and (one.quantity.block is None or (one.quantity.block.endswith(" (input)") and one.quantity.split != "train"))
        and line.dataset in (None, one.quantity.dataset)
        and (one.group.label == line.run or one.group.label.startswith(f"{line.run}, mean of "))
    ]
    if not fits:
        return None
    return replace(fits[0], group=replace(fits[0].group, label=f"{line.what}: {line.run}")) if relabelled else fits[0]
