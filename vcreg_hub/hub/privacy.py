"""Finds private facts in files: absolute paths, the names of the machine and the login, mail addresses, tokens, URLs
with passwords. Rewrites pictures as their pixels alone.

A picture holds more than one sees: where and when it was taken, the program and its folder, a thumbnail, and whatever
is behind its end. So a published one holds pixels and what is needed to show them, or is refused.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunFolderError, UsageError
from ..files import parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

# Names that tell nothing about a person or a machine, and turn up in ordinary text.
_GENERIC = set(
    """
    root user users ubuntu debian admin runner nobody test localhost docker app build cluster colab compute conda cuda
    data default dev devel gpu guest home host image jovyan jupyter linux local machine main model node operator python
    server service slurm student system torch train vagrant video vcreg vision web work worker
    """.split()
)
# A name of at least so many letters is found inside words too; a shorter one between letters of other kinds.
_TELLING = 5
_PATTERNS = {
    # Not part of a URL, of a word such as km/h, or of a longer path. After a colon: of another machine (host:/srv/x),
    # or behind a prefix (hf:/home/x).
    "an absolute path": re.compile(
        r"(?<![\w.:/<])/(?:[\w.\-+@ ]*[\w.\-+@]/)+[\w.\-+@]*|file:/|(?<![\w.])~[\w\-]*/|^/[\w.\-]+$"
        r"|(?<=\w:)/[A-Za-z_.@][\w.\-+@/ ]*|(?<![\w:/<])//[\w.\-]+/[\w.\-+@/]+"
    ),
    "a Windows path": re.compile(r"(?<![\w])[A-Za-z]:\\|\\\\[\w.\-]+\\"),
    "a mail address": re.compile(r"(?<![\w.+/@\-])[\w.+\-]+@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,}(?![\w@])"),
    "a URL with a password": re.compile(r"\b[A-Za-z][\w+.\-]*://[^\s/@:]*:[^\s/@]+@"),
    # huggingface.co; GitHub, GitLab; OpenAI, Anthropic; AWS, Google, Azure storage; Slack; PyPI, npm; Stripe; W&B;
    # Databricks, DigitalOcean, SendGrid, Replicate, Groq; a JSON web token; a private key.
    "a token": re.compile(
        r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
        r"|gl(?:pat|dt|rt|ptt|cbt)-[\w\-]{18,}|sk-(?:proj-|ant-|svcacct-|or-)?[\w\-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
        r"|AIza[\w\-]{30,}|ya29\.[\w\-]{20,}|GOCSPX-[\w\-]{20,}|xox[abeoprs]-[\w\-]{10,}|xapp-[\w\-]{10,}"
        r"|pypi-[\w\-]{30,}|npm_[A-Za-z0-9]{30,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|wandb_v\d_\w{20,}"
        r"|dapi[a-f0-9]{32}|do[opr]_v1_[a-f0-9]{40,}|SG\.[\w\-]{16,}\.[\w\-]{16,}|r8_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{40,}"
        r"|eyJ[\w\-]{10,}\.eyJ[\w\-]{10,}\.[\w\-]+)|AccountKey=[\w+/=]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    ),
}
# What a PNG needs to be shown.
_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"}
_CHUNK_NAMES = {
    b"eXIf": "EXIF",
    b"tEXt": "text",
    b"zTXt": "text",
    b"iTXt": "text",
    b"tIME": "a time",
    b"iCCP": "a profile",
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
    if path.suffix == ".png":
        found += _beside_the_pixels(path)
    if path.suffix == ".json":
        return found + [f"{field}: {what}" for field, what in private_fields(_json(path), allowed)]
    return found + [part for text in texts for line in text.splitlines() for part in _private_parts(line, allowed)]


def _private_parts(text: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """What `text` gives away, such as ["an absolute path: /home/x/data"]; empty when it gives nothing away.

    allowed: names that may appear although they are this machine's or this login's (the owner of the repo).
    """
    found = [f"{what}: {m.group().strip()}" for what, pattern in _PATTERNS.items() for m in pattern.finditer(text)]
    for what, names in (("the machine's name", _machine_names()), ("the login name", _login_names())):
        found += [f"{what}: {name}" for name in names if name not in allowed and _inside(name, text)]
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


def _inside(name: str, text: str) -> bool:
    """Whether `text` gives a name away, also as a part of a word: job-titan7-0, mquux_runs."""
    # Not after `hf:` or `hf-hub:`: there it is the public owner of a repo. Nor in what looks like a hash.
    edge = "" if len(name) >= _TELLING else "[a-zA-Z0-9]"
    before, after = (f"(?<!{edge})", f"(?!{edge})") if edge else ("", "")
    found = re.finditer(rf"(?<!hf:)(?<!hub:){before}{re.escape(name)}{after}", text, re.IGNORECASE)
    return any(not _in_hash(text, match) for match in found)


def _in_hash(text: str, match: re.Match[str]) -> bool:
    around = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{32,}(?![0-9a-zA-Z])")
    return any(hash_.start() <= match.start() and match.end() <= hash_.end() for hash_ in around.finditer(text))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None


def _json(path: Path) -> object:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None


def _tensor_metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise RunFolderError(f"{path} is not a whole safetensors file: {error}") from None


def _picture_texts(path: Path) -> list[str]:
    with _picture(path) as picture:
        return [f"{key}: {value}" for key, value in picture.info.items() if isinstance(value, str)]


@contextmanager
def _picture(path: Path) -> Iterator[Image]:
    """A PNG, read whole. Errors: UsageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path, formats=["PNG"])
        picture.load()  # text that stands after the pixels is read with them
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} is not a whole PNG: {error}") from None
    with picture:
        yield picture


def write_pixels(source: Path, to: Path) -> None:
    """Write the PNG `to` with the pixels of the PNG `source` and nothing else. The same pixels give the same bytes.

    Errors: UsageError for what is no whole PNG.
    """
    from PIL import Image

    with _picture(source) as picture:
        mode = picture.mode if picture.mode in ("1", "L", "LA", "I;16", "RGB", "RGBA") else "RGBA"
        pixels = picture.convert(mode)
        bare = Image.frombytes(mode, pixels.size, pixels.tobytes())
    bare.save(to, format="PNG")


def _beside_the_pixels(path: Path) -> list[str]:
    """What a PNG holds beside its pixels and what is needed to show them, by the names of its chunks."""
    data, at, found = path.read_bytes(), 8, []
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind not in _CHUNKS:
            found.append(f"what is beside a picture's pixels: {_CHUNK_NAMES.get(kind, kind.decode('latin-1'))}")
        at += 12 + size
        if kind == b"IEND":
            break
    if at != len(data):
        found.append("what is beside a picture's pixels: bytes behind its end")
    return found
