"""`python -m vcreg_hub`, and so `accelerate launch -m vcreg_hub train ...`."""

from .cli import main

if __name__ == "__main__":
    main()
