"""`model_cards/`: for each release its numbers (`<name>.<tag>.json`), the card made of them (`.md`), and the index.

The JSON is what `record.collect` gathered. Cards and index are rendered from it and never edited; `drifted` names those
that differ from what would be rendered now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from ..checkpoints.find import how_to_get
from ..errors import RunFolderError, WeightsNotFoundError
from ..files import write_json, write_text
from ..releases import RELEASES, Release, cards_folder, find_release
from .card import render
from .markdown import number, prose
from .plot import draw_results
from .record import FORMAT
from .scores import Score, scores, twin_scores

# What names a result best, where a release has several.
_HEADLINES = ("probe_top1", "top1", "probe_mean_per_class")


def write_release(record: dict[str, Any], folder: str | Path) -> Path:
    """Write the numbers, picture and card of one release into `folder`, and its index anew; returns the card's path."""
    folder, picture = Path(folder), f"{record['name']}.png"
    draw_results(record, folder / picture)
    record = record | {"plots": [picture]}
    write_json(folder / f"{record['name']}.json", record)
    write_text(folder / f"{record['name']}.md", render(record))
    write_text(folder / "README.md", render_index(read_records(folder)))
    return folder / f"{record['name']}.md"


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a cards folder, by name. Errors: RunFolderError for one that is damaged or of another format."""
    records = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{path} is not JSON: {error}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("name") != path.stem:
            raise RunFolderError(f"{path} is not a release's record of format {FORMAT}")
        records.append(record)
    return records


def rendered(folder: str | Path) -> dict[str, str]:
    """File name -> text of every card and the index, as they would be rendered now."""
    records = read_records(folder)
    return {f"{record['name']}.md": render(record) for record in records} | {"README.md": render_index(records)}


def refresh(folder: str | Path) -> list[str]:
    """Render what has drifted anew; returns the names of those files."""
    texts, changed = rendered(folder), drifted(folder)
    for name in changed:
        write_text(Path(folder) / name, texts[name])
    return changed


def drifted(folder: str | Path) -> list[str]:
    """The files of a cards folder that are absent or not what would be rendered now."""
    folder = Path(folder)
    return [
        name
        for name, text in rendered(folder).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def read_card(name: str, folder: Path | None = None) -> str:
    """The card of a release of this installation. Errors: WeightsNotFoundError naming the cards there are."""
    folder = folder or cards_folder()
    there = {} if folder is None else {path.stem: path for path in folder.glob("*.md") if path.stem != "README"}
    named = [path for stem, path in there.items() if name in (stem, stem.partition(".")[0])]
    row = find_release(name)
    if not named and row is not None and not row.published:
        raise WeightsNotFoundError(f"there is no model card of {name!r}. {how_to_get(name)}")
    if len(named) != 1:
        known = ", ".join(sorted(there)) or "none yet"
        raise WeightsNotFoundError(f"there is no model card of {name!r} here; there are: {known}")
    return named[0].read_text(encoding="utf-8")


def headline(record: dict[str, Any]) -> tuple[Score | None, Score | None]:
    """The result that names a release best, and the plain twin's beside it."""
    found = scores(record)
    for metric in _HEADLINES:
        if score := next((score for score in found if score.metric == metric), None):
            return score, twin_scores(record).get(score.key)
    return (found[0], twin_scores(record).get(found[0].key)) if found else (None, None)


def headline_text(record: dict[str, Any]) -> str:
    """One line on a release: `probe_top1 82.10 ± 0.40 % (n = 3; plain twin 80.00 ± 0.50)`."""
    score, twin = headline(record)
    if score is None:
        return "no results"
    against = f"plain twin {_spread(twin)}" if twin else "plain twin not yet run"
    return f"{score.metric} {_spread(score)} {score.unit} (n = {score.n}; {against})".replace("  ", " ")


def render_index(records: Iterable[dict[str, Any]], releases: Iterable[Release] = RELEASES) -> str:
    """model_cards/README.md: the releases that exist, sorted by task, and those that have not been trained yet."""
    template = resources.files(__package__).joinpath("index.md.j2").read_text(encoding="utf-8")
    import jinja2

    records = sorted(records, key=lambda record: (record["task"], record["name"]))
    done = {record["name"] for record in records}
    tasks = dict.fromkeys(record["task"] for record in records)
    return jinja2.Template(template, keep_trailing_newline=True).render(
        tasks=[
            (task.replace("-", " "), [_index_row(record) for record in records if record["task"] == task])
            for task in tasks
        ],
        absent=[row for row in releases if row.full_name not in done],
    )


def _index_row(record: dict[str, Any]) -> list[str]:
    score, twin = headline(record)
    weights = record["weights"] or {}
    return [
        f"[{prose(record['name'])}]({record['name']}.md)",
        prose(record["library"]),
        prose(f"{score.metric} on {score.dataset}, {score.config}, {score.split}") if score else "no results",
        f"{_spread(score)} {prose(score.unit)} (n = {score.n})" if score else "",
        f"{_spread(twin)} (n = {twin.n})" if twin else "not yet run",
        f"{weights['bytes'] / 1e6:.2f} MB" if weights else "",
        prose(record["licence"]),
    ]


def _spread(score: Score) -> str:
    return number(score.mean, score.unit) + ("" if score.std is None else f" ± {number(score.std, score.unit)}")
