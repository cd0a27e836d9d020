"""The journal of a run, progress.jsonl: lines of JSON that are only ever added, by the first process alone.

Each has "time" (UTC) and "event":

    settings    `--continue-with` "changed" them: path -> [before, from here on]
    start       a process began, or goes on: "step", "processes", "threads"
    progress    at most a minute apart: "step", "epoch", "loss", "rate" (samples a second), "time_left" (seconds)
    saved       a state is whole in state/: "step"
    best        the weights of an "epoch" became best.safetensors: "sha256" of them
    signal      "name" asked the run to stop, after "step"
    diverged    a loss or gradient was not finite at "step", first seen at "place"; "action" is `train.on_nan`
    measuring   the training has ended; its network is being evaluated
    end         results.json is written

A line that a killed process left unfinished is passed over.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import JSON, said_of
from ..rundir import JOURNAL

if TYPE_CHECKING:
    from torch import Tensor

# Seconds between two lines of progress, but for a step that takes longer.
_EVERY = 30.0


class Journal:
    """The journal in a run's folder. Errors: StorageError where no line can be added."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._last: tuple[float, int] | None = None

    def append(self, event: str, **values: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"time": now, "event": event, **values}, allow_nan=False)
        with said_of(self.path), open(self.path, "a+b") as file:
            size = file.seek(0, 2)
            if size:
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else f"\n{line}"  # after a line without an end
            file.write(line.encode() + b"\n")

    def lines(self, *events: str) -> list[JSON]:
        """The lines of these events, or of all, oldest first."""
        try:
            texts = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for text in texts:
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if isinstance(line, dict) and (not events or line.get("event") in events):
                    found.append(line)
        return found

    def progress(self, epoch: int, step: int, steps: int, batch_size: int, loss: Tensor) -> None:
        """A line of progress, if the last one is half a minute old. step: how many were taken, of `steps` in all."""
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < _EVERY:
            return
        # The first step has nothing to take a rate from.
        rate = (step - self._last[1]) / (now - self._last[0]) if self._last is not None else None
        self._last = (now, step)
        value = float(loss)
        self.append(
            "progress", epoch=epoch, step=step, loss=value if math.isfinite(value) else None,
            rate=round(rate * batch_size, 2) if rate else None,
            time_left=round((steps - step) / rate) if rate else None,
        )  # fmt: skip

    def sessions(self) -> list[JSON]:
        """For results.json: each process that trained the run in turn, the "step" it began at, its number of
        "processes" and "threads", what was "changed", and the "signal" that ended it."""
        found: list[JSON] = []
        changed: JSON = {}
        for line in self.lines("settings", "start", "signal"):
            if line["event"] == "settings":
                changed |= line["changed"]
            elif line["event"] == "start":
                found.append({name: line[name] for name in ("step", "processes", "threads")})
                found[-1] |= {"changed": changed} if changed else {}
                changed = {}
            elif found:
                found[-1]["signal"] = {"name": line["name"], "after_step": line["step"]}
        return found
