"""Trials on a cluster: submitit with an sbatch, an srun, an sacct and a scancel that stand for Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vcreg_hub.config import Data, Model, Recipe
from vcreg_hub.errors import UsageError, VCRegError
from vcreg_hub.experiments import runner, slurm
from vcreg_hub.experiments.grid import Trial

SBATCH = """#!{python}
import os, subprocess, sys
from pathlib import Path
record = Path(os.environ["RECORD"])
number = 4711 + len(list(record.glob("*.sh")))
(record / f"{{number}}.sh").write_text(Path(sys.argv[1]).read_text())
if os.environ.get("REFUSE"):
    sys.exit("sbatch: error: invalid partition specified: nosuch")
environment = os.environ | {{"SLURM_JOB_ID": str(number), "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}}
job = subprocess.Popen(["bash", sys.argv[1]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       start_new_session=True)
(record / f"{{number}}.pid").write_text(str(job.pid))
print(f"Submitted batch job {{number}}")
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"
SCANCEL = '#!/bin/bash\nkill -- -$(cat "$RECORD/$1.pid")\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder that the cluster's commands note what they were told in."""
    commands, record = tmp_path / "bin", tmp_path / "record"
    commands.mkdir()
    record.mkdir()
    for name, text in (("sbatch", SBATCH.format(python=sys.executable)), ("srun", SRUN), ("sacct", SACCT),
                       ("scancel", SCANCEL)):  # fmt: skip
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(record))
    return record


def finish(job, seconds=120.0):
    until = time.monotonic() + seconds
    while job.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    return job.poll()


def test_a_job_runs_its_command_and_ends_as_it_did(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    queue = slurm.Slurm(tmp_path / "slurm", {"partition": "gpu", "gpus_per_node": "1", "time": "90"})
    told = Path("a b.log")
    good = queue([sys.executable, "-c", "import os; print(os.getcwd()); open('made', 'w')"], told)
    assert finish(good) == 0
    assert Path("made").exists() and told.read_text() == f"{tmp_path}\n"
    script = next(cluster.glob("*.sh")).read_text()
    for line in ("--partition=gpu", "--gpus-per-node=1", "--time=90", "--job-name=vcreg"):
        assert f"#SBATCH {line}\n" in script
    assert finish(queue([sys.executable, "-c", "raise SystemExit('no such data')"], told)) == 1
    assert told.read_text().endswith("no such data\n")


def test_trials_are_submitted_and_a_failed_one_is_named(cluster, tmp_path):
    """The trial's own command, on data that do not exist: the cluster's job says what a local process says."""
    trial = Trial("a", Recipe("r", Model("convnext_atto"), Data("nosuch")))
    queue = slurm.Slurm(tmp_path / "slurm", {})
    said = []
    with pytest.raises(VCRegError, match=r"a/seed0: .*unknown data set 'nosuch'"):
        runner.run_trials([trial], tmp_path / "out", jobs=2, log=said.append, launch=queue)
    assert said[0] == "1 runs, 0 complete already, 2 at a time"
    assert "#SBATCH --time=1440\n" in next(cluster.glob("*.sh")).read_text()


def test_an_interrupted_study_cancels_its_jobs(cluster, tmp_path):
    queue = slurm.Slurm(tmp_path / "slurm", {})
    job = queue([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
    assert job.poll() is None
    job.terminate()
    job.wait()
    pid = int(next(cluster.glob("*.pid")).read_text())
    for _ in range(200):
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            break
        # What was killed is there until its parent, long gone, is succeeded by one that looks.
        state = subprocess.run(["ps", "-o", "stat=", "-g", str(pid)], capture_output=True, text=True).stdout
        if all(line.startswith("Z") for line in state.split()):
            break
        time.sleep(0.1)
    else:
        os.killpg(pid, signal.SIGKILL)
        pytest.fail("the job goes on")


def test_a_preempted_job_is_queued_again_with_the_same_command(tmp_path):
    command = slurm._Command(["vcreg", "train"], tmp_path / "log", tmp_path)
    again = command.checkpoint()
    assert again.function is command and not again.args


def test_what_a_cluster_refuses(cluster, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"--slurm: .*'nosuch'"):
        slurm.Slurm(tmp_path / "slurm", {"nosuch": "1"})
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(VCRegError, match="invalid partition"):
        slurm.Slurm(tmp_path / "slurm", {"partition": "nosuch"})(["true"], tmp_path / "log")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no part of a Slurm cluster"):
        slurm.Slurm(tmp_path / "slurm", {})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"vcreg_hub\[slurm\]"):
        slurm.Slurm(tmp_path / "slurm", {})
