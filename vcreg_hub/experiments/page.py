"""Renders docs/reproduction.md, the page of all tables and figures, and scripts/reproduce/*.sh, their full forms.

The page comes from what is recorded in docs/results, the scripts from the targets and their estimates.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..files import write_text
from .comparison import command_of, read_outcomes, render
from .estimate import Estimate, estimate
from .targets import TARGETS, Target

_INTRODUCTION = """# The paper, table by table

Every table and figure of the paper (arXiv 2306.13292) is one command, `vcreg reproduce NAME`. This page is rendered
by `scripts/reproduction` from what is recorded in [results](results/README.md); a test fails where the two differ. A
cell without a number of ours says "not yet run".

`--scale small`, the default, takes minutes to hours on CPU cores and needs no download. The paper's number beside
such a result is the answer to the same question **on the paper's own data and networks**; the two are not to be
compared digit by digit. `--scale full` is the paper's own setting, on GPUs and data sets of your own;
`scripts/reproduce/NAME.sh` starts it under accelerate, one process for each GPU. **No full form has been run by us.**
`--dry-run` prints the runs, their hours and what data is missing, and trains nothing. `--seeds N` takes N final seeds
instead of each experiment's own.

Each experiment runs in a folder of its own below `--out` (`runs`) and resumes there; targets share them, as `vcreg
reproduce hierarchy_convnext` does with `table5`. Coefficients are chosen on held-out training data, final seeds are
others than those of the search, ± is the standard deviation over seeds, intervals are 95% by Student's t, and
differences are taken seed by seed.

Hours of the full forms are estimates: nothing has been measured on a GPU, and the paper tells the cost of one
training (Appendix F: ConvNeXt-T, 48 hours on 16 AMD MI50, 768 GPU hours). The others are scaled from it by samples
and multiply-adds, trainings alone; small images take no less than making their views and starting the steps takes the
CPU. The paper estimates 92,160 GPU hours for all of its experiments together. Where a
full form searches the paper's grid for a network it costs twenty trainings: `vcreg train RECIPE --set
vcreg.alpha=0.64 --set vcreg.beta=0.08` is one.
"""


def refresh(repository: Path) -> list[str]:
    """Write the page and the scripts anew; returns the paths that changed, below `repository`."""
    texts = {Path("docs/reproduction.md"): page(repository / "docs" / "results")}
    texts |= {Path(f"scripts/reproduce/{name}.sh"): script(name, target) for name, target in TARGETS.items()}
    changed = []
    for path, text in texts.items():
        whole = repository / path
        if not whole.is_file() or whole.read_text(encoding="utf-8") != text:
            write_text(whole, text)
            changed.append(str(path))
        if path.suffix == ".sh":
            whole.chmod(0o755)
    return changed


def page(results: Path) -> str:
    """docs/reproduction.md from the recorded `results`, a folder for each experiment."""
    return "\n".join([_INTRODUCTION, *(_section(name, target, results) for name, target in TARGETS.items())])


def script(name: str, target: Target) -> str:
    """scripts/reproduce/<name>.sh: starts the full form, its cost at the top."""
    lines = [f"# {line}" for line in (f"{name}: {target.title}.", *_cost(target))]
    options = '"$@"'
    return "\n".join([
        "#!/usr/bin/env bash", *lines,
        "# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.",
        "set -euo pipefail",
        'cd "$(dirname "$0")/../.."',
        "export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise",
        f"exec .venv/bin/{command_of(name, 'full')} {options}",
        "",
    ])  # fmt: skip


def _section(name: str, target: Target, results: Path) -> str:
    small = render(target, "small", read_outcomes(target, "small", results))
    full = render(target, "full", read_outcomes(target, "full", results))
    return "\n\n".join([
        f"## {name}: {target.title}",
        f"`{command_of(name, 'small')}`. {target.note}",
        small,
        f"`{command_of(name, 'full')}`, or `scripts/reproduce/{name}.sh`. {' '.join(_cost(target))}",
        full,
        "",
    ])  # fmt: skip


def _cost(target: Target) -> list[str]:
    """What the full form takes, a sentence an item."""
    if target.bench:
        return ["Minutes of one GPU."]
    found = list(_estimates(target))
    runs, unknown = sum(one.runs for one in found), sum(one.unknown for one in found)
    hours, cores = (sum(one.hours.get(of, 0.0) for one in found) for of in ("MI50", "CPU core"))
    if cores:
        return [f"{runs:,} trainings, about {_rounded(cores):,} hours of one CPU core and no GPU hours."]
    sentences = [
        f"{runs:,} trainings, about {_rounded(hours):,} GPU hours (AMD MI50), scaled from the paper's 768 of one."
    ]
    if unknown:
        sentences.append(f"That leaves out {unknown} of unknown length.")
    if data := dict.fromkeys(name for one in found for name in one.data):
        sentences.append(f"Needs {', '.join(data)}: `--dry-run` says where to get them.")
    return sentences


def _estimates(target: Target) -> Iterator[Estimate]:
    for name, experiment in target.experiments("full").items():
        yield estimate(experiment, Path("runs") / name)


def _rounded(hours: float) -> int:
    """Two digits say what such an estimate knows."""
    return int(round(hours, min(0, 2 - len(str(int(hours))))))
