"""Lists the releases: the table, merged with the places' real contents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.checksums import expected_checksums, wrong_checksum
from ..checkpoints.client import RetryPolicy, attempt, hub_client, is_repo_id
from ..checkpoints.fetch import cached_folder, cached_repos
from ..checkpoints.load import PICKLES
from ..checkpoints.locations import FolderSource, HubSource, sources
from ..errors import HubError
from ..files import JSON
from ..releases import CARD, CONFIG, RELEASES, WEIGHTS, Release, cards_folder, find_release
from .index import headline_text, read_records

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# A list is looked at by somebody who waits, and is worth something without the hub's part.
QUICK = RetryPolicy(attempts=1, timeout=10.0, deadline=20.0)
# Bytes up to which a file is hashed for the list: a tenth of a second each.
HASHED = 20_000_000


@dataclass(frozen=True)
class Listed:
    """One release. places: its present places, empty for none. troubles: the complaints of other places, one line
    each. headline: its best-naming result, or the place of its card.

    sha256, bytes, licence: of the release table; None for weights that are not in it.
    """

    name: str
    task: str
    library: str
    places: tuple[str, ...]
    troubles: tuple[str, ...]
    headline: str
    recipe: str | None
    licence: str | None
    sha256: str | None
    bytes: int | None

    def as_dict(self) -> JSON:
        """For JSON."""
        return asdict(self) | {"places": list(self.places), "troubles": list(self.troubles)}


@dataclass(frozen=True)
class _Found:
    """A release in one place. trouble: why it cannot be loaded from there. card: where its card is, None without."""

    place: str
    trouble: str | None
    card: str | None


def list_releases(
    *,
    api: HfApi | None = None,
    cards: Path | None = None,
    retries: RetryPolicy = QUICK,
) -> tuple[list[Listed], list[str]]:
    """(releases, notes): every row of the table and everything else found in the places, sorted by task and name.

    notes: one line for each place that could not be asked, such as a namespace while there is no network.
    """
    held, notes = _held(api, retries)
    folder = cards or cards_folder()
    headlines = {record.name: headline_text(record) for record in read_records(folder)} if folder else {}
    names = dict.fromkeys([row.full_name for row in RELEASES] + sorted(held))
    listed = [_listed(name, held.get(name, []), headlines.get(name)) for name in names]
    return sorted(listed, key=lambda entry: (entry.task, not entry.places, entry.name)), notes


def _held(api: HfApi | None, retries: RetryPolicy) -> tuple[dict[str, list[_Found]], list[str]]:
    """Full name -> where it is."""
    held: dict[str, list[_Found]] = {}
    notes: list[str] = []
    for place in sources():
        if isinstance(place, HubSource):
            found = _of_namespace(place, api, retries, notes)
        else:
            assert isinstance(place, FolderSource)
            folders = (path for path in sorted(place.path.glob("*_vcreg.*")) if path.is_dir())
            found = {path.name: _in_folder(str(place), path, path.name) for path in folders}
        notes += place.warnings
        for name, where in found.items():
            held.setdefault(name, []).append(where)
    return held, notes


def _of_namespace(place: HubSource, api: HfApi | None, retries: RetryPolicy, notes: list[str]) -> dict[str, _Found]:
    if not place.answers():
        if not place.warnings:
            notes.append(f"offline mode: of {place.namespace} only what the cache holds is listed")
        return _of_cache(place)
    asked = api or hub_client()

    def ask() -> list[Any]:
        return [info for info in asked.list_models(author=place.namespace, full=True) if is_repo_id(info.id)]

    try:
        infos = attempt(f"listing {place.namespace}", ask, retries)
    except HubError as error:
        notes.append(str(error))
        return {}
    found = {}
    for info in infos:
        files = {file.rfilename for file in info.siblings or ()}
        card = f"{asked.endpoint}/{info.id}" if CARD in files else None
        found[info.id.partition("/")[2]] = _Found(str(place), _lacks(files), card)
    return {name: where for name, where in found.items() if _is_release(name)}


def _of_cache(place: HubSource) -> dict[str, _Found]:
    names = [repo.partition("/")[2] for repo in cached_repos() if repo.startswith(f"{place.namespace}/")]
    found = {}
    for name in filter(_is_release, names):
        folder = cached_folder(f"{place.namespace}/{name}")
        missing = _Found(str(place), f"the cache does not have its {WEIGHTS}", None)
        found[name] = missing if folder is None else _in_folder(str(place), folder, name)
    return found


def _is_release(name: str) -> bool:
    return name.partition(".")[0].endswith("_vcreg") and "." in name


def _in_folder(place: str, folder: Path, full_name: str) -> _Found:
    trouble = _lacks({path.name for path in folder.iterdir()}) or _altered(folder, full_name)
    return _Found(place, trouble, str(folder / CARD) if (folder / CARD).is_file() else None)


def _lacks(files: set[str]) -> str | None:
    """What keeps a folder or repo with those files from being loaded."""
    if WEIGHTS not in files:
        pickles = sorted(name for name in files if Path(name).suffix.lower() in PICKLES)
        return f"only pickled weights ({pickles[0]}), which are not loaded" if pickles else f"no {WEIGHTS}"
    return None if CONFIG in files else f"no {CONFIG}"


def _altered(folder: Path, full_name: str) -> str | None:
    """Which file is not the recorded one. Of a large one only the size is looked at: `vcreg verify` reads it whole."""
    row, recorded = find_release(full_name), expected_checksums(folder, full_name)
    if row is not None and row.full_name == full_name and row.bytes not in (None, (folder / WEIGHTS).stat().st_size):
        return f"{WEIGHTS} has not the size that is recorded of it"
    for name in (CONFIG, WEIGHTS):
        if (folder / name).stat().st_size <= HASHED and wrong_checksum(folder / name, recorded.get(name, [])):
            return f"{name} has not the hash that is recorded of it (`vcreg verify` names both)"
    return None


def _listed(name: str, found: list[_Found], headline: str | None) -> Listed:
    where = tuple(one.place for one in found if one.trouble is None)
    troubles = tuple(f"{one.place}: {one.trouble}" for one in found if one.trouble is not None)
    cards = [one.card for one in found if one.card is not None]
    row = find_release(name)
    if row is None or row.full_name != name:
        row = Release(name, "", "", "", task="other")
    untrained = row.recipe and not row.published and not found
    text = headline or (f"card: {cards[0]}" if cards else "not trained yet" if untrained else "no card here")
    library = row.library if row.recipe else ""
    return Listed(
        name, row.task, library, where, troubles, text, row.recipe or None, row.licence, row.sha256, row.bytes
    )
