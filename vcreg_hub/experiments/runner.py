"""Runs trials side by side, each a process of its own, or goes on from an interruption.

Layout: <folder>/<label>/seed<k>/ is one run. A label says what the recipe changes ("alpha=0.64,beta=0.08").
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config import differences, to_json
from ..errors import UsageError, VCRegError
from ..files import write_text
from ..rundir import RunDir
from .grid import Trial


def run_trials(todo: Sequence[Trial], out: Path, jobs: int = 1, log: Callable[[str], None] = print) -> None:
    """Run the incomplete trials below `out`, `jobs` processes at a time.

    Each trial is a process of its own (`vcreg train`), so that one that fails takes no other with it, and each gets its
    share of the CPU's threads. Interrupting loses at most the running epochs; the same call goes on from there.
    Errors: VCRegError naming the trials that failed, so that no table is read as complete when it is not; UsageError
    where a trial's folder holds another recipe's run.
    """
    waiting = [trial for trial in todo if not _done(trial, RunDir(out / trial.path))]
    log(f"{len(todo)} runs, {len(todo) - len(waiting)} complete already, {jobs} at a time")
    running: list[tuple[Trial, subprocess.Popen[bytes], float]] = []
    failed: list[str] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                running.append((trial, _start(trial, out, threads), time.monotonic()))
            time.sleep(0.2)
            for entry in [e for e in running if e[1].poll() is not None]:
                running.remove(entry)
                trial, process, started = entry
                minutes = (time.monotonic() - started) / 60
                if process.returncode:
                    failed.append(f"{trial.path}: {_last_line(out / trial.path.parent / f'{trial.path.name}.log')}")
                    log(f"failed  {failed[-1]}")
                else:
                    log(f"done    {trial.path}  {minutes:.1f} min, {len(waiting) + len(running)} to go")
    finally:
        for _, process, _ in running:
            process.terminate()
        for _, process, _ in running:
            process.wait()
    if failed:
        raise VCRegError(f"{len(failed)} runs failed; the others are kept:\n  " + "\n  ".join(failed))


def _done(trial: Trial, run: RunDir) -> bool:
    """Whether the trial's run is complete. Errors: UsageError when its folder holds another recipe's run."""
    if run.begun() and (there := run.recipe()) != trial.recipe:
        changed = ", ".join(differences(there, trial.recipe))
        raise UsageError(f"{run.path} holds another recipe's run (differs in {changed}); choose another --out")
    return run.complete()


def _start(trial: Trial, out: Path, threads: int) -> subprocess.Popen[bytes]:
    folder = out / trial.path
    recipe = folder.parent / f"{folder.name}.recipe.json"
    write_text(recipe, to_json(trial.recipe) + "\n")
    output = open(folder.parent / f"{folder.name}.log", "ab")
    command = [sys.executable, "-m", "vcreg_hub", "train", str(recipe), "--out", str(folder), "--no-bar"]
    # Whoever sets them knows better.
    environment = {"OMP_NUM_THREADS": str(threads), "VCREG_THREADS": str(threads)} | os.environ
    with output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"see {log}"
