"""The processes of one run, as each of them sees the others: who hangs, who is gone, whether the launcher lives."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from ..config import Recipe, VCReg
from ..errors import PeerError, UsageError, VCRegError, first_line
from ..rundir import RunDir
from ..training.journal import Journal

# How long the others are waited for, in seconds, once a collective has failed: they notice at about the same time.
_ROLL_CALL = 30.0
# What torch says of a collective that a process did not come to, or that lost one.
_LOST = re.compile(r"timed? ?out|connection (was )?(closed|reset|refused)|broken pipe|socket|monitored_?barrier", re.I)


class Peers:
    """The other processes of a run. One alone has none, and then nothing here does anything.

    accelerator: connected. minutes: `train.collective_timeout`.
    """

    def __init__(self, accelerator: Any, minutes: float) -> None:
        self.count, self.rank, self.minutes = accelerator.num_processes, accelerator.process_index, minutes
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._group: Any = None
        if self.count > 1:
            import torch.distributed as dist

            # Of its own, beside that of the training, whose connections a failed collective leaves unusable.
            self._group = dist.new_group(backend="gloo", timeout=timedelta(minutes=minutes))

    def meet(self) -> None:
        """Wait for all, at most as long as a collective may take. Errors: PeerError that names who did not come."""
        if self._group is not None:
            try:
                self._roll_call(60 * self.minutes)
            except RuntimeError as error:
                raise self._error(error) from error

    def orphaned(self) -> bool:
        """Whether the launcher that started this process is gone: nobody would end it with the others any more."""
        return self._launcher is not None and os.getppid() != self._launcher

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A collective of the block that fails because a process hangs or is gone is a PeerError that names it."""
        try:
            yield
        except RuntimeError as error:
            if self._group is None or isinstance(error, VCRegError) or not _LOST.search(str(error)):
                raise
            try:
                self._roll_call(min(_ROLL_CALL, 60 * self.minutes))
            except RuntimeError as found:
                raise self._error(found) from error
            raise PeerError(f"a collective failed though every process answers: {first_line(error)}") from error

    def _roll_call(self, seconds: float) -> None:
        import torch.distributed as dist

        dist.monitored_barrier(self._group, timeout=timedelta(seconds=seconds), wait_all_ranks=True)

    def _error(self, found: RuntimeError) -> PeerError:
        """Of what `monitored_barrier` says: the first process names all that did not come, the others it alone."""
        named = re.search(r"Ranks? ([\d, ]+?) failed to pass", str(found))
        ranks = [int(rank) for rank in named[1].replace(",", " ").split()] if named else []
        missing = ranks or ([0] if self.rank else [])
        who = ", ".join(map(str, missing)) or "unknown"
        return PeerError(
            f"process {who} of {self.count} (from 0) did not come to a collective within {self.minutes:g} minutes "
            "(train.collective_timeout), or is gone: it hangs, was stopped, or was killed. What is saved stays, and "
            "the same command goes on from it"
        )


def refuse_other_shares(recipe: Recipe, folder: RunDir, accelerator: Any, settings: Sequence[str]) -> None:
    """Refuse to go on with another number of processes where each one's share of a batch, which the regularizer sees,
    would be another. settings: of `--continue-with`; one of `vcreg` says that it is meant. Errors: UsageError."""
    from accelerate.utils import broadcast_object_list

    before = _processes_before(folder) if accelerator.is_main_process else None
    before, now = broadcast_object_list([before])[0], accelerator.num_processes
    whole = recipe.vcreg is None or (isinstance(recipe.vcreg, VCReg) and recipe.vcreg.sync)
    if before in (None, now) or whole or any(one.startswith("vcreg") for one in settings):
        return
    size = recipe.train.batch_size // recipe.train.accumulation
    raise UsageError(
        f"{folder.path} was trained by {before} processes and would go on with {now}: the regularizer would see "
        f"{size // now} samples at a time, not {size // before}. Start {before}; or go on with --continue-with "
        "vcreg.sync=true (the samples of all) or vcreg.sync=false (each process's own, knowing that they are others)"
    )


def _processes_before(folder: RunDir) -> int | None:
    """How many processes trained up to the last saved state; None without one."""
    started: int | None = None
    found: int | None = None
    for line in Journal(folder.path).lines("start", "saved"):
        if line["event"] == "start":
            started = int(line["processes"])
        else:
            found = started
    return found
