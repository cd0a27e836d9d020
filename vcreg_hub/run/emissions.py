"""Measures a training's emissions with codecarbon, if it is installed and can tell.

codecarbon's offline tracker is used: no request leaves the machine. It reads the power of the processor and the GPUs,
or estimates it from their load, and takes the country from its own settings (`CODECARBON_COUNTRY_ISO_CODE` or
`.codecarbon.config`); without one it counts the world's average electricity.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Emissions:
    """The emissions of a finished `measured` block. kg_co2eq: None when unknown."""

    kg_co2eq: float | None = None

    def row(self) -> dict[str, float]:
        """For results.json["training"]: `emissions_kg_co2eq`, or nothing."""
        return {} if self.kg_co2eq is None else {"emissions_kg_co2eq": self.kg_co2eq}


@contextlib.contextmanager
def measured(active: bool = True) -> Iterator[Emissions]:
    """Measure the block, on this machine as a whole. A failing tracker costs the number and a warning, no more.

    active: False measures nothing, for processes beside the first one and for a run whose beginning was not measured.
    """
    emissions = Emissions()
    tracker = _start() if active and importlib.util.find_spec("codecarbon") is not None else None
    try:
        yield emissions
    finally:
        if tracker is not None:
            emissions.kg_co2eq = _stop(tracker)


def _start() -> Any:
    """A running tracker; None when it cannot run here."""
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    try:
        from codecarbon import OfflineEmissionsTracker

        # Several runs may go on at once; nothing is written but what this run's own folder gets.
        tracker = OfflineEmissionsTracker(
            save_to_file=False, save_to_api=False, log_level="critical", allow_multiple_runs=True
        )
        tracker.start()
    except Exception as error:
        _give_up(error)
        return None
    return tracker


def _stop(tracker: Any) -> float | None:
    try:
        kg = tracker.stop()
        return float(kg) if kg is not None and math.isfinite(kg) and kg > 0 else None
    except Exception as error:
        _give_up(error)
        return None


def _give_up(error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    warnings.warn(f"codecarbon cannot measure here ({reason}); no emissions are recorded", stacklevel=2)
