"""The functions behind `vcreg export` and `vcreg publish`: a run as a folder with its card, and a network on a hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.client import RetryPolicy, is_offline
from ..errors import HubError, UsageError, VCRegError
from ..files import check_paths, scratch_folder
from .licence import check_licence
from .plan import check_arguments

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from torch import nn

    from ..models.libraries.library import Preprocessing
    from .publish import Published


def export(
    run: str | Path,
    to: str | Path,
    *,
    licence: str,
    siblings: Iterable[str | Path] = (),
    twins: Iterable[str | Path] = (),
    weights: str = "model",
    overwrite: bool = False,
    licence_name: str | None = None,
    licence_link: str | None = None,
) -> Path:
    """Write a finished run as the folder `to`, which plain timm or transformers loads, with its model card.

    licence: of the weights; there is no default. siblings: runs with other seeds, twins: runs of the baseline; both for
    the card. weights: `model`, or `last` / `best` where the run kept those. overwrite: replace an export that is there.
    Errors: those of `hub.export.write_export` and `hub.card.write_card`; the weights stay where only the card fails.
    """
    check_licence(licence, licence_name, licence_link)
    check_paths([run], None, ())  # before torch is imported
    from ..models.checkpoint import is_imported
    from .card import write_card
    from .export import write_export
    from .foreign import export_imported

    if is_imported(run):
        told = {"licence": licence, "licence_name": licence_name, "licence_link": licence_link}
        return export_imported(run, to, None, **told)
    folder = write_export(run, to, licence=licence, weights=weights, overwrite=overwrite)
    about: dict[str, Any] = {"licence_name": licence_name, "licence_link": licence_link}
    try:
        write_card(folder, licence=licence, siblings=tuple(siblings), twins=tuple(twins), **about)
    except VCRegError as error:
        raise VCRegError(f"the weights are exported to {folder}, but not the card: {error}") from error
    return folder


def push(
    model_or_run: str | Path | nn.Module,
    repo: str,
    *,
    licence: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    pr: bool = False,
    tag: str | None = None,
    verify: bool = True,
    siblings: Iterable[str | Path] = (),
    twins: Iterable[str | Path] = (),
    licence_name: str | None = None,
    licence_link: str | None = None,
    architecture: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    stated: Mapping[str, str] | None = None,
    api: HfApi | None = None,
    log: Callable[[str], None] = print,
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
) -> Published:
    """Publish a run, an export folder or a network as `repo` (owner/name), in one commit; downloaded and compared.

    A network is one that any other program trained. Its card says what can be read off it, what `stated` says of it
    ("data": "Food-101") as its publisher's words, and what is not known. architecture, classes, preprocessing: of a
    network, where it does not say them itself; see `hub.foreign.export_module`.
    licence: needed for a run and for a network. The rest as in `hub.publish.publish`; so are the errors.
    """
    check_arguments(repo, revision, pr, tag)
    if is_offline():
        raise HubError(
            "publishing needs the hub, and offline mode is on: unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
        )
    from .bundle import SCRATCH, read_bundle
    from .publish import prepare_upload, publish

    sent: dict[str, Any] = {"private": private, "revision": revision, "pr": pr, "tag": tag, "verify": verify}
    sent |= {"api": api, "log": log, "retries": retries}
    named: dict[str, Any] = {"licence_name": licence_name, "licence_link": licence_link}
    of_network: dict[str, Any] = {
        "architecture": architecture,
        "classes": classes,
        "preprocessing": preprocessing,
        "stated": stated,
    }
    if isinstance(model_or_run, str | Path):
        if given := [name for name, value in of_network.items() if value is not None]:
            raise UsageError(f"{', '.join(given)}: of a network; a run folder says so itself")
        path = Path(model_or_run)
        about: dict[str, Any] = {
            "licence": licence,
            "siblings": list(map(Path, siblings)),
            "twins": list(map(Path, twins)),
        }
        with prepare_upload(path, repo, **about, **named) as bundle:
            return publish(bundle, repo, **sent)
    from .foreign import export_module

    with scratch_folder(SCRATCH) as scratch:
        folder = export_module(
            model_or_run,
            scratch / "export",
            repo,
            licence=licence,
            **named,
            **of_network,
        )
        return publish(read_bundle(folder, repo.partition("/")[0]), repo, **sent)
