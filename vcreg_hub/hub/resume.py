"""Large files in pieces: a download that was interrupted, even by a kill, goes on where it stopped.

huggingface_hub (1.33 and 2.4) resumes a plain HTTP download within one call only and throws the piece away afterwards.
Here the piece stays beside the place the whole file will have in huggingface_hub's own cache, and takes that place when
it is whole; the caller compares hashes. Files that come through Xet are left to huggingface_hub.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.retry import Patience, attempt

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SMALL = 8_000_000  # bytes; not worth a piece


def bring_blob(
    api: HfApi, repo: str, path: str, commit: str, sha256: str, size: int, cache: Path, patience: Patience
) -> None:
    """Bring a large file (kept under `sha256`, `size` bytes) into the cache, with a progress bar, unless it is there.

    Errors: HubError, and the piece stays.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    blob = cache / f"models--{repo.replace('/', '--')}" / "blobs" / sha256
    if size < SMALL or blob.exists():
        return
    what, url = f"downloading {path} of {repo}", hf_hub_url(repo, path, revision=commit, endpoint=api.endpoint)
    metadata = attempt(what, lambda: api.get_hf_file_metadata(url=url, timeout=patience.timeout), patience)
    if metadata.xet_file_data is not None and _xet():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    piece = blob.with_name(f"{sha256}.part")
    with WeakFileLock(piece.with_suffix(".lock")):
        if not blob.exists():
            attempt(what, lambda: _go_on(api, url, piece, size, path), patience)
            piece.replace(blob)


def _go_on(api: HfApi, url: str, piece: Path, size: int, path: str) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    piece.touch()
    with piece.open("r+b") as file:
        there = file.seek(0, 2)
        if there > size:  # not a piece of this file
            there = file.seek(0)
            file.truncate()
        headers = build_hf_headers(token=api.token, library_name=api.library_name)
        http_get(url, file, resume_size=there, headers=headers, expected_size=size, displayed_filename=path)


def _xet() -> bool:
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and util.find_spec("hf_xet") is not None
