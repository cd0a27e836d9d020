"""Whether a card says the numbers of the results.json beside it: either may have been edited since."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, UsageError
from .metadata import card_data, eval_result_files
from .passages import passages
from .record import collect


def check_numbers(folder: Path, record: dict[str, Any] | None = None) -> None:
    """IntegrityError when the model-index or the table of a folder's card, or its .eval_results, is not that of its
    results.json (and seeds.json). A card with neither has nothing to compare. record: the folder's, where it was
    collected already.

    Errors: UsageError too, for a card whose header cannot be read; those of `record.collect`.
    """
    said = _model_index(folder / "README.md")
    kept = {f".eval_results/{path.name}": path for path in (folder / ".eval_results").glob("*.yaml")}
    table = _table(folder / "README.md")
    if not said and not kept and not table:
        return
    record = record or collect(folder, licence=None)
    if said:
        _compare("the card", said, _values(card_data(record).eval_results), folder)
    if table:
        _compare_rows(table, passages(record)["results"], folder)
    measured = eval_result_files(record)
    for name, path in kept.items():
        _compare(name, _entries(path.read_text(encoding="utf-8")), _entries(measured.get(name, "[]")), folder)


def _compare(where: str, said: dict[str, float], measured: dict[str, float], folder: Path) -> None:
    for metric in (*said, *(name for name in measured if name not in said)):
        if said.get(metric) != measured.get(metric):
            one, other = (_told(found.get(metric)) for found in (said, measured))
            raise IntegrityError(f"{metric}: {where} of {folder} says {one}, its results.json {other}: {_cure(folder)}")


def _compare_rows(table: list[str], measured: list[Sequence[str]], folder: Path) -> None:
    for cells in measured:
        row = _row(cells)
        if row not in table:
            # A metric, its data, its protocol and which way is better: the cells that hold no number.
            said = next((line for line in table if line.startswith(_row(cells[:4]))), "nothing of it")
            raise IntegrityError(
                f"{cells[0]}: the table of the card of {folder} says {said!r}, results.json and seeds.json beside it "
                f"{row!r}: {_cure(folder)}"
            )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(card: Path) -> list[str]:
    """The lines of a card's table of results; none where somebody wrote the card without it."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    start = next((n for n, line in enumerate(lines) if line.startswith("| metric | data | protocol |")), len(lines))
    return list(takewhile(lambda line: line.startswith("|"), lines[start:]))


def _cure(folder: Path) -> str:
    return (
        f"one of them was edited. Where results.json is right, `vcreg card {folder} --write` renders the card anew; "
        "else export the run again"
    )


def _told(value: float | None) -> str:
    return "nothing" if value is None else f"{value!r}"


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
