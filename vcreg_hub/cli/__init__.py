"""The command line: parses, calls, prints. Everything it does is a function of the package.

Exit codes: 0 done, 1 failed, 2 the call itself was wrong, 75 a signal stopped a training and the same command goes
on with it, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from ..errors import VCRegError
from . import bench, data, publish, reproduce, sweep, train, use  # noqa: F401  (they add their commands to it)
from .app import Interrupted
from .app import app as app

# What libraries say beside errors is for their developers. Whoever sets a variable knows better.
_QUIET = {
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# Bars draw over themselves, which a file does not.
_NO_BARS = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def main() -> None:
    """Runs the command line; a refusal is one clear line on stderr."""
    for name, value in (_QUIET if sys.stderr.isatty() else _QUIET | _NO_BARS).items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _interrupt)
    if "VCREG_THREADS" in os.environ:
        register_post_import_hook(_limit_threads, "torch")
    try:
        app()
    except VCRegError as error:
        print(f"vcreg: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted as interrupted:
        print(f"vcreg: interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)


def _limit_threads(torch: ModuleType) -> None:
    if threads := os.environ.get("VCREG_THREADS"):
        torch.set_num_threads(int(threads))


def _interrupt(_signal: int, _frame: Any) -> None:
    # A cluster's warning before it takes the machine: leave as Ctrl-C does, with whatever is saved kept whole.
    raise KeyboardInterrupt
