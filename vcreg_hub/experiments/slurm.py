"""Submits trainings to a Slurm cluster through submitit, one job each.

submitit keeps a job's command and its outcome as pickles of its own, below the folder it is given. Nothing else reads
them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError, VCRegError

# Minutes of a job, where nobody says: submitit's own default is 5.
_MINUTES = 24 * 60


class Slurm:
    """A cluster's queue; called with a command and a file for its output, submits it.

    folder: of submitit's files, on a disk that all nodes see. settings: sbatch's, as submitit names them, such as
    {"partition": "gpu", "gpus_per_node": "1", "time": "600"}, the time in minutes. Errors: UsageError without submitit,
    where there is no Slurm, or for a setting that submitit does not have.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError("--launcher slurm needs submitit: pip install 'vcreg_hub[slurm]'") from None
        given = {name: int(value) if value.isdecimal() else value for name, value in settings.items()}
        try:
            self.executor = submitit.SlurmExecutor(folder=folder)
        except RuntimeError as error:
            raise UsageError(f"--launcher slurm: this machine is no part of a Slurm cluster ({error})") from None
        try:
            self.executor.update_parameters(**{"time": _MINUTES, "job_name": "vcreg", **given})
        except (ValueError, TypeError) as error:
            raise UsageError(f"--slurm: {error}") from None

    def __call__(self, command: list[str], log: Path) -> _Job:
        """Submits a command. Errors: VCRegError with the words of `sbatch`."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return _Job(self.executor.submit(_Command(command, log.absolute(), Path.cwd())))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise VCRegError(f"sbatch refused the job: {error}") from error


class _Job:
    """A submitted job under the face of `subprocess.Popen`."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """None until it ends, then 0 or 1."""
        if self.returncode is None and self.job.done():
            self.returncode = int(self.job.exception() is not None)
        return self.returncode

    def terminate(self) -> None:
        self.job.cancel(check=False)

    def wait(self) -> None:
        """Nothing: the cluster ends a cancelled job by itself."""


class _Command:
    """What a job does. A job that is preempted or out of time is queued again, and its training goes on."""

    def __init__(self, command: list[str], log: Path, folder: Path) -> None:
        self.command, self.log, self.folder = command, log, folder

    def __call__(self) -> None:
        with open(self.log, "ab") as output:
            subprocess.run(self.command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, check=True)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
