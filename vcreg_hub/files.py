"""Writes files and folders whole or not at all, locks folders, hashes files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import RunFolderError, StorageError, UsageError

try:
    import fcntl
except ImportError:  # Windows: there nobody is kept out
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import torch

# An object of a JSON file, as json.loads gives it: recipe.json, results.json, env.json, config.json, a record.
JSON = dict[str, Any]

# Endings of the files that hold a table of predictions, and features.
TABLES = (".csv", ".parquet")
ARRAYS = (".safetensors", ".npy", ".parquet")

# What a file system says that takes no more, or nothing at all.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EISDIR}
# Where a folder is to be made; not found is one in which nothing can be, such as /proc.
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT}
# Levels of a JSON document that is read; the deepest of ours has eight.
_DEEPEST = 100

# Handles of the folders that this process holds.
_held: set[int] = set()
# (kind, path, size, mtime in ns) -> hash.
_digests: dict[tuple[str, Path, int, int], str] = {}


def check_paths(paths: Iterable[str | Path], to: str | Path | None, suffixes: Sequence[str]) -> None:
    """Refuse what cannot be read or written. paths: files and folders to read. to: a file to write, named with one of
    `suffixes`.

    Errors: UsageError for a path that is not there, for another ending, and for a folder in the place of `to`.
    """
    if to is not None and Path(to).suffix not in suffixes:
        raise UsageError(f"{to}: expected a name that ends in {', '.join(suffixes)}")
    if to is not None and Path(to).is_dir():
        raise UsageError(f"{to} is a folder; expected the name of a file")
    for path in map(Path, paths):
        if not path.expanduser().exists():
            raise UsageError(f"there is no file or folder {path.expanduser().absolute()}")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text that anybody may have written. Errors: ValueError, also for one nested deeper than any
    file of ours, which would end in a RecursionError here or wherever the value is walked through."""
    deep = f"it is nested more than {_DEEPEST} deep"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(deep) from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError(deep)


@contextlib.contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`: takes its place after a block without error, and vanishes otherwise.

    durable: it is on the disk, and so is its name, when the block has ended: a power cut takes neither.
    Errors: StorageError for a full disk and for a folder that may only be read; what was at `path` is still there.
    """
    path = Path(path)
    with said_of(path, FORBIDDEN):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        with said_of(path):
            yield temporary
            # mkstemp makes a file only its owner can read; a published file follows the umask like any other.
            temporary.chmod(0o666 & ~_umask())
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
            if durable:
                _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def said_of(path: Path, numbers: Collection[int] = _UNWRITABLE) -> Iterator[None]:
    """Turns the system's error numbers of a full or read-only disk, within the block, into a StorageError of `path`."""
    try:
        yield
    except Exception as error:
        number = _number_of(error)
        if number not in numbers or isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path} cannot be written: {os.strerror(number)}; what was saved before is as it was"
        ) from None


def _number_of(error: Exception) -> int:
    """The system's number of an error; safetensors tells it in words alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync a folder
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`: takes its place after a block without error, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder, removed at the end. What killed processes left of that prefix goes first."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _sweep(left)
    # Nobody sweeps it under this name, and under the other it is locked.
    made = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    with locked(made):
        folder = made.rename(made.with_name(made.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove a folder of this user's that no living process holds."""
    with contextlib.suppress(OSError):  # another's, or gone meanwhile
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
            return
        with locked(folder) as alone:
            if alone:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[bool | None]:
    """Keeps other processes out of an existing folder during the block and this process's life.

    Yields True where the folder is this process's alone, False where another process holds it, and None where nobody
    can be kept out: on Windows, and on a network file system without locks.
    """
    # Not `filelock`: its lock is a file that stays in the folder, and where there is no flock a file that outlives a
    # killed process and keeps the next one out.
    if fcntl is None:
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle)
    finally:
        _held.discard(handle)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _lock(handle: int) -> bool | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    _held.add(handle)
    return True


def _let_go() -> None:
    # A loader's worker outlives a killed run by seconds, in which the same command could not go on.
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def write_text(path: str | Path, text: str, durable: bool = False) -> None:
    """Write UTF-8 text, whole or not at all. durable: as in `replacing`."""
    with replacing(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON, whole or not at all. NaN and infinities are refused (ValueError): JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None,
    durable: bool = False, finish: Callable[[Path], None] = lambda path: None,
) -> None:  # fmt: skip
    """Write a safetensors file, whole or not at all. Tensors with shared memory are stored once for each name.

    durable: as in `replacing`. finish: called with the written file before it takes its place.
    """
    from safetensors.torch import save_file

    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path, durable) as temporary:
        save_file(separate, temporary, metadata={"format": "pt", **(metadata or {})})
        finish(temporary)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or of all files that an index beside them names, on the CPU; RunFolderError
    when one is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        try:
            tensors |= load_file(file)
        except FileNotFoundError:
            raise RunFolderError(f"there is no {file}") from None
        except (SafetensorError, OSError) as error:
            raise RunFolderError(f"{file} is not a whole safetensors file: {error}") from None
    return tensors


def weight_files(path: str | Path) -> list[Path]:
    """The files beside the index `path` (`model.safetensors.index.json`) that hold its tensors; any other path itself.

    Errors: RunFolderError for an index that cannot be read, or that names a file elsewhere.
    """
    path = Path(path)
    if not path.name.endswith(".safetensors.index.json"):
        return [path]
    try:
        names = sorted(set(parse_json(path.read_text(encoding="utf-8"))["weight_map"].values()))
        strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    except FileNotFoundError:
        raise RunFolderError(f"there is no {path}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{path} is no index of weights: {error!r}") from None
    if strange or not names:
        raise RunFolderError(f"{path} names {strange or 'no files'}: expected safetensors files beside it")
    return [path.parent / name for name in names]


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal, of a state dict: for each tensor in order of name, the line "name dtype shape" and then
    its bytes, row by row."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_fingerprint(paths: Iterable[str | Path]) -> str:
    """A hash of every file's path, size and time of change, in order; the content is not read."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        found = path.stat()
        digest.update(f"{path.absolute()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal. An unchanged file is read once a process."""
    return _digest(Path(path), "sha256")


def git_hash(path: str | Path) -> str:
    """The git hash of the file's content. An unchanged file is read once a process."""
    return _digest(Path(path), "git")


def _digest(path: Path, kind: Literal["sha256", "git"]) -> str:
    path = path.resolve()

    def stamp() -> tuple[int, int]:
        found = path.stat()
        return found.st_size, found.st_mtime_ns

    size, changed = stamp()
    if known := _digests.get((kind, path, size, changed)):
        return known
    with path.open("rb") as file:
        start = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size)
        digest = hashlib.file_digest(file, lambda: start).hexdigest()
    # A later change must show in the time of change, which some file systems keep in whole seconds.
    settled = 2_000_000_000 if changed % 1_000_000_000 == 0 else 50_000_000
    if stamp() == (size, changed) and time.time_ns() - changed >= settled:
        _digests[(kind, path, size, changed)] = digest
    return digest


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
