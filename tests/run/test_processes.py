"""Several processes of one run: one that hangs is named, a killed one costs nothing that is saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vcreg_hub.config import override, to_json
from vcreg_hub.errors import ConfigError, UsageError
from vcreg_hub.recipes import load_recipe
from vcreg_hub.run import train
from vcreg_hub.run.processes import _processes_before
from vcreg_hub.rundir import RunDir
from vcreg_hub.training.journal import Journal

# Long enough that somebody is always killed in the middle of it. A state every step.
LONG = override(
    load_recipe("digits:convnext_atto_vcreg"),
    ["model.name=test_convnext", "data.image_size=32", "data.train_images=64", "data.workers=0", "train.batch_size=16",
     "train.epochs=5000", "train.precision=no", "train.min_steps=null", "optim.warmup_epochs=0", "evals=[]",
     "train.save_every=1", "train.collective_timeout=0.1"],
)  # fmt: skip


def pids_of(launcher: int) -> list[int]:
    """The processes that a launcher started, by their rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = next(line for line in path.read_text().splitlines() if line.startswith("PPid:"))
            names = dict(
                part.split("=", 1) for part in (path.parent / "environ").read_text().split("\0") if "=" in part
            )
        except OSError:
            continue
        if int(parent.split()[1]) == launcher and "RANK" in names:
            found[int(names["RANK"])] = int(path.parent.name)
    return [found[rank] for rank in sorted(found)]


class Running:
    """Two processes of a run that are in the middle of it."""

    def __init__(self, folder: Path) -> None:
        (folder / "recipe.json").write_text(to_json(LONG))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                   "vcreg_hub", "train", str(folder / "recipe.json"), "--out", str(folder / "run")]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.out, self.said = folder / "run", folder / "said.txt"
        with open(self.said, "w") as said:
            self.launcher = subprocess.Popen(command, stdout=said, stderr=said, env=environment, cwd=folder)
        self.waited(lambda: len(self.saved()) >= 3, 120)
        self.pids = pids_of(self.launcher.pid)
        assert len(self.pids) == 2

    def saved(self) -> list[int]:
        return [line["step"] for line in Journal(self.out).lines("saved")]

    def waited(self, done, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end and (self.launcher.poll() is None or done()), self.said.read_text()[-3000:]
            time.sleep(0.1)

    def alive(self) -> list[int]:
        def runs(pid: int) -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                return False

        return [pid for pid in self.pids if runs(pid)]

    def end(self) -> None:
        for pid in (self.launcher.pid, *self.pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.launcher.wait(30)


@pytest.fixture
def running(tmp_path):
    run = Running(tmp_path)
    yield run
    run.end()


def goes_on(out: Path) -> None:
    """The last state is whole, and a run of two steps more is trained from it."""
    step = Journal(out).lines("saved")[-1]["step"]
    lines = []
    settings = [f"train.epochs={step // 4 + 1}", "vcreg.sync=true"]
    folder = train(LONG, out, log=lines.append, continue_with=settings)
    assert any(f"resumed at step {step}" in line or f"step {step}" in line for line in lines), lines[:5]
    sessions = folder.results()["sessions"]
    assert [one["processes"] for one in sessions] == [2, 1], "another number of processes is recorded"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named(running, rank):
    """It is stopped, not killed: without a limit its peer would wait for it in silence."""
    os.kill(running.pids[rank], signal.SIGSTOP)
    running.waited(lambda: f"process {rank} of 2 (from 0) did not come" in running.said.read_text(), 60)
    assert "train.collective_timeout" in running.said.read_text()
    running.waited(lambda: running.pids[1 - rank] not in running.alive(), 60)


def test_a_killed_rank_is_named_and_the_run_goes_on_from_its_last_state(running):
    os.kill(running.pids[1], signal.SIGKILL)
    running.waited(lambda: running.launcher.poll() is not None, 90)
    assert running.launcher.returncode != 0 and not running.alive()
    goes_on(running.out)


def test_a_killed_launcher_leaves_no_process_and_the_run_goes_on_from_its_last_state(running):
    running.launcher.kill()
    running.launcher.wait(30)
    end = time.monotonic() + 60
    while running.alive() and time.monotonic() < end:
        time.sleep(0.2)
    assert not running.alive(), "processes without a launcher train on"
    assert "the launcher is gone" in running.said.read_text()
    goes_on(running.out)


def begun_by(folder: Path, processes: int) -> Path:
    """A run of one process with a state, whose journal says how many there were."""
    out = folder / "run"

    def stopped(line: str) -> None:
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(override(LONG, ["train.epochs=2"]), out, log=stopped)
    journal = out / "progress.jsonl"
    journal.write_text(journal.read_text().replace('"processes": 1', f'"processes": {processes}'))
    return out


def test_another_number_of_processes_is_refused_where_the_regularizer_would_change(tmp_path):
    out, recipe = begun_by(tmp_path, 2), override(LONG, ["train.epochs=2"])
    assert _processes_before(RunDir(out)) == 2
    before = sorted((path.name, path.read_bytes()) for path in out.glob("state/*"))
    with pytest.raises(UsageError, match=r"by 2 processes.* with 1: .* 16 samples at a time, not 8\..*vcreg.sync=true"):
        train(recipe, out, log=lambda line: None)
    with pytest.raises(UsageError, match="by 2 processes"):
        train(recipe, out, log=lambda line: None, continue_with=["optim.lr=0.001"])
    assert sorted((path.name, path.read_bytes()) for path in out.glob("state/*")) == before
    folder = train(recipe, out, log=lambda line: None, continue_with=["vcreg.sync=false"])
    assert [one["processes"] for one in folder.results()["sessions"]][-1] == 1


@pytest.mark.parametrize("setting", ["vcreg=null", "vcreg.sync=true"])
def test_another_number_of_processes_is_recorded_where_it_changes_nothing(tmp_path, setting, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LONG", override(LONG, [setting]))
    out = begun_by(tmp_path, 2)
    folder = train(override(LONG, ["train.epochs=2"]), out, log=lambda line: None)
    assert [one["processes"] for one in folder.results()["sessions"]] == [2, 1]


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_cannot_be_had_is_an_error(tmp_path, monkeypatch, name):
    """accelerate trains one unsharded process on a CPU without a word."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    if name == "FSDP":
        monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ConfigError, match=f"asks for {name}, but on a CPU accelerate has none"):
        train(LONG, tmp_path / "run", log=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_the_limit_is_no_part_of_what_a_run_is():
    assert override(LONG, ["train.collective_timeout=3"]) == LONG
    assert json.loads(to_json(LONG))["train"]["collective_timeout"] == 0.1
