"""Runs commands one after another, while every process they start notes what it writes, binds and connects to.

    python tests/watched.py COMMANDS.json LOG WATCHER      one argument list a command

WATCHER is a folder with `SITE` as sitecustomize.py, on PYTHONPATH: Python imports it first, in children too.
"""

from __future__ import annotations

import json
import os
import sys
import threading

SITE = """
import os
import sys

_log = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ONE = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.mkfifo", "os.mknod"}
_TWO = {"os.rename", "os.link"}


def _whole(path, folder=-1):
    path = os.fsdecode(path)
    if not os.path.isabs(path):
        base = os.getcwd() if not isinstance(folder, int) or folder < 0 else os.readlink(f"/proc/self/fd/{folder}")
        path = os.path.join(base, path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _note(event, args):
    if event == "open":
        path, _, flags = args
        if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITES:
            return [("write", _whole(path))]
    elif event in _ONE and isinstance(args[0], (str, bytes, os.PathLike)):
        folder = args[-1] if event in ("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime") else -1
        return [("write", _whole(args[0], folder))]
    elif event in _TWO:
        return [("write", _whole(args[0], args[2])), ("write", _whole(args[1], args[3]))]
    elif event == "os.symlink":
        return [("write", _whole(args[1], args[2]))]
    elif event in ("socket.bind", "socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        return [(event.partition(".")[2], f"{args[1][0]} {args[1][1]}")]
    return []


def _watch(event, args):
    if event[:2] in ("op", "os", "so"):
        for kind, what in _note(event, args):
            os.write(_log, f"{kind}\\t{what!r}\\n".encode())


sys.addaudithook(_watch)
"""


def note(log: int, kind: str, what: str) -> None:
    os.write(log, f"{kind}\t{what!r}\n".encode())


def listening() -> set[str]:
    """Addresses on which this process listens, also from libraries that are not Python's."""
    mine = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            mine.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # closed meanwhile
            continue
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with open(table) as lines:
            for words in map(str.split, lines):
                if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                    found.add(words[1])
    return found


def sample(log: int, done: threading.Event) -> None:
    while not done.wait(0.05):
        for address in listening():
            note(log, "listen", address)


def main() -> None:
    commands = json.loads(open(sys.argv[1]).read())
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    done = threading.Event()
    threading.Thread(target=sample, args=(log, done), daemon=True).start()
    import torch

    from vcreg_hub.cli import app

    torch.set_num_threads(1)
    for name, arguments in commands:
        note(log, "command", name)
        try:
            app(arguments, standalone_mode=False)
        except BaseException as error:
            note(log, "failed", f"{type(error).__name__}: {error}")
    note(log, "command", "")
    done.set()


if __name__ == "__main__":
    main()
