"""Renders the model card, by `ModelCard.from_template`, from a record alone; refuses an edited one.

A card that cannot be rendered costs no checkpoint: the weights lie in their folder before this module is called, and
`write_card` replaces a card only by a whole new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import HubError, IntegrityError, UsageError, VCRegError
from ..files import write_json, write_text
from .card_metadata import card_data, eval_result_files
from .card_sections import card_context, results_table
from .pictures import PICTURES, draw_pictures, picture_names
from .privacy import write_pixels
from .record import Record, addressed, is_smoke_test
from .runs import SEEDS, collect

# A repo as the snippets of a card name it.
_NAMED = re.compile(r'"(?:hf-hub:)?([\w.-]+/[\w.-]+)"')


def render_card(folder: str | Path, *, licence: str | None = None, **about: Any) -> str:
    """The card of a run or export folder as markdown. `about`: see `runs.collect`; so are the errors."""
    return render(collect(folder, licence=licence, **about))


def write_card(folder: str | Path, *, licence: str | None = None, record: Record | None = None, **about: Any) -> Path:
    """Render the card into `folder`/README.md, and its metrics into `folder`/.eval_results; returns the card's path.
    What it says of other seeds and of twins is kept beside it, in seeds.json, and drawn (`draw_pictures`).

    record: what `runs.collect` gathered already, in place of `licence` and `about`.

    Errors: VCRegError (of `runs.collect`, or HubError when rendering fails); the folder's other files are untouched.
    """
    folder = Path(folder)
    record = record or collect(folder, licence=licence, **about)
    pictures = picture_names(record)
    plots = {*record.plots} - {PICTURES["results"]} | {*pictures.values()}
    record = replace(record, plots=tuple(sorted(plots)))
    card, results = render(record), eval_result_files(record)
    for stale in (folder / ".eval_results").glob("*.yaml"):
        if f".eval_results/{stale.name}" not in results:
            stale.unlink()
    for path, text in results.items():
        write_text(folder / path, text)
    if "results" in pictures:
        kept = record.to_json()
        write_json(folder / SEEDS, {name: kept[name] for name in ("runs", "twins")})
    else:
        (folder / PICTURES["results"]).unlink(missing_ok=True)
    draw_pictures(record, folder)
    for name in pictures.values():
        write_pixels(folder / name, folder / name)  # not with the words of the program that drew them
    write_text(folder / "README.md", card)
    return folder / "README.md"


def is_as_rendered(folder: str | Path, record: Record) -> bool:
    """Whether a folder's card is absent, or the one of `write_card` for its own repo, or for none:
    nobody has written in it. record: the folder's."""
    card = Path(folder) / "README.md"
    if not card.is_file():
        return True
    try:
        text = card.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return any(_renders(record, repo, text) for repo in (None, *dict.fromkeys(_NAMED.findall(text))))


def _renders(record: Record, repo: str | None, text: str) -> bool:
    try:
        return text == render(addressed(record, repo))
    except VCRegError:
        return False


def check_numbers(folder: Path, record: Record | None = None) -> None:
    """IntegrityError if a folder's card (model-index or table) or its .eval_results differ from its
    results.json (and seeds.json). A card with neither has nothing to compare. record: the folder's, where it was
    collected already.

    Errors: UsageError too, for a card whose header cannot be read; those of `runs.collect`.
    """
    said, table = _model_index(folder / "README.md"), _table(folder / "README.md")
    kept = {f".eval_results/{path.name}": path for path in (folder / ".eval_results").glob("*.yaml")}
    if not said and not kept and not table:
        return
    record = record or collect(folder, licence=None)
    if said:
        _compare("the card", said, _values(card_data(record).eval_results), folder)
    if table:
        _compare_tables(table, results_table(record).markdown().splitlines(), folder)
    measured = eval_result_files(record)
    for name, path in kept.items():
        _compare(name, _entries(path.read_text(encoding="utf-8")), _entries(measured.get(name, "[]")), folder)


def render(record: Record) -> str:
    """The card of a record. The text is parsed again, offline, as the Hub would read it.

    Errors: HubError, naming the cause, when the record cannot be rendered.
    """
    try:
        return _render(record)
    except VCRegError:
        raise
    except Exception as error:
        raise HubError(
            f"the card of {record.name!r} could not be rendered: {type(error).__name__}: {error}. "
            "The weights and the other files are as they were"
        ) from error


def _render(record: Record) -> str:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    data, smoke = card_data(record), is_smoke_test(record.recipe)
    template = resources.files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    context: dict[str, Any] = card_context(record)
    text = str(ModelCard.from_template(data, template_str=template, smoke=smoke, **context))
    # huggingface_hub logs the unknown library of a config as it parses; what counts is that nothing was lost.
    again = ModelCard(text).data.to_dict()
    if again != data.to_dict():
        lost = sorted(key for key in data.to_dict() if again.get(key) != data.to_dict()[key])
        raise HubError(f"the card's YAML does not read back as it was written: {', '.join(lost)}")
    told = data.eval_results or []
    if told and len(model_index_to_eval_results(again["model-index"])[1]) != len(told):
        raise HubError("two results of the model-index would be merged: give each its own dataset_config or split")
    return text


def _compare(where: str, said: Mapping[str, float], measured: Mapping[str, float], folder: Path) -> None:
    for metric in (*said, *(name for name in measured if name not in said)):
        if said.get(metric) != measured.get(metric):
            one, other = ("nothing" if metric not in found else repr(found[metric]) for found in (said, measured))
            raise IntegrityError(f"{metric}: {where} of {folder} says {one}, its results.json {other}: {_cure(folder)}")


def _compare_tables(said: list[str], measured: list[str], folder: Path) -> None:
    """Every line of the table that would be rendered now is in the card's."""
    for line in measured:
        if line not in said:
            # A metric, its data, its protocol and which way is better: the cells that hold no number.
            cells = line.removeprefix("| ").split(" | ")
            named = f"| {' | '.join(cells[:4])} |"
            there = next((other for other in said if other.startswith(named)), "nothing of it")
            raise IntegrityError(
                f"{cells[0]}: the table of the card of {folder} says {there!r}, results.json and seeds.json beside it "
                f"{line!r}: {_cure(folder)}"
            )


def _cure(folder: Path) -> str:
    return (
        f"one of them was edited. Where results.json is right, `vcreg card {quote(str(folder))} --write` renders the "
        "card anew; else export the run again"
    )


def _table(card: Path) -> list[str]:
    """The lines of a card's table of results; none where somebody wrote the card without it."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    start = next((n for n, line in enumerate(lines) if line.startswith("| metric | data | protocol |")), len(lines))
    return list(takewhile(lambda line: line.startswith("|"), lines[start:]))


def _model_index(card: Path) -> dict[str, float]:
    """Metric -> value, as the header of a card says."""
    from huggingface_hub import ModelCard

    if not card.is_file():
        return {}
    try:
        header = ModelCard(card.read_text(encoding="utf-8")).data
        return _values(getattr(header, "eval_results", None))
    except Exception as error:
        raise UsageError(f"the header of {card} cannot be read: {error}") from error


def _values(results: list[Any] | None) -> dict[str, float]:
    """Values by what was measured. The name and the data of a metric tell two results apart."""
    parts = ("dataset_name", "dataset_config", "dataset_split")
    return {
        " / ".join([result.metric_name, *(str(part) for name in parts if (part := getattr(result, name)))]): (
            result.metric_value
        )
        for result in results or []
    }


def _entries(text: str) -> dict[str, float]:
    """Metric -> value of one .eval_results file."""
    import yaml

    try:
        entries = yaml.safe_load(text) or []
        return {f"{entry['dataset']['id']} / {entry['dataset']['task_id']}": entry["value"] for entry in entries}
    except (yaml.YAMLError, LookupError, TypeError) as error:
        raise UsageError(f".eval_results holds what is none: {error!r}") from None
