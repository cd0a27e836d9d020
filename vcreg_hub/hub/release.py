"""A release made of an experiment's runs: one seed's weights into the package, its numbers and card beside the others.

`scripts/release` calls this. What it returns is the row to write into `vcreg_hub/releases.py` by hand: a release exists
when somebody has looked at its card and said so.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from ..checkpoints.locations import PACKAGED
from ..errors import RunFolderError, unknown_name
from ..files import sha256
from ..releases import CONFIG, RELEASES, WEIGHTS, Release, find_release
from ..rundir import RunDir
from .export import export
from .index import write_release
from .record import collect


def make_release(
    full_name: str, study: str | Path, *, licence: str, cards: str | Path, packaged: Path = PACKAGED
) -> Release:
    """Export the first seed of `study`/final/vcreg, card it, and put config and weights below `packaged`.

    full_name: a row of the table. study: the folder of `vcreg reproduce`; the plain twins are its final/plain. The
    first seed, of the first split where there are several, is taken whatever the others gave: none is picked by a test
    number.
    Returns the row with licence, bytes and hashes. Errors: UnknownNameError; RunFolderError where a run is missing;
    those of `export` and `collect`. Nothing takes its place before all of it is written.
    """
    row = find_release(full_name)
    if row is None or row.full_name != full_name:
        raise unknown_name("release", full_name, [known.full_name for known in RELEASES])
    runs, twins = (_runs(Path(study) / "final", kind) for kind in ("vcreg", "plain"))
    packaged.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packaged, prefix=".release-") as scratch:
        folder = export(runs[0], Path(scratch) / "export", licence=licence)
        record = collect(folder, licence=licence, name=full_name, siblings=runs, twins=twins)
        # Its card is read beside the other cards, not beside the weights: it loads and repeats by name.
        record |= {"packaged": row.recipe, "experiment": row.experiment or full_name}
        kept = Path(scratch) / full_name
        kept.mkdir()
        for file in (folder / CONFIG, folder / WEIGHTS, *folder.glob("*processor_config.json")):
            shutil.copyfile(file, kept / file.name)
        config = sha256(kept / CONFIG)
        shutil.rmtree(packaged / full_name, ignore_errors=True)
        kept.rename(packaged / full_name)
    write_release(record, cards)
    weights = record["weights"]
    hashes = {"sha256": weights["sha256"], "bytes": weights["bytes"], "config_sha256": config}
    return dataclasses.replace(row, licence=licence, **hashes)


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
