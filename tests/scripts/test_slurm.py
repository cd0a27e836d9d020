"""The Slurm scripts, run as batch scripts with an `srun` and a `scontrol` that stand for a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "slurm"
# What Slurm sets in the batch shell of a job on `nodes` nodes with 8 GPUs each.
JOB = {"SLURM_JOB_ID": "4711", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "64"}
TRAIN = ["hmdb51:videomae_base_vcreg", "--out", "runs/a b", "--set", "data.root=data/[x] #1"]

# A task on every node, at the same time; signals go to all of them, as with the real one.
SRUN = """#!{python}
import os, signal, subprocess, sys
words = sys.argv[1:]
options = [words.pop(0) for _ in list(words) if words[0].startswith("-")]
with open(os.environ["RECORD"] + "/srun", "a") as file:
    file.write(" ".join(options) + "\\n")
nodes = int(os.environ["SLURM_NNODES"])
tasks = [subprocess.Popen(words, env=os.environ | {{"SLURM_NODEID": str(node)}}) for node in range(nodes)]
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: [task.send_signal(number) for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "$RECORD/scontrol"
[ "$1" = show ] && printf '127.0.0.1\\nnode-2\\n'
exit 0
"""
# Stands for Python: writes down how it was called on this node.
LAUNCHER = """#!{python}
import json, os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(int(os.environ.get("STOPS", "75"))))
names = ("SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK", "VCREG_GRACE")
call = {{"words": sys.argv[1:], "env": {{name: os.environ.get(name) for name in names}}}}
with open(os.environ["RECORD"] + "/node" + os.environ["SLURM_NODEID"], "w") as file:
    json.dump(call, file)
time.sleep(float(os.environ.get("BUSY", "0")))
sys.exit(int(os.environ.get("FAILS", "0")))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch shell; RECORD is the folder of what happened."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("launcher", LAUNCHER)):
        (programs / name).write_text(text.format(python=sys.executable) if "{python}" in text else text)
        (programs / name).chmod(0o755)
    return JOB | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RECORD": str(tmp_path),
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "VCREG_PYTHON": str(programs / "launcher"),
    }


def nodes_of(script: str) -> int:
    return 2 if script == "several_nodes" else 1


def batch(script: str, cluster: dict[str, str], *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    """The batch shell, started; it writes to the file `log`."""
    environment = cluster | {"SLURM_NNODES": str(nodes_of(script))} | more
    with open(Path(cluster["RECORD"]) / "log", "wb") as log:
        return subprocess.Popen(
            [str(SCRIPTS / script), *arguments],
            env=environment, cwd=cluster["RECORD"], stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def logged(cluster: dict[str, str]) -> str:
    return (Path(cluster["RECORD"]) / "log").read_text()


def called(cluster: dict[str, str], node: int) -> dict:
    return json.loads((Path(cluster["RECORD"]) / f"node{node}").read_text())


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_syntax(script: str) -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPTS / script)]).returncode == 0
    if shellcheck := shutil.which("shellcheck"):
        assert subprocess.run([shellcheck, str(SCRIPTS / script)]).returncode == 0
    text = (SCRIPTS / script).read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, flags=re.M))
    assert asked["gpus-per-node"] == "8" and asked["ntasks-per-node"] == "1" and asked["signal"] == "B:USR1@300"
    assert int(asked["nodes"]) == nodes_of(script) and "#SBATCH --requeue" in text


def test_one_node_starts_eight_processes(cluster: dict[str, str]) -> None:
    job = batch("one_node", cluster, *TRAIN)
    assert job.wait() == 0, logged(cluster)
    words = called(cluster, 0)["words"]
    launcher = ["-m", "vcreg_hub.run.launch", "--standalone", "--nproc-per-node", "8", "-m", "vcreg_hub", "train"]
    assert words == [*launcher, *TRAIN, "--no-bar"]
    assert called(cluster, 0)["env"]["SRUN_CPUS_PER_TASK"] == "64" and called(cluster, 0)["env"]["VCREG_GRACE"] == "240"
    assert not (Path(cluster["RECORD"]) / "scontrol").exists()


def test_several_nodes_have_ranks_and_one_meeting_place(cluster: dict[str, str]) -> None:
    job = batch("several_nodes", cluster, *TRAIN)
    assert job.wait() == 0, logged(cluster)
    for node in (0, 1):
        call = called(cluster, node)
        options = dict(zip(call["words"][2:12:2], call["words"][3:12:2]))
        assert options == {
            "--nnodes": "2",
            "--node-rank": str(node),
            "--nproc-per-node": "8",
            "--master-addr": "127.0.0.1",
            "--master-port": "24711",
        }
        assert call["words"][12:] == ["-m", "vcreg_hub", "train", *TRAIN, "--no-bar"]
    assert (Path(cluster["RECORD"]) / "scontrol").read_text() == "show hostnames node-[1-2]\n"
    assert "--ntasks=2 --ntasks-per-node=1" in (Path(cluster["RECORD"]) / "srun").read_text()


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_failure_is_the_job_s(script: str, cluster: dict[str, str]) -> None:
    assert batch(script, cluster, *TRAIN, FAILS="3").wait() == 3
    without = batch(script, cluster, *TRAIN[:1])
    assert without.wait() == 2 and "--out is missing" in logged(cluster)
    outside = batch(script, {k: v for k, v in cluster.items() if k != "SLURM_JOB_ID"}, *TRAIN)
    assert outside.wait() != 0 and "sbatch" in logged(cluster)


@pytest.mark.parametrize("stops", ["75", "1"])
@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_training_that_saved_its_state_is_queued_again(script: str, stops: str, cluster: dict[str, str]) -> None:
    job = batch(script, cluster, *TRAIN, BUSY="60", STOPS=stops)
    record = Path(cluster["RECORD"])
    deadline = time.monotonic() + 30
    while not all((record / f"node{n}").exists() for n in range(nodes_of(script))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # the batch shell is waiting by now
    job.send_signal(signal.SIGUSR1)
    if stops != "75":
        assert job.wait(timeout=30) == 1 and "back into the queue" not in logged(cluster)
        return
    assert job.wait(timeout=30) == 0
    assert "back into the queue" in logged(cluster)
    assert (record / "scontrol").read_text().splitlines()[-1] == "requeue 4711"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_train_one_model(cluster: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    small = ["model.name=test_convnext", "train.epochs=2", "data.train_images=64", "optim.warmup_epochs=0"]
    settings = [word for setting in small for word in ("--set", setting)]
    job = batch(
        "several_nodes", cluster, "digits:convnext_atto_vcreg", "--out", "runs/a", *settings,
        VCREG_PYTHON=sys.executable, SLURM_GPUS_ON_NODE="1", MASTER_PORT=port, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert job.wait() == 0, logged(cluster)
    assert logged(cluster).count("processes: 2") == 1
    run = Path(cluster["RECORD"]) / "runs" / "a"
    assert json.loads((run / "env.json").read_text())["processes"] == 2
