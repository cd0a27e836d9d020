"""torchrun that ends with the exit code of its processes: `python -m vcreg_hub.run.launch`, with torchrun's arguments.

torchrun itself ends with 1 whatever its processes end with, so that nobody after it could tell an interruption from a
failure, and dies of SIGUSR1 without a word. Here every signal that asks a training to stop goes on to its processes,
which get as long as `VCREG_GRACE` allows to save their state.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from ..errors import StoppedError
from .signals import grace

_HANDED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def _launch(arguments: Sequence[str]) -> int:
    """Run torchrun; the exit code of the process that ended first, as a shell has it. After a signal that is 75, or 130
    for Ctrl-C."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(int(grace()) + 5))
    try:
        main([f"--signals-to-handle={_HANDED_ON}", *arguments])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        print(f"launch: process {first.local_rank} ended with exit code {first.exitcode}", file=sys.stderr)
        return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode
    except SignalException as error:
        name = signal.Signals(error.sigval).name
        print(f"launch: {name}; the same command goes on from what is saved", file=sys.stderr)
        return 130 if name == "SIGINT" else StoppedError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1:]))
