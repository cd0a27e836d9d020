"""What can be had: the table of releases, merged with what the places really hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..models.places import FolderPlace, HubPlace, places
from ..releases import RELEASES, find_release
from .index import cards_folder, headline_text, read_records
from .plan import hub
from .retry import Patience, attempt

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# A list is looked at by somebody who waits, and is worth something without the hub's part.
QUICK = Patience(attempts=1, timeout=10.0, in_all=20.0)


@dataclass(frozen=True)
class Listed:
    """One release. places: where it is now, empty when nowhere. headline: its best-naming result, where a card has one.

    sha256, bytes, licence: of the release table; None for weights that are not in it.
    """

    name: str
    task: str
    library: str
    places: tuple[str, ...]
    headline: str
    recipe: str | None
    licence: str | None
    sha256: str | None
    bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"places": list(self.places)}


def list_releases(
    *,
    api: HfApi | None = None,
    cards: Path | None = None,
    patience: Patience = QUICK,
) -> tuple[list[Listed], list[str]]:
    """(releases, notes): every row of the table and everything else found in the places, sorted by task and name.

    notes: one line for each place that could not be asked, such as a namespace while there is no network.
    """
    held, notes = _held(api, patience)
    folder = cards or cards_folder()
    headlines = {record["name"]: headline_text(record) for record in read_records(folder)} if folder else {}
    names = dict.fromkeys([row.full_name for row in RELEASES] + sorted(held))
    listed = [_listed(name, tuple(held.get(name, ())), headlines.get(name)) for name in names]
    return sorted(listed, key=lambda entry: (entry.task, not entry.places, entry.name)), notes


def _held(api: HfApi | None, patience: Patience) -> tuple[dict[str, list[str]], list[str]]:
    """Full name -> places that hold it."""
    held: dict[str, list[str]] = {}
    notes: list[str] = []
    for place in places():
        if isinstance(place, FolderPlace):
            names = place.tags("*_vcreg")
        elif isinstance(place, HubPlace):
            names = _of_namespace(place, api, patience, notes)
        else:
            names = []
        notes += place.troubles
        for name in names:
            held.setdefault(name, []).append(str(place))
    return held, notes


def _of_namespace(place: HubPlace, api: HfApi | None, patience: Patience, notes: list[str]) -> list[str]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        notes.append(f"offline mode: of {place.namespace} only what the cache holds is listed")
        return [name for row in RELEASES for name in place.tags(row.name)]
    asked = api or hub()
    try:
        found = attempt(f"listing {place.namespace}", lambda: list(asked.list_models(author=place.namespace)), patience)
    except HubError as error:
        notes.append(str(error))
        return []
    names = [info.id.partition("/")[2] for info in found]
    return [name for name in names if name.partition(".")[0].endswith("_vcreg") and "." in name]


def _listed(name: str, where: tuple[str, ...], headline: str | None) -> Listed:
    row = find_release(name)
    if row is None or row.full_name != name:
        return Listed(name, "other", "", where, headline or "no card here", None, None, None, None)
    text = headline or ("no card here" if row.published else "not trained yet")
    return Listed(name, row.task, row.library, where, text, row.recipe, row.licence, row.sha256, row.bytes)
