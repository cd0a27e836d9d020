"""The model card, rendered by `ModelCard.from_template` from what `record.collect` gathered and from nothing else.

A card that cannot be rendered costs no checkpoint: the weights lie in their folder before this module is called, and
`write_card` replaces a card only by a whole new one.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import HubError, VCRegError
from ..files import write_json, write_text
from .metadata import card_data, eval_result_files
from .passages import passages
from .plot import draw_results
from .record import SEEDS, addressed, collect, is_smoke_test
from .scores import scores

# Its results beside the plain twin's.
PICTURE = "results_of_all_seeds.png"
# A repo as the snippets of a card name it.
_NAMED = re.compile(r'"(?:hf-hub:)?([\w.-]+/[\w.-]+)"')


def render_card(folder: str | Path, *, licence: str | None = None, **about: Any) -> str:
    """The card of a run or export folder as markdown. `about`: see `record.collect`; so are the errors."""
    return render(collect(folder, licence=licence, **about))


def write_card(
    folder: str | Path, *, licence: str | None = None, record: dict[str, Any] | None = None, **about: Any
) -> Path:
    """Render the card into `folder`/README.md, and its metrics into `folder`/.eval_results; returns the card's path.
    What it says of other seeds and of twins is kept beside it, in seeds.json, and drawn (`PICTURE`).

    record: what `record.collect` gathered already, in place of `licence` and `about`.

    Errors: VCRegError (of `record.collect`, or HubError when rendering fails); the folder's other files are untouched.
    """
    folder = Path(folder)
    record = dict(record or collect(folder, licence=licence, **about))
    compared = len(record["runs"]) > 1 or bool(record["twins"])
    record["plots"] = sorted({*record["plots"]} - {PICTURE} | ({PICTURE} if compared else set()))
    card, results = render(record), eval_result_files(record)
    for stale in (folder / ".eval_results").glob("*.yaml"):
        if f".eval_results/{stale.name}" not in results:
            stale.unlink()
    for path, text in results.items():
        write_text(folder / path, text)
    (folder / PICTURE).unlink(missing_ok=True)
    if compared:
        write_json(folder / SEEDS, {name: record[name] for name in ("runs", "twins")})
        draw_results(record, folder / PICTURE)
    write_text(folder / "README.md", card)
    return folder / "README.md"


def is_as_rendered(folder: str | Path, record: dict[str, Any]) -> bool:
    """Whether a folder has no card, or the one that `write_card` renders for the repo that it names, or for none:
    nobody has written in it. record: the folder's."""
    card = Path(folder) / "README.md"
    if not card.is_file():
        return True
    try:
        text = card.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return any(_renders(record, repo, text) for repo in (None, *dict.fromkeys(_NAMED.findall(text))))


def _renders(record: dict[str, Any], repo: str | None, text: str) -> bool:
    try:
        return text == render(addressed(record, repo))
    except VCRegError:
        return False


def render(record: dict[str, Any]) -> str:
    """The card of a record. The text is parsed again, offline, as the Hub would read it.

    Errors: HubError, naming the cause, when the record cannot be rendered.
    """
    try:
        return _render(record)
    except VCRegError:
        raise
    except Exception as error:
        raise HubError(
            f"the card of {record.get('name')!r} could not be rendered: {type(error).__name__}: {error}. "
            "The weights and the other files are as they were"
        ) from error


def _render(record: dict[str, Any]) -> str:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    data, smoke = card_data(record), is_smoke_test(record["recipe"])
    template = resources.files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    text = str(ModelCard.from_template(data, template_str=template, smoke=smoke, **passages(record)))
    # huggingface_hub logs the unknown library of a config as it parses; what counts is that nothing was lost.
    again = ModelCard(text).data.to_dict()
    if again != data.to_dict():
        lost = sorted(key for key in data.to_dict() if again.get(key) != data.to_dict()[key])
        raise HubError(f"the card's YAML does not read back as it was written: {', '.join(lost)}")
    if "model-index" in again and len(model_index_to_eval_results(again["model-index"])[1]) != len(scores(record)):
        raise HubError("two results of the model-index would be merged: give each its own dataset_config or split")
    return text
