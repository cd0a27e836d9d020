"""The hashes that `vcreg export` writes into an export's results.json, and whether its files still have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, RunFolderError
from ..files import sha256

RESULTS, EXPORTED = "results.json", "files"


def exported_hashes(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 at the export; empty where none is recorded (another's results.json, an older version).

    Errors: RunFolderError for a results.json that is not JSON.
    """
    path = folder / RESULTS
    if not path.is_file():
        return {}
    try:
        return hashes_in(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from None


def hashes_in(results: Any) -> dict[str, str]:
    """The record in the content of a results.json. A repo of somebody else may hold a file of that name: none then."""
    files = results.get(EXPORTED) if isinstance(results, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        return {}
    return files


def check_exported(folder: Path, cure: str) -> None:
    """IntegrityError unless every file of an export that is there has the hash recorded of it. cure: what to do."""
    for name, expected in exported_hashes(folder).items():
        if (folder / name).is_file() and (found := sha256(folder / name)) != expected:
            raise IntegrityError(
                f"{folder / name} has SHA-256 {found}, but {RESULTS} beside it says it was exported with {expected}: "
                f"it was altered since. Nothing was loaded or deleted. To go on, {cure}"
            )
