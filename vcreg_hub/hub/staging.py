"""The folder that one publication is sent from: its own, so that two at once, or a preview, change nothing here."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoints.find import refuse_only_pickles
from ..config import to_dict
from ..errors import UsageError
from ..rundir import RunDir
from .bundle import refuse_altered
from .card import check_numbers, is_as_rendered, render_card, write_card
from .export import export
from .licence import check_licence
from .record import is_smoke_test


@contextlib.contextmanager
def staged(
    run: Path, repo_id: str, *, licence: str | None, siblings: list[Path], twins: list[Path], **named: str | None
) -> Iterator[Path]:
    """A folder to publish as `repo_id`, with a card that names it; removed at the end. `run` stays as it is.

    run: a run folder, which is exported, or an export folder, which is copied. An export in whose card somebody has
    written is given as it is, unless a licence, siblings or twins for a new card are given. What is staged is the same
    every time: a second publication finds what the first one sent.

    Errors: UsageError for a run without a licence, a smoke test or pickles; IntegrityError for an export that was
    altered; those of `export` and `write_card`.
    """
    refuse_only_pickles(run)
    _refuse_smoke_test(run)
    about: dict[str, Any] = {"licence": licence, "repo_id": repo_id, "siblings": siblings, "twins": twins, **named}
    exported = (run / "config.json").is_file()
    if exported:
        refuse_altered(run)
        check_numbers(run)
        if not (licence or siblings or twins or is_as_rendered(run)):
            yield run
            return
        render_card(run, **about)  # an error names the folder that was given
    elif licence is None:
        raise UsageError("publishing a run needs --licence, the licence of its weights, such as apache-2.0")
    else:
        check_licence(licence, named.get("licence_name"), named.get("licence_link"))
    with tempfile.TemporaryDirectory(prefix="vcreg-publish-") as scratch:
        folder = Path(scratch) / "export"
        if exported:
            shutil.copytree(run, folder, symlinks=True)
        else:
            assert licence is not None
            export(run, folder, licence=licence)
        write_card(folder, **about)
        yield folder


def _refuse_smoke_test(run: Path) -> None:
    if (run / "recipe.json").is_file() and is_smoke_test(to_dict(RunDir(run).recipe())):
        raise UsageError(
            f"{run} is a smoke test, or was trained on made-up images: its numbers would pass for results. Nothing was "
            "sent or written"
        )
