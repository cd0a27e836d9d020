"""The signals that ask a training to stop: Ctrl-C (SIGINT), SIGTERM, and SIGUSR1, a cluster's warning.

Between steps the first one is only noted: the loop saves its state after the running step and ends. Whoever sent it may
not wait for long, so the process leaves without a new state when `VCREG_GRACE` seconds have passed (25; Slurm,
Kubernetes and torchrun kill after 30). A second Ctrl-C leaves at once. Nothing that is saved is harmed by either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..errors import ConfigError, StoppedError

_GRACE = "VCREG_GRACE"
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Signals:
    """What arrived. A context manager: outside of the main thread, where Python lets nobody listen, it does nothing.

    Errors: ConfigError for a VCREG_GRACE that is no number of seconds.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.grace = grace()
        self._process, self._deferred = os.getpid(), False
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.name is not None

    def error(self, step: int | None = None) -> BaseException:
        """What ends the run. step: after which its state is saved."""
        if self.name == "SIGINT":
            return KeyboardInterrupt()
        saved = "" if step is None else f" after step {step}, which is saved"
        return StoppedError(f"stopped by {self.name or 'a signal to another process'}{saved}; the same command goes on")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """In the block a signal is only noted; yields whether one was."""
        self._deferred = True
        try:
            yield self.asked
        finally:
            self._deferred = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            # What was set outside of Python cannot be set again by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        if isinstance(error, KeyboardInterrupt) and self.name not in (None, "SIGINT"):
            raise self.error() from None

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, which has this handler from its parent
            if number == signal.SIGTERM:
                os._exit(0)
            return
        again, self.name = self.name is not None, self.name or signal.Signals(number).name
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if again:  # a launcher repeats it when the first of its processes has left
            return
        if not self._deferred:
            raise KeyboardInterrupt  # which nothing on the way takes for a failure of its own
        self._timer = threading.Timer(self.grace, self._leave)
        self._timer.daemon = True
        self._timer.start()

    def _leave(self) -> None:
        text = f"vcreg: {self.name}, and no state could be saved within {self.grace:g} seconds; the last one is kept\n"
        os.write(2, text.encode())
        os._exit(130 if self.name == "SIGINT" else StoppedError.exit_code)


def grace() -> float:
    """Seconds that a run has to save its state after a signal. Errors: ConfigError for anything but a number."""
    text = os.environ.get(_GRACE, "25")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ConfigError(f"{_GRACE} is a number of seconds, such as 25, got {text!r}")
    return seconds
