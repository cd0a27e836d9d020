"""Runs trials side by side, each a process of its own, or goes on from an interruption.

Layout: <folder>/<label>/seed<k>/ is one run. A label says what the recipe changes ("alpha=0.64,beta=0.08").
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..config import differences, to_dict, to_json
from ..config.tagged import TRUSTED_VARIABLE
from ..errors import UsageError, VCRegError, unknown_name
from ..files import write_text
from ..rundir import PLANNED, RunDir
from .grid import Trial

# What starts a run: `VCREG_LAUNCHER`. accelerate starts a process for each GPU of the machine, or as it is configured.
_LAUNCHERS: Mapping[str, tuple[str, ...]] = {"python": (), "accelerate": ("-m", "accelerate.commands.launch")}


class Running(Protocol):
    """A training at work, as `subprocess.Popen` tells of one."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> object: ...


# Starts a command whose output goes to the end of a file.
Launch = Callable[[list[str], Path], Running]


def run_trials(
    todo: Sequence[Trial],
    out: Path,
    jobs: int = 1,
    log: Callable[[str], None] = print,
    launch: Launch | None = None,
) -> None:
    """Run the incomplete trials below `out`, `jobs` processes at a time.

    Each trial is a process of its own (`vcreg train`), so that one that fails takes no other with it, and each gets its
    share of the CPU's threads. launch: starts them elsewhere, such as on a cluster. The recipes of all of them are
    written first: a report can say which ones are missing. Interrupting loses at most the running epochs; the same call
    goes on from there.
    With the environment's VCREG_LAUNCHER=accelerate each trial is `accelerate launch` on all GPUs of the machine.
    Errors: UnknownNameError for another launcher; VCRegError naming the trials that failed, so that no table is read as
    complete when it is not; UsageError where a trial's folder holds another recipe's run.
    """
    if _launcher() not in _LAUNCHERS:
        raise unknown_name("VCREG_LAUNCHER", _launcher(), _LAUNCHERS)
    waiting = [trial for trial in todo if not _done(trial, RunDir(out / trial.path))]
    log(f"{len(todo)} runs, {len(todo) - len(waiting)} complete already, {jobs} at a time")
    for trial in waiting:
        write_text(_recipe_file(out, trial), to_json(trial.recipe) + "\n")
    running: list[tuple[Trial, Running, float]] = []
    failed: list[str] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                running.append((trial, _start(trial, out, threads, launch), time.monotonic()))
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


def _outside_modules(value: object) -> list[str]:
    """The modules of the classes from outside the package in a recipe as plain values."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    found = [name for part in inner for name in _outside_modules(part)]
    tag = value.get("type") if isinstance(value, dict) else None
    return sorted({*found, *([tag.partition(":")[0]] if isinstance(tag, str) and ":" in tag else [])})


def _done(trial: Trial, run: RunDir) -> bool:
    """Whether the trial's run is complete. Errors: UsageError when its folder holds another recipe's run."""
    if run.begun() and (there := run.recipe()) != trial.recipe:
        changed = ", ".join(differences(there, trial.recipe))
        raise UsageError(f"{run.path} holds another recipe's run (differs in {changed}); choose another --out")
    return run.complete()


def _recipe_file(out: Path, trial: Trial) -> Path:
    folder = out / trial.path
    return folder.parent / f"{folder.name}{PLANNED}"


def _start(trial: Trial, out: Path, threads: int, launch: Launch | None = None) -> Running:
    folder, recipe = out / trial.path, _recipe_file(out, trial)
    log = folder.parent / f"{folder.name}.log"
    command = [sys.executable, *_LAUNCHERS[_launcher()], "-m", "vcreg_hub", "train", str(recipe)]
    if modules := _outside_modules(to_dict(trial.recipe)):
        # A recipe file imports nothing by itself; this one was written by a process that has.
        command = ["env", f"{TRUSTED_VARIABLE}={','.join(modules)}", *command]
    command += ["--out", str(folder), "--no-bar"]
    if launch is not None:
        return launch(command, log)
    # Whoever sets them knows better.
    environment = {"OMP_NUM_THREADS": str(threads), "VCREG_THREADS": str(threads)} | os.environ
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _launcher() -> str:
    return os.environ.get("VCREG_LAUNCHER", "python")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"see {log}"
