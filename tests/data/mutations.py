"""Files with damage drawn from a seed, and a process of its own that reads them within a time limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

_READ = """
import sys
from pathlib import Path
from vcreg_hub.data.{module} import {name} as read, {error} as Unreadable
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    try:
        read(path)
    except Unreadable as error:
        assert str(path) in str(error) and "\\n" not in str(error), error
        print("refused", flush=True)
    else:
        print("read", flush=True)
"""


def mutated(content: bytes, seed: int) -> bytes:
    """Some bytes changed, a piece cut out, doubled or zeroed, or the end cut off."""
    random = np.random.default_rng(seed)
    found = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        # Every second draw hits the first 400 bytes, where headers are.
        end = len(found) if random.random() < 0.5 else min(400, len(found))
        place, length = int(random.integers(0, end)), int(random.integers(1, 40))
        match int(random.integers(0, 6)):
            case 0 | 1:
                found[place] = int(random.integers(0, 256))
            case 2:
                found[place : place + 4] = bytes(random.choice([0, 127, 255], 4).astype(np.uint8))
            case 3:
                del found[place : place + length]
            case 4:
                found[place:place] = found[place : place + length]
            case _:
                found[place : place + length] = bytes(length)
        if not found:
            return b""
    return bytes(found[: int(random.integers(1, len(found) + 1))] if random.random() < 0.15 else found)


def outcomes(folder: Path, module: str, name: str, error: str, seconds: int = 120) -> dict[str, str]:
    """File name -> "read" or "refused", by a function of `vcreg_hub.data` in a process of its own.

    A file that hangs, crashes the process or raises anything else fails the test, and is named.
    """
    script = _READ.format(module=module, name=name, error=error)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"not done after {seconds} s: {(late.stdout or b'')[-60:]!r}") from None
    assert done.returncode == 0, f"{done.stdout[-60:]} {done.stderr[-2000:]}"
    return dict(line.split() for line in done.stdout.splitlines())
