"""The folder that goes up: which files of it, whether it is complete, and that none gives anybody away."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..checkpoints.exported import check_exported, exported_hashes
from ..checkpoints.find import AGAIN, refuse_only_pickles
from ..checkpoints.recorded import git_hash
from ..errors import IntegrityError, RunFolderError, UsageError
from ..files import sha256
from .card import check_numbers
from .privacy import private_fields, private_parts

REQUIRED = ("README.md", "config.json", "model.safetensors", "recipe.json", "results.json", "env.json")
_ALLOWED = tuple(
    re.compile(pattern)
    for pattern in (
        *(re.escape(name) for name in REQUIRED),
        r"(video_)?preprocessor_config\.json",
        r"processor_config\.json",
        r"[\w\-][\w.\-]*\.png",
        r"\.eval_results/[\w\-][\w.\-]*\.yaml",
    )
)


@dataclass(frozen=True)
class File:
    """One file of a bundle. path: below its folder, with slashes. git: the hash git has for it."""

    path: str
    size: int
    sha256: str
    git: str


@dataclass(frozen=True)
class Bundle:
    """What of a folder is published. left: its other files, which stay here."""

    folder: Path
    files: tuple[File, ...]
    left: tuple[str, ...]

    @property
    def digest(self) -> str:
        """One hash for all files and their names."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


def is_allowed(path: str) -> bool:
    """Whether a file of that path, below the folder, may be published or downloaded."""
    return any(pattern.fullmatch(path) for pattern in _ALLOWED)


def read_bundle(folder: str | Path, owner: str | None = None) -> Bundle:
    """The bundle of an export folder with its card. owner: of the repo; a name that may appear in the files.

    Errors: UsageError when a required file is absent, a file is a symbolic link, or a file holds a token, the name
    of this machine or login, or an absolute path; RunFolderError for weights that are no whole safetensors file;
    IntegrityError for a file that was altered since `export` wrote it, or a card with other numbers than results.json.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} to publish")
    refuse_only_pickles(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = {str(PurePosixPath(path.relative_to(folder))): path for path in paths}
    allowed = {name: path for name, path in names.items() if is_allowed(name)}
    if absent := [name for name in REQUIRED if name not in allowed]:
        raise UsageError(
            f"{folder} is not ready to be published: it has no {', '.join(absent)}. `vcreg export` writes the folder, "
            "`vcreg card` its README.md"
        )
    for name, path in allowed.items():
        if path.is_symlink():
            raise UsageError(f"{name} is a symbolic link: put the file itself there")
        _refuse_private(name, path, frozenset({owner} if owner else ()))
    refuse_altered(folder)
    check_numbers(folder)
    files = tuple(File(name, path.stat().st_size, sha256(path), git_hash(path)) for name, path in allowed.items())
    return Bundle(folder, files, tuple(name for name in names if name not in allowed))


def refuse_altered(folder: Path) -> None:
    """IntegrityError unless all that `export` wrote into the folder is there as it wrote it; UsageError for pickles."""
    refuse_only_pickles(folder)
    check_exported(folder, AGAIN)
    for name, digest in exported_hashes(folder).items():
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder / name} is not there, but it was exported with SHA-256 {digest}: {AGAIN}")


def _refuse_private(name: str, path: Path, allowed: frozenset[str]) -> None:
    found = _private(path, allowed)
    if found:
        raise UsageError(
            f"{name} would publish {'; '.join(found[:5])}. Change it in the run folder and export it again"
        )


def _private(path: Path, allowed: frozenset[str]) -> list[str]:
    """What a file gives away: in its text, or in the text that its format carries beside the data."""
    token = _own_token()
    if path.suffix == ".safetensors":
        texts = list(_tensor_metadata(path).values())
    elif path.suffix == ".png":
        texts = _picture_texts(path)
    else:
        texts = [_text(path)]
    found = ["the token of this login" for text in texts if token and token in text]
    if path.suffix == ".json":
        return found + [f"{field}: {what}" for field, what in private_fields(_json(path), allowed)]
    return found + [part for text in texts for line in text.splitlines() for part in private_parts(line, allowed)]


def _own_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None


def _tensor_metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from None


def _picture_texts(path: Path) -> list[str]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()  # text that stands after the pixels is read with them
            return [f"{key}: {value}" for key, value in picture.info.items() if isinstance(value, str)]
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UsageError(f"{path} is not a whole PNG: {error}") from None
