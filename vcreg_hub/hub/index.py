"""Keeps `model_cards/`: of each release its numbers (`<name>.<tag>.json`), the card made of them (`.md`), the index.

The JSON is a record. Cards and index are rendered from it and never edited; `drifted` names those that differ from what
would be rendered now.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..checkpoints.find import how_to_get
from ..checkpoints.locations import PACKAGED
from ..errors import RunFolderError, WeightsNotFoundError, unknown_name
from ..files import sha256, write_json, write_text
from ..releases import CONFIG, RELEASES, WEIGHTS, Release, cards_folder, find_release
from ..results.tables import Table
from ..rundir import RunDir
from .card import render
from .markdown import prose, spread
from .pictures import draw_pictures, picture_names
from .record import FORMAT, Record, Score
from .runs import collect

# What names a result best, where a release has several.
_HEADLINES = ("probe_top1", "top1", "probe_mean_per_class")


def make_release(
    full_name: str, study: str | Path, *, licence: str, cards: str | Path, packaged: Path = PACKAGED
) -> Release:
    """Make a release of an experiment's runs: export the first seed of `study`/final/vcreg, card it, and put config and
    weights below `packaged`.

    full_name: a row of the table. study: the folder of `vcreg reproduce`; the baseline's runs are its final/plain. The
    first seed, of the first split where there are several, is taken whatever the others gave: none is picked by a test
    number.
    Returns the row with licence, bytes and hashes. Errors: UnknownNameError; RunFolderError where a run is missing;
    those of `export` and `collect`. Nothing takes its place before all of it is written.
    """
    from .export import write_export  # imports torch

    row = find_release(full_name)
    if row is None or row.full_name != full_name:
        raise unknown_name("release", full_name, [known.full_name for known in RELEASES])
    runs, baselines = (_runs(Path(study) / "final", kind) for kind in ("vcreg", "plain"))
    packaged.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packaged, prefix=".release-") as scratch:
        folder = write_export(runs[0], Path(scratch) / "export", licence=licence)
        record = collect(folder, licence=licence, name=full_name, siblings=runs, twins=baselines)
        # Its card is read beside the other cards, not beside the weights: it loads and repeats by name.
        record = dataclasses.replace(record, packaged=row.recipe, experiment=row.experiment or full_name)
        kept = Path(scratch) / full_name
        kept.mkdir()
        for file in (folder / CONFIG, folder / WEIGHTS, *folder.glob("*processor_config.json")):
            shutil.copyfile(file, kept / file.name)
        config = sha256(kept / CONFIG)
        shutil.rmtree(packaged / full_name, ignore_errors=True)
        kept.rename(packaged / full_name)
    _write_release(record, cards)
    weights = record.weights
    assert weights is not None
    return dataclasses.replace(row, licence=licence, sha256=weights.sha256, bytes=weights.bytes, config_sha256=config)


def _write_release(record: Record, folder: str | Path) -> Path:
    """Write the numbers, picture and card of one release into `folder`, and its index anew; returns the card's path."""
    folder = Path(folder)
    draw_pictures(record, folder, record.name)
    record = dataclasses.replace(record, plots=tuple(picture_names(record, record.name).values()))
    write_json(folder / f"{record.name}.json", record.to_json())
    write_text(folder / f"{record.name}.md", render(record))
    write_text(folder / "README.md", _render_index(read_records(folder)))
    return folder / f"{record.name}.md"


def read_records(folder: str | Path) -> list[Record]:
    """The records of a cards folder, by name. Errors: RunFolderError for a damaged or foreign one."""
    records = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{path} is not JSON: {error}") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("name") != path.stem:
            raise RunFolderError(f"{path} is not a release's record of format {FORMAT}")
        records.append(Record.from_json(values, path))
    return records


def _rendered(folder: str | Path) -> dict[str, str]:
    """File name -> text of every card and the index, as they would be rendered now."""
    records = read_records(folder)
    return {f"{record.name}.md": render(record) for record in records} | {"README.md": _render_index(records)}


def refresh(folder: str | Path) -> list[str]:
    """Renders every drifted file anew, and the pictures; returns the names of the files that changed."""
    texts, changed = _rendered(folder), drifted(folder)
    for name in changed:
        write_text(Path(folder) / name, texts[name])
    for record in read_records(folder):
        pictures = [Path(folder) / name for name in record.plots]
        before = [path.read_bytes() if path.is_file() else b"" for path in pictures]
        draw_pictures(record, Path(folder), record.name)
        changed += [path.name for path, old in zip(pictures, before, strict=True) if path.read_bytes() != old]
    return changed


def drifted(folder: str | Path) -> list[str]:
    """The files of a cards folder with a difference to a fresh rendering."""
    folder = Path(folder)
    return [
        name
        for name, text in _rendered(folder).items()
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


def headline_text(record: Record) -> str:
    """One line on a release: `probe_top1 82.10 ± 0.40 % (n = 3; baseline 80.00 ± 0.50)`."""
    score = _headline(record)
    if score is None:
        return "no results"
    unit, over, baseline = score.quantity.unit, score.summary, score.baseline
    against = f"baseline {spread(baseline, unit)}" if baseline else "baseline not yet run"
    return f"{score.quantity.metric} {spread(over, unit)} {unit} (n = {over.n}; {against})".replace("  ", " ")


def _render_index(records: Iterable[Record], releases: Iterable[Release] = RELEASES) -> str:
    """model_cards/README.md: the releases that exist, sorted by task, and those that have not been trained yet."""
    template = resources.files(__package__).joinpath("index.md.j2").read_text(encoding="utf-8")
    import jinja2

    records = sorted(records, key=lambda record: (record.task, record.name))
    columns = ["release", "loads with", "measured", "VCReg", "baseline", "size", "licence"]
    tables = [
        (task.replace("-", " "), Table.of(columns, [_index_row(one) for one in records if one.task == task]).markdown())
        for task in dict.fromkeys(record.task for record in records)
    ]
    done = {record.name for record in records}
    absent = [(row.full_name, f"`vcreg train {row.recipe}`") for row in releases if row.full_name not in done]
    return jinja2.Template(template, keep_trailing_newline=True).render(
        tasks=tables, absent=Table.of(["release", "recipe"], absent).markdown() if absent else ""
    )


def _headline(record: Record) -> Score | None:
    """The result that names a release best."""
    scores = record.scores
    for metric in _HEADLINES:
        if score := next((score for score in scores if score.quantity.metric == metric), None):
            return score
    return scores[0] if scores else None


def _index_row(record: Record) -> list[str]:
    score, weights = _headline(record), record.weights
    row = [f"[{prose(record.name)}]({record.name}.md)", prose(record.library)]
    if score is None:
        row += ["no results", "", "not yet run"]
    else:
        of, over, baseline = score.quantity, score.summary, score.baseline
        row += [
            prose(f"{of.metric} on {of.dataset}, {of.full_config}, {score.split}"),
            f"{spread(over, of.unit)} {prose(of.unit)} (n = {over.n})",
            f"{spread(baseline, of.unit)} (n = {baseline.n})" if baseline else "not yet run",
        ]
    return [*row, f"{weights.bytes / 1e6:.2f} MB" if weights else "", prose(record.licence)]


def _runs(final: Path, kind: str) -> list[Path]:
    """The complete runs of `kind` by split and seed. Errors: RunFolderError for none, or one that is not complete."""
    # "vcreg/seed0" or, of several splits, "vcreg,split=1/seed0"
    runs = (path.parent for path in final.glob("*/seed*/recipe.json"))
    found = [run for run in runs if run.parent.name.partition(",")[0] == kind]
    found.sort(key=lambda run: (run.parent.name, int(run.name.removeprefix("seed"))))
    unfinished = [str(run) for run in found if not RunDir(run).complete()]
    if unfinished or not found:
        lacking = f"not finished: {', '.join(unfinished)}" if unfinished else f"no run of {kind}"
        raise RunFolderError(f"{final}: {lacking}; `vcreg reproduce` makes and resumes them")
    return found
