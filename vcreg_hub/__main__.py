"""The `vcreg` command, also as `python -m vcreg_hub`, and so `accelerate launch -m vcreg_hub train ...`."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is being imported leaves no traceback."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
