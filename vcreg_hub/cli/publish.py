"""export, card, publish, download, verify, list: from a run folder to a hub, and from a hub to a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from ..errors import IntegrityError, UsageError
from ..files import check_paths
from .app import Json, LicenceLink, LicenceName, Overwrite, Siblings, Twins, app
from .printing import print_json, print_table, tell


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder; for onnx and torch-export any trained network.")],
    to: Annotated[Path, typer.Option(help="The folder to write; for onnx a file .onnx, for torch-export .pt2.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, such as apache-2.0; a folder needs it.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="folder (timm or transformers), onnx or torch-export (one file).")
    ] = "folder",
    siblings: Siblings = None,
    twins: Twins = None,
    weights: Annotated[str, typer.Option(help="model, or last / best where the run kept those.")] = "model",
    overwrite: Overwrite = False,
    licence_name: LicenceName = None,
    licence_link: LicenceLink = None,
    as_json: Json = False,
) -> None:
    """Writes a run as a folder for plain timm or transformers, with its model card; or a network as one file."""
    if form != "folder":
        _export_graph(
            run, to, form, overwrite, as_json, [licence, siblings, twins, licence_name, licence_link], weights
        )
        return
    from ..hub.share import export as run_export

    folder = run_export(
        run, to, licence=licence or "", siblings=siblings or (), twins=twins or (), weights=weights,
        overwrite=overwrite, licence_name=licence_name, licence_link=licence_link,
    )  # fmt: skip
    paths = {"weights": folder / "model.safetensors", "card": folder / "README.md"}
    told = {"folder": str(folder)} | {name: str(path) for name, path in paths.items()}
    print_json(told) if as_json else print(f"weights: {quote(told['weights'])}\ncard:    {quote(told['card'])}")


def _export_graph(
    source: Path, to: Path, form: str, overwrite: bool, as_json: bool, of_cards: list[Any], weights: str
) -> None:
    if any(of_cards) or weights != "model":
        raise UsageError(f"--format {form} writes one file without a card: leave licence, siblings, twins, weights out")
    from ..hub.graph import write_graph

    done = write_graph(str(source), to, form, overwrite=overwrite)
    if as_json:
        print_json({"file": str(done.path), "difference": done.difference, "inputs": [list(x) for x in done.inputs]})
    else:
        print(f"file:  {quote(str(done.path))}\ncheck: {done}")


@app.command()
def card(
    name: Annotated[str, typer.Argument(help="A release, or a run or export folder.")],
    licence: Annotated[str | None, typer.Option(help="Of the weights in a run folder; an export states it.")] = None,
    siblings: Siblings = None,
    twins: Twins = None,
    repo: Annotated[str | None, typer.Option(help="Where a folder is or will be published, owner/name.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put it into the folder, as its README.md.")] = False,
    licence_name: LicenceName = None,
    licence_link: LicenceLink = None,
    as_json: Json = False,
) -> None:
    """Prints a release's model card, or renders that of a run or export folder from its files alone."""
    if not Path(name).is_dir():
        from ..hub.index import read_card

        if write:
            raise UsageError(f"--write puts a card into a folder, and {name} is none")
        _show_card(read_card(name), as_json)
        return
    from ..hub.card import render_card, write_card
    from ..hub.foreign import imported_card
    from ..models.checkpoint import is_imported

    about: dict[str, Any] = {"licence": licence, "repo_id": repo, "siblings": siblings or [], "twins": twins or []}
    if is_imported(name) and not (Path(name) / "README.md").is_file():
        if write:
            raise UsageError(f"{name} was imported: its card is written with it, by vcreg export")
        told = {"licence": licence, "licence_name": licence_name, "licence_link": licence_link}
        _show_card(imported_card(name, repo, **told), as_json)
        return
    about |= {"licence_name": licence_name, "licence_link": licence_link}
    if write:
        written = str(write_card(name, **about))
        print_json({"card": written}) if as_json else print(f"card: {written}")
        return
    _show_card(render_card(name, **about), as_json)
    if not as_json:
        print(f"(nothing was written; --write puts it into {name})", file=sys.stderr)


def _show_card(text: str, as_json: bool) -> None:
    """The Markdown, or as JSON its metadata and the text below them."""
    if not as_json:
        print(text)
        return
    from huggingface_hub import ModelCard

    card = ModelCard(text)
    print_json({"metadata": card.data.to_dict(), "text": card.text})


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A finished run folder, or an export folder with its card.")],
    repo: Annotated[str, typer.Option(help="Where to, owner/name.")],
    licence: Annotated[str | None, typer.Option(help="Licence of the weights; needed for a run folder.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    private: Annotated[bool | None, typer.Option(help="Visibility; an existing repo's is checked.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.")] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request instead.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag the commit, such as v1.")] = None,
    verify: Annotated[bool, typer.Option(help="Download it again and compare.")] = True,
    siblings: Siblings = None,
    twins: Twins = None,
    licence_name: LicenceName = None,
    licence_link: LicenceLink = None,
    as_json: Json = False,
) -> None:
    """Publishes to the Hub in one commit. The token is the one of `hf auth login` or HF_TOKEN."""
    from ..hub.plan import check_arguments, plan

    check_arguments(repo, revision, pr, tag)
    check_paths([run], None, ())  # before torch is imported
    about: dict[str, Any] = {"licence": licence, "siblings": siblings or [], "twins": twins or []}
    about |= {"licence_name": licence_name, "licence_link": licence_link}
    where: dict[str, Any] = {"private": private, "revision": revision, "pr": pr, "tag": tag}
    if yes:
        from ..hub.share import push

        done = push(run, repo, verify=verify, log=tell if as_json else print, **about, **where)
        print_json({**vars(done), "sent": True}) if as_json else print(done.url)
        return
    from ..hub.publish import prepare_upload

    with prepare_upload(run, repo, **about) as bundle:
        planned = plan(bundle, repo, **where).describe()
    if as_json:
        print_json({"repo_id": repo, "sent": False, "plan": planned.splitlines()})
    else:
        print(f"{planned}\nnothing was sent; --yes does it")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A release with or without tag, or owner/name.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    to: Annotated[Path | None, typer.Option(help="Also copy the files here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Fetches a release; every hash is checked before anything is loaded."""
    from ..hub.download import download as fetch

    done = fetch(name, revision=revision, to=to, force=force, log=tell if as_json else print)
    if as_json:
        print_json(
            {name: value if isinstance(value, bool | None) else str(value) for name, value in vars(done).items()}
        )
    else:
        print(f"{quote(str(done.folder))}{' (from the cache)' if done.offline else ''}")


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="A folder, a release with or without tag, or owner/name.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    as_json: Json = False,
) -> None:
    """Checks the hashes of a folder or of the cache again, and loads the weights."""
    from ..hub.verify import verify as check

    rows = [vars(found) for found in check(target, revision=revision)]
    print_json(rows) if as_json else print_table(rows)
    if bad := [row for row in rows if row["ok"] is False]:
        failed = ", ".join(str(row["what"]) for row in bad)
        raise IntegrityError(f"{len(bad)} of {len(rows)} checks failed: {failed}")


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """Lists the releases: their places and their scores."""
    from ..hub.listing import list_releases

    found, notes = list_releases()
    if as_json:
        print_json([entry.as_dict() for entry in found])
    else:
        rows = [
            {
                "name": entry.name,
                "where": "\n".join((*entry.places, *entry.troubles))
                or f"not published yet: vcreg train {entry.recipe}",
                "result": entry.headline,
            }
            for entry in found
        ]
        print_table(rows)
    for note in notes:
        print(note, file=sys.stderr)
