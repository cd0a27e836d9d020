"""Finds private facts in files: absolute paths, the machine's name, the login name, tokens."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RunFolderError, UsageError

# Names that tell nothing about a person or a machine, and turn up in ordinary text.
_GENERIC = {"root", "user", "users", "ubuntu", "debian", "admin", "runner", "nobody", "test", "localhost", "docker"}
_PATTERNS = {
    # Not part of a URL, of a word such as km/h, or of a longer path.
    "an absolute path": re.compile(
        r"(?<![\w.:/<])/(?:[\w.\-+@ ]*[\w.\-+@]/)+[\w.\-+@]*|file:/|(?<![\w.])~[\w\-]*/|^/[\w.\-]+$"
    ),
    "a Windows path": re.compile(r"(?<![\w])[A-Za-z]:\\|\\\\[\w.\-]+\\"),
    "a token": re.compile(r"\bhf_[A-Za-z0-9]{16,}\b|\bapi_org_[A-Za-z0-9]{16,}\b"),
}


def private_in(path: Path, allowed: frozenset[str] = frozenset()) -> list[str]:
    """The private facts of a file: in its text, or in the text beside its data.

    allowed: names that may appear although they are this machine's or this login's (the owner of the repo).
    Errors: UsageError for text that is not UTF-8, JSON or a PNG that is none; RunFolderError for weights that are no
    whole safetensors file.
    """
    from huggingface_hub import get_token

    token = get_token()
    if path.suffix == ".safetensors":
        texts = list(_tensor_metadata(path).values())
    elif path.suffix == ".png":
        texts = _picture_texts(path)
    else:
        texts = [_text(path)]
    found = ["the token of this login" for text in texts if token and token in text]
    if path.suffix == ".json":
        return found + [f"{field}: {what}" for field, what in private_fields(_json(path), allowed)]
    return found + [part for text in texts for line in text.splitlines() for part in _private_parts(line, allowed)]


def _private_parts(text: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """What `text` gives away, such as ["an absolute path: /home/x/data"]; empty when it gives nothing away.

    allowed: names that may appear although they are this machine's or this login's (the owner of the repo).
    """
    found = [f"{what}: {m.group().strip()}" for what, pattern in _PATTERNS.items() for m in pattern.finditer(text)]
    for what, names in (("the machine's name", _machine_names()), ("the login name", _login_names())):
        found += [f"{what}: {name}" for name in names if name not in allowed and _word(name).search(text)]
    return found


def private_fields(value: Any, allowed: frozenset[str] = frozenset(), at: str = "") -> Iterator[tuple[str, str]]:
    """(path of the field, its private fact) for every string inside a JSON value, keys as well."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for part in _private_parts(str(key), allowed):
                yield at or "the top level", part
            yield from private_fields(inner, allowed, f"{at}.{key}" if at else str(key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from private_fields(inner, allowed, f"{at}[{i}]")
    elif isinstance(value, str):
        for part in _private_parts(value, allowed):
            yield at, part


def without_paths(value: Any) -> Any:
    """A recipe as JSON values with each folder of this machine cut to its last name, and `root` to nothing."""
    if isinstance(value, dict):
        return {name: None if name == "root" else without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if isinstance(value, str):
        prefix, path = ("hf:", value[3:]) if value.startswith("hf:") else ("", value)
        return prefix + Path(path).name if os.path.isabs(os.path.expanduser(path)) else value
    return value


def _machine_names() -> list[str]:
    """This machine's names, without the generic ones."""
    full = socket.gethostname()
    return [name for name in dict.fromkeys((full, full.partition(".")[0])) if _tells(name)]


def _login_names() -> list[str]:
    """The name this process runs under, unless it is a generic one."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no entry in the password file, as in some containers
        return []
    return [name] if _tells(name) else []


def _tells(name: str) -> bool:
    return len(name) >= 3 and name.lower() not in _GENERIC


def _word(name: str) -> re.Pattern[str]:
    # Not after `hf:` or `hf-hub:`: there it is the public owner of a repo.
    return re.compile(rf"(?<![\w\-.])(?<!hf:)(?<!hub:){re.escape(name)}(?![\w\-.])", re.IGNORECASE)


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
