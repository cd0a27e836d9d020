"""What of a training is saved, when, and how a process goes on from it.

    state/step-000001200.safetensors    one of the two last states, by the steps taken

A state is the end of an epoch, or a place within one. It holds the weights of all that is trained, the optimizer's and
the average's, how far the run is, and for each process what is its own: its random numbers, the sums of the running
epoch, and what others count along (`beside`), such as a regularizer's statistics. So a run that goes on is the run that
was not interrupted, to the bit.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Recipe, differing
from ..errors import RunFolderError, StorageError
from ..files import sha256, write_tensors, write_text
from ..rundir import STATES, RunDir
from .ema import Ema
from .journal import Journal
from .state import load_state, save_state

Row = dict[str, float]

# The former version kept one state, at the end of an epoch, under this name.
_FORMER = "state.safetensors"
# Processes look at one another at most so many steps and about so many seconds apart.
_MEET_STEPS, _MEET_SECONDS = 25, 5.0
# Settings that change no number: a run goes on under other ones.
_FREE = {"train.collective_timeout", "train.save_every"}


class Counting(Protocol):
    """What counts along with a training and is part of its state."""

    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> object: ...


@dataclass
class Progress:
    """How far a run is; part of its state. epoch: whole ones. place: steps taken of the next one. best_sha256: of
    best.safetensors, where it is kept for the end. left_out: steps of the running epoch that are not in its sums."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    rows: list[Row] = field(default_factory=list)
    place: int = 0
    best_sha256: str | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Resumed:
    """A run goes on after `step` steps. state: the file. unusable: why newer ones were not taken, a line each."""

    step: int
    epoch: int
    place: int
    state: str
    unusable: tuple[str, ...]


@dataclass
class Snapshots:
    """The states of a run and the moments to save one. `sums`: of the running epoch, by this process.

    stop: whether this process was asked to stop. beside: what else is saved, by name. wait: for the other processes.
    """

    recipe: Recipe
    folder: RunDir
    accelerator: Any
    module: nn.Module
    ema: Ema | None
    optimizer: Any
    stop: Callable[[], bool] = lambda: False
    beside: Mapping[str, Counting] = field(default_factory=dict)
    wait: Callable[[], None] = lambda: None
    progress: Progress = field(default_factory=Progress)
    sums: dict[str, Tensor] = field(default_factory=dict)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder.path)
        self.steps, self.seconds = self.recipe.train.save_interval
        self._saved_at = self._met_at = time.monotonic()
        self._met_step = self._meets_at = 0
        self._late = False
        self._own: dict[str, Any] | None = None

    # ---- going on ----------------------------------------------------------------------------------------------------

    def resume(self) -> Resumed | None:
        """Take over the newest state that is whole and this run's own; None where the run has none yet.

        Errors: RunFolderError where it has trained and no state of it can be used, or its best weights are lost.
        """
        found: Resumed | None = None
        reason = None
        if self.accelerator.is_main_process:
            try:
                found = self._newest()
            except RunFolderError as error:
                reason = str(error)
        found, reason = _agreed((found, reason))
        if reason is not None:
            raise RunFolderError(reason)
        if found is not None:
            if not self.accelerator.is_main_process:
                self._take(self.folder.path / found.state)
            self._meets_at = self._met_step = self.progress.step
        return found

    def _newest(self) -> Resumed | None:
        unusable: list[str] = []
        paths = self._paths()
        noted = [int(line["step"]) for line in self.journal.lines("saved")]
        trained = bool(noted) or (self.folder.path / "metrics.csv").exists()
        if noted and not any(_step_of(path) == noted[-1] for path in paths):
            unusable.append(f"the state of step {noted[-1]} is missing")
        for path in paths:
            try:
                self._take(path)
            except RunFolderError as error:
                unusable.append(str(error))
                continue
            self._check_best()
            progress = self.progress
            where = str(path.relative_to(self.folder.path))
            return Resumed(progress.step, progress.epoch, progress.place, where, tuple(unusable))
        if not trained and not unusable:
            return None
        raise RunFolderError(
            f"{self.folder.path} was trained before, but no state to go on from can be used: "
            f"{'; '.join(unusable) or f'{STATES}/ is empty'}. Put a copy of its {STATES}/ back, or start over with "
            "--overwrite"
        )

    def _paths(self) -> list[Path]:
        """The states that are there, newest first."""
        folder = self.folder.path / STATES
        numbered = sorted(folder.glob("step-*.safetensors"), reverse=True)
        return [*numbered, *([folder / _FORMER] if (folder / _FORMER).exists() else [])]

    def _take(self, path: Path) -> None:
        """Errors: RunFolderError for a state that is damaged, of another run, or of other shapes."""
        parts = load_state(path)
        self._check_recipe(path, parts.get("recipe"))
        try:
            self.module.load_state_dict(parts["model"])
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": parts["optimizer"]})
            if self.ema is not None:
                self.ema.load_state_dict(parts["ema"])
            if self.accelerator.scaler is not None and parts["scaler"]:
                self.accelerator.scaler.load_state_dict(parts["scaler"])
            self.progress = Progress(**parts["progress"])
            self._take_own(parts.get("processes", []))
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
            raise RunFolderError(f"{path} does not fit what the recipe builds ({reason})") from None

    def _take_own(self, processes: list[dict[str, Any]]) -> None:
        """What each process had of its own. Another number of processes has other shares, so that what they counted is
        averaged, or begins anew."""
        rank = self.accelerator.process_index
        if len(processes) == self.accelerator.num_processes:
            self._own = own = processes[rank]
            if self.ema is not None and own["average"]:
                self.ema.load_state_dict(self.ema.state_dict() | own["average"])
            for name, counting in self.beside.items():
                if name in own["beside"]:
                    counting.load_state_dict(own["beside"][name])
            self.sums = own["sums"]
        elif processes:
            names = processes[0]["sums"]
            self.sums = {name: torch.stack([one["sums"][name] for one in processes]).mean(0) for name in names}

    def _check_recipe(self, path: Path, text: str | None) -> None:
        """Errors: RunFolderError for a state of another recipe, but for what `--continue-with` changed since."""
        if text is None:
            return
        changed = {name for line in self.journal.lines("settings") for name in line.get("changed", {})}
        # As JSON: a field that the state has not is one of a later version, at its default.
        there = json.loads(text)
        here = json.loads((self.folder.path / "recipe.json").read_text(encoding="utf-8"))
        found = [one for one, before, _ in differing(there, here) if before is not None or _has(there, one)]
        others = [one for one in found if one not in changed | _FREE]
        if others:
            raise RunFolderError(f"{path} is the state of another run: its recipe differs in {', '.join(others)}")

    def _check_best(self) -> None:
        """Errors: RunFolderError where the best weights so far, which are to be kept, are not in their file."""
        progress, path = self.progress, self.folder.path / "best.safetensors"
        if self.recipe.train.keep != "best" or progress.best_sha256 is None:
            return
        found = sha256(path) if path.is_file() else None
        # Those of a later epoch, of which no state was saved: it will be trained again, and write them again.
        later = {line["sha256"] for line in self.journal.lines("best") if line["epoch"] > progress.epoch}
        if found == progress.best_sha256 or found in later:
            return
        what = "is gone" if found is None else "is damaged"
        raise RunFolderError(
            f"{path} {what}, which has the weights of epoch {progress.best_epoch}, the best so far: put a copy back, "
            f"go on without it (vcreg train {self.folder.path} --continue-with train.keep=last), or start over with "
            "--overwrite"
        )

    def refuse_full_disk(self) -> None:
        """Errors: StorageError where the disk has no room for what will be saved. The size of an optimizer's state is
        an estimate before its first step: two numbers a parameter, or one of SGD's."""
        if not self.accelerator.is_main_process:
            return
        numbers = 1 if self.recipe.optim.name in ("sgd", "momentum", "nesterov", "lion") else 2
        trained = sum(p.numel() * p.element_size() for p in self.module.parameters() if p.requires_grad)
        whole = _bytes(self.module.state_dict())
        network = _bytes(self.module.get_submodule("network").state_dict())
        average = network if self.ema is not None else 0
        # Three states, while the oldest of them is not yet removed; the last, the best and the kept weights.
        needed = 3 * (whole + average + numbers * trained) + 3 * network
        there = sum(path.stat().st_size for path in self.folder.path.rglob("*.safetensors") if path.is_file())
        self.folder.path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder.path).free
        if free < needed - there:
            raise StorageError(
                f"{self.folder.path} needs about {(needed - there) / 1e9:.2g} GB for states and weights, its disk has "
                f"{free / 1e9:.2g} GB free: make room, or choose another --out"
            )

    def note(self, event: str, **values: Any) -> None:
        """Add a line to the journal, of the first process alone."""
        if self.accelerator.is_main_process:
            self.journal.append(event, **values)

    def begin_epoch(self, device: torch.device) -> tuple[dict[str, Tensor], int]:
        """The sums and the steps of the epoch that begins or goes on. Random numbers are those of its beginning, or of
        the place in it."""
        progress = self.progress
        _seed(self.recipe.train.seed, progress.epoch, self.accelerator.process_index)
        if not progress.place:
            return {}, 0
        if self._own is not None:
            _set_random_state(self._own["random"], device)
        sums, self._own = {name: value.to(device) for name, value in self.sums.items()}, None
        return sums, progress.place

    # ---- moments -----------------------------------------------------------------------------------------------------

    def meets(self) -> bool:
        """Whether the processes look at one another at this step, the same one for all."""
        alone = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu"
        return alone or self.progress.step >= self._meets_at

    def meet(self, bad: Tensor) -> int:
        """1 + the step at which any process met a loss that is not finite, or 0; whether any is asked to stop or finds
        a state due is known from here on. Every process must call it."""
        now, progress = time.monotonic(), self.progress
        each = (now - self._met_at) / max(1, progress.step - self._met_step)
        self._look(now)
        if self.accelerator.num_processes > 1:
            self.wait()
            mine = torch.tensor([float(self.stopping), float(self._late), each], device=bad.device)
            found = self.accelerator.reduce(torch.cat([bad[None].double(), mine.double()])[None], "max")[0].tolist()
            step, self.stopping, self._late, each = int(found[0]), bool(found[1]), bool(found[2]), found[3]
        else:
            step = int(bad)
        self._met_at, self._met_step = now, progress.step
        self._meets_at = progress.step + min(_MEET_STEPS, max(1, int(_MEET_SECONDS / max(each, 1e-6))))
        return step

    def _look(self, now: float) -> None:
        self.stopping = self.stopping or self.stop()
        self._late = self.seconds is not None and now - self._saved_at >= self.seconds

    def due(self) -> bool:
        """Whether a state is to be saved after this step, the same for every process."""
        if self.accelerator.num_processes == 1:
            self._look(time.monotonic())
        return self.stopping or self._late or (self.steps is not None and self.progress.step % self.steps == 0)

    # ---- saving ------------------------------------------------------------------------------------------------------

    def save_within(self, place: int, sums: dict[str, Tensor], elapsed: float) -> None:
        """Save a place within the running epoch. elapsed: seconds of it, by this process."""
        now = vars(self.progress) | {"place": place, "seconds": self.progress.seconds + elapsed}
        self._save(now, sums)

    def save(self, final: nn.Module, row: Row) -> bool:
        """Write the evaluated weights, the best ones, the table, and last of all the state that says so; whether these
        are the best."""
        progress, task, path = self.progress, self.recipe.task, self.folder.path
        progress.place = 0
        value = row.get(task.monitor)
        improved = value is not None and _better(value, progress.best, task.lower_is_better)
        if improved:
            progress.best, progress.best_epoch = value, progress.epoch
        if self.accelerator.is_main_process:
            write_tensors(path / "last.safetensors", final.state_dict())
            if improved:
                keep = self.recipe.train.keep == "best"
                write_tensors(path / "best.safetensors", final.state_dict(), durable=keep,
                              finish=self._note_best if keep else lambda part: None)  # fmt: skip
            write_text(path / "metrics.csv", _csv(progress.rows))
        self._save(vars(progress), {})
        return improved

    def _note_best(self, part: Path) -> None:
        # Before the file has its name, so that one from after the last state is known for what it is.
        self.progress.best_sha256 = sha256(part)
        self.journal.append("best", epoch=self.progress.epoch, sha256=self.progress.best_sha256)

    def _save(self, progress: dict[str, Any], sums: dict[str, Tensor]) -> None:
        from accelerate.utils import gather_object

        device = self.accelerator.device
        several = self.accelerator.num_processes > 1
        own = {
            "random": _random_state(device),
            "sums": {name: value.detach().cpu() for name, value in sums.items()},
            # Of a layer's running statistics each process averages its own.
            "average": {n: b.cpu() for n, b in self.ema.buffers().items()} if several and self.ema is not None else {},
            "beside": {name: _on_cpu(counting.state_dict()) for name, counting in self.beside.items()},
        }
        processes = gather_object([own]) if several else [own]
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            recipe = self.folder.path / "recipe.json"
            parts = {
                "recipe": recipe.read_text(encoding="utf-8") if recipe.exists() else None,
                "model": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict()["state"],
                "ema": None if self.ema is None else self.ema.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "progress": progress,
                "processes": processes,
            }
            step = int(progress["step"])
            newest = self.folder.path / STATES / f"step-{step:09d}.safetensors"
            save_state(newest, parts)
            self.journal.append("saved", step=step)
            paths = self._paths()
            for old in [path for path in paths if _step_of(path) > step] + paths[paths.index(newest) + 2 :]:
                old.unlink(missing_ok=True)
        self._saved_at, self._late = time.monotonic(), False
        self.accelerator.wait_for_everyone()


def _step_of(path: Path) -> int:
    number = path.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _has(recipe: Any, path: str) -> bool:
    """Whether the JSON of a recipe has a field."""
    for name in path.split("."):
        if not isinstance(recipe, dict):
            return True
        if name not in recipe:
            return False
        recipe = recipe[name]
    return True


def _better(value: float, best: float | None, lower: bool) -> bool:
    return best is None or (value < best if lower else value > best)


def _agreed(value: Any) -> Any:
    """The first process's value."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: _on_cpu(part) for name, part in value.items()}
    return [_on_cpu(part) for part in value] if isinstance(value, (list, tuple)) else value


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Dropout, stochastic depth and mixup of an epoch; spread so that no two (seed, epoch, rank) are neighbours."""
    from accelerate.utils import set_seed

    mixed = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)
    set_seed(int(torch.randint(2**31 - 1, (1,), generator=mixed)))


def _random_state(device: torch.device) -> dict[str, Any]:
    """The random numbers to come: Python's, NumPy's, torch's on the CPU and on the device."""
    version, words, gauss = random.getstate()
    numbers = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": numbers
        | {"state": numbers["state"] | {"key": torch.from_numpy(numbers["state"]["key"].astype("i8"))}},
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numbers = state["numpy"]
    np.random.set_state(numbers | {"state": numbers["state"] | {"key": numbers["state"]["key"].numpy().astype("u4")}})
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """The random numbers after the block are those that would have come without it."""
    state = _random_state(device)
    try:
        yield
    finally:
        _set_random_state(state, device)


def _csv(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
