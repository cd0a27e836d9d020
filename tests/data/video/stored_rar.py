"""A writer of RAR 4 archives with stored entries, written from the format's description; for tests only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

STORED, COMPRESSED = 0x30, 0x33
REGULAR, LINK = 0o100644, 0o120777


def stored_rar(
    files: Mapping[str, bytes], *, method: int = STORED, mode: int = REGULAR, wrong_checksum: bool = False
) -> bytes:
    """The bytes of an archive that holds `files`. `method=COMPRESSED` claims compression that is not
    there."""
    archive = b"Rar!\x1a\x07\x00" + _block(0x73, 0, b"\0" * 6)
    for name, content in files.items():
        raw = name.encode()
        checksum = zlib.crc32(content) ^ (1 if wrong_checksum else 0)
        header = struct.pack(
            "<IIBIIBBHI", len(content), len(content), 3, checksum, 0x5000_0000, 20, method, len(raw), mode
        )
        archive += _block(0x74, 0x8000, header + raw) + content
    return archive + _block(0x7B, 0x4000, b"")


def write_stored_rar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(stored_rar(files))
    return path


def pack(root: Path, folder: Path) -> Path:
    """A set at `root` in `folder` as HMDB51 is published: one archive of class archives, and one of split files."""
    folder.mkdir()
    inner = {}
    for classes in sorted((root / "videos").iterdir()):
        files = {f"{classes.name}/{clip.name}": clip.read_bytes() for clip in sorted(classes.iterdir())}
        inner[f"{classes.name}.rar"] = write_stored_rar(folder / "inner.rar", files).read_bytes()
    (folder / "inner.rar").unlink()
    write_stored_rar(folder / "all.rar", inner)
    lists = root / "testTrainMulti_7030_splits"
    write_stored_rar(folder / "splits.rar", {f"{lists.name}/{p.name}": p.read_bytes() for p in lists.iterdir()})
    return folder


def _block(kind: int, flags: int, body: bytes) -> bytes:
    rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest
