"""VCReg minus its plain twin, seed by seed: twins share their start and their data's order, so that much cancels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import column


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[tuple[str, str, str], dict[int, float]]]:
    """ "vcreg - plain" -> column -> seed -> difference, for every label that has a twin among `rows`.

    rows: of `summary.summarise`. The twin of "vcreg,noise=1" is "plain,noise=1". Seeds that only one has are left out.
    """
    values = {(row["label"], column(row)): dict(zip(row["seeds"], row["values"], strict=True)) for row in rows}
    found: dict[str, dict[tuple[str, str, str], dict[int, float]]] = {}
    for (label, named), own in values.items():
        twin = label.replace("vcreg", "plain", 1)
        plain = values.get((twin, named), {}) if twin != label else {}
        if shared := sorted(own.keys() & plain.keys()):
            by_seed = {seed: own[seed] - plain[seed] for seed in shared}
            found.setdefault(f"{label} - {twin}", {})[named] = by_seed
    return found


def shown(by_seed: Mapping[int, float], unit: str) -> str:
    """`+0.49 ± 0.39 points`: mean and sample standard deviation of the differences."""
    values = list(by_seed.values())
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    mean = round(statistics.fmean(values), 2) + 0.0  # not -0.00
    return f"{mean:+.2f}{spread} {'points' if unit == '%' else unit}"
