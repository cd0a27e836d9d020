"""Runs a Python program with the `*_vcreg` names registered with timm, and timm's training tasks watched.

    python -m vcreg_hub.loops.script validate.py --model convnext_tiny_vcreg ...
    torchrun --nproc-per-node 2 -m vcreg_hub.loops.script train.py --model resnet50_vcreg ...

The program sees what it would see as `python FILE ...`: its name as `__main__`, its arguments, its folder on the path.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError


def main(arguments: Sequence[str]) -> None:
    """Runs arguments[0] with the others. UsageError where it is not a file."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("usage: python -m vcreg_hub.loops.script FILE [ARGUMENTS OF FILE ...]")
    file = Path(arguments[0])
    if not file.is_file():
        raise UsageError(
            f"there is no file {arguments[0]!r}; the first argument is the program to run, such as train.py"
        )
    importlib.import_module("vcreg_hub.loops.timm_train")  # imports timm, and so registers the names
    sys.argv = list(arguments)
    sys.path[0] = str(file.resolve().parent)
    runpy.run_path(str(file), run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
