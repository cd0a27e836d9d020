"""A run that is interrupted anywhere and goes on is the run that was not: weights, metrics, statistics, to the bit."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from vcreg_hub.config import Data, Model, Optim, Recipe, Train, override, to_json
from vcreg_hub.errors import ConfigError, DivergedError, RunFolderError, StoppedError, StorageError, UsageError
from vcreg_hub.evals.classification import Classification
from vcreg_hub.files import write_tensors
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import train
from vcreg_hub.rundir import RunDir
from vcreg_hub.training import state
from vcreg_hub.training.journal import Journal
from vcreg_hub.training.state import load_state, save_state

# 3 epochs of 4 steps.
TINY = Recipe(
    name="tiny",
    model=Model("test_convnext", kwargs={"drop_path_rate": 0.1}),
    data=Data("digits", labels="superclass", val_fraction=0.2, train_images=128, image_size=32, crop="pad",
              hflip=0.0, workers=0),
    optim=Optim(lr=2e-3, warmup_epochs=1),
    train=Train(epochs=3, batch_size=32, mixup=0.2, cutmix=1.0, label_smoothing=0.1, ema_decay=0.9, keep="best"),
    evals=(Classification(),),
    vcreg=VCReg(),
)  # fmt: skip
# Of batch normalisation, which has running statistics, and dropout; small images are enough.
BATCHNORM = ("model.name=test_resnet", 'model.kwargs={"drop_rate": 0.2}')
VARIANTS = {
    "mixup, average, drop path": (),
    "accumulation, workers": ("train.accumulation=2", "data.workers=2"),
    "repeated augmentation": ("data.repeats=2", "data.train_images=256", "train.accumulation=2"),
    "batch normalisation, dropout": (*BATCHNORM, "train.ema_decay=null"),
    "stochastic gradient descent, a schedule a step": ("optim.name=momentum", "optim.schedule_per=step",
                                                       "train.clip_norm=1.0", "train.precision=bf16"),
    "groups of classes": ("data.labels=class", "train.class_groups=2", "train.epochs=4", "task=incremental",
                          "task.ewc=10", "task.lwf=1", "train.mixup=0", "train.cutmix=0", "evals=incremental",
                          "evals.incremental.groups=2", "data.train_images=256", "train.keep=last"),
}  # fmt: skip


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


class Interrupt(Exception):
    """Stands for a kill at a chosen place."""


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, what: object) -> None:
    """In the `step`th forward pass of training from now on, a signal arrives, or an exception is raised."""
    from vcreg_hub.tasks.task import TaskModule

    call, seen = TaskModule.forward, []

    def counted(self, batch):
        seen.extend([1] * torch.is_grad_enabled())
        if len(seen) == step and torch.is_grad_enabled():
            if isinstance(what, signal.Signals):
                os.kill(os.getpid(), what)
            else:
                raise what
        return call(self, batch)

    monkeypatch.setattr(TaskModule, "forward", counted)


def interrupted(recipe: Recipe, out: Path, *stops: tuple[int, object]) -> RunDir:
    """The run, interrupted at each of the forward passes of a process of its own, and brought to its end."""
    for step, what in stops:
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, step, what)
            with pytest.raises((StoppedError, Interrupt)):
                train(recipe, out, log=quiet)
        assert not RunDir(out).complete()
    return train(recipe, out, log=quiet)


def table(folder: RunDir) -> list[dict[str, str]]:
    """The rows of metrics.csv without what a clock says."""
    rows = csv.DictReader((folder.path / "metrics.csv").read_text().splitlines())
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")} for row in rows
    ]


def assert_same(one: RunDir, other: RunDir) -> None:
    weights, others = one.tensors(), other.tensors()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert table(one) == table(other)
    mine, theirs = one.results(), other.results()
    assert mine["metrics"] == theirs["metrics"]
    assert mine["regularizer"] == theirs["regularizer"], "backwards and statistics of every site"
    for name in ("epochs", "steps", "selected", "start_sha256"):
        assert mine["training"][name] == theirs["training"][name]


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_twice_in_the_middle_of_epochs_and_resumed_to_the_bit(tmp_path, variant):
    recipe = override(TINY, [*VARIANTS[variant], "train.save_every=null"])
    whole = train(recipe, tmp_path / "whole", log=quiet)
    passes = recipe.train.accumulation
    resumed = interrupted(
        recipe, tmp_path / "run", (2 * passes + 1, signal.SIGUSR1), (3 * passes, signal.SIGTERM)
    )  # after step 3 of the first epoch, and after step 2 of the second
    assert_same(whole, resumed)
    assert [one["step"] for one in resumed.results()["sessions"]] == [0, 3, 6]


# ---- states within an epoch, damaged ones, lost ones -----------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    return train(TINY, tmp_path_factory.mktemp("whole") / "run", log=quiet)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A run that was killed in step 7; the states after steps 5 and 6 are there."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 7, Interrupt())
        with pytest.raises(Interrupt):
            train(override(TINY, ["train.save_every=1"]), out, log=quiet)
    assert states(out) == ["step-000000005.safetensors", "step-000000006.safetensors"]
    return out


def states(out: Path) -> list[str]:
    return sorted(os.listdir(out / "state"))


def going_on(out: Path, recipe: Recipe = TINY) -> list[str]:
    """The lines of a run up to the one that says where it goes on; there it is interrupted."""
    lines: list[str] = []

    def log(text: str) -> None:
        lines.append(text)
        if text.startswith("resumed at"):
            raise Interrupt

    with pytest.raises(Interrupt):
        train(recipe, out, log=log)
    return [line for line in lines if line.startswith(("resumed", "not usable"))]


def test_a_kill_between_two_states_loses_the_steps_after_the_last_one(tmp_path, whole, killed):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    lines = []
    resumed = train(TINY, out, log=lines.append)  # how often states are saved is no other recipe
    assert f"resumed at step 6, 2 steps into epoch 2, from {out / 'state/step-000000006.safetensors'}" in lines
    assert_same(whole, resumed)
    assert not (out / "state").exists()


def flipped(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def misshapen(path: Path) -> None:
    parts = load_state(path)
    name = next(iter(parts["model"]))
    parts["model"][name] = torch.zeros(1, 2, 3)
    save_state(path, parts)


def of_another_run(path: Path) -> None:
    parts = load_state(path)
    parts["recipe"] = to_json(override(TINY, ["train.seed=1", "train.save_every=1"]))
    save_state(path, parts)


def linked_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "a link to nothing": (linked_to_nothing, "is missing, or a link to nothing"),
    "a folder": (a_folder, "is damaged"),
    "a bit in the header": (lambda path: flipped(path, 0.001), "damaged"),
    "a bit in the middle": (lambda path: flipped(path, 0.5), "damaged"),
    "the last bit": (lambda path: flipped(path, 0.9999999), "damaged"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:-100_000]), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "no safetensors": (lambda path: path.write_bytes(b"\x80\x04pickle" * 100), "damaged"),
    "missing": (lambda path: path.unlink(), "the state of step 6 is missing"),
    "weights alone": (lambda path: save_file({"a": torch.zeros(2)}, path), "not a training state"),
    "of other shapes": (misshapen, "does not fit"),
    "of another run": (of_another_run, "the state of another run: its recipe differs in train.seed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unusable_state_is_said_and_the_one_before_it_used(tmp_path, killed, damage):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    harm, told = DAMAGES[damage]
    harm(out / "state" / "step-000000006.safetensors")
    said, resumed = going_on(out)
    assert said.startswith("not usable: ") and told in said and "\n" not in said
    assert resumed.startswith("resumed at step 5, 1 steps into epoch 2")


def test_what_follows_an_unusable_state_is_the_uninterrupted_run(tmp_path, whole, killed):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    flipped(out / "state" / "step-000000006.safetensors", 0.5)
    assert_same(whole, train(TINY, out, log=quiet))


@pytest.mark.parametrize("damage", ["a bit in the middle", "missing"])
def test_no_usable_state_is_refused_not_begun_anew(tmp_path, killed, damage):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    for path in (out / "state").iterdir():
        DAMAGES[damage][0](path)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    recipe = RunDir(out).recipe()
    with pytest.raises(RunFolderError, match="was trained before, but no state to go on from can be used") as error:
        train(recipe, out, log=quiet)
    assert "\n" not in str(error.value) and "--overwrite" in str(error.value)
    assert all(path.read_bytes() == content for path, content in before.items())
    shutil.rmtree(out / "state")
    with pytest.raises(RunFolderError, match="no state to go on from"):
        train(recipe, out, log=quiet)
    if damage == "missing":
        assert train(recipe, out, log=quiet, overwrite=True).complete()


def test_a_state_of_the_former_format_is_gone_on_from(tmp_path, whole):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, Interrupt())
        with pytest.raises(Interrupt):
            train(TINY, out, log=quiet)
    parts = load_state(out / "state" / states(out)[0])
    own = {name: value for name, value in parts["progress"].items() if name not in ("place", "best_sha256")}
    former = {name: parts[name] for name in ("model", "optimizer", "ema", "scaler")} | {"progress": own}
    shutil.rmtree(out / "state")
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps({"format": 2, "parts": state._split(former, "", tensors)})
    write_tensors(out / "state" / "state.safetensors", tensors, {"vcreg_state": text})
    (out / "progress.jsonl").unlink()
    resumed = train(TINY, out, log=quiet)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name])


def test_seen_samples_are_skipped_not_read(tmp_path, killed, monkeypatch):
    from vcreg_hub.data.image.batches import _TrainViews

    read, call = [], _TrainViews.__getitem__
    monkeypatch.setattr(_TrainViews, "__getitem__", lambda self, item: read.append(item) or call(self, item))
    train(TINY, Path(shutil.copytree(killed, tmp_path / "run")), log=quiet)
    assert len(read) == (12 - 6) * 32


def test_minutes_are_a_clock_s(tmp_path, monkeypatch):
    """An hour passes at each look at the clock: a state after every step."""
    hours = iter(range(0, 10**9, 3600))
    from vcreg_hub.training import snapshots

    monkeypatch.setattr(snapshots, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    at_step(monkeypatch, 4, Interrupt())
    with pytest.raises(Interrupt):
        train(override(TINY, ["train.save_every=10m"]), tmp_path / "run", log=quiet)
    assert states(tmp_path / "run") == ["step-000000002.safetensors", "step-000000003.safetensors"]
    with pytest.raises(ConfigError, match="minutes such as 10m"):
        override(TINY, ["train.save_every=often"])
    for nonsense in ("0", "-3", "0m"):
        with pytest.raises(ConfigError, match="save_every"):
            override(TINY, [f"train.save_every={nonsense}"])


def test_lost_best_weights_are_noticed_at_once(tmp_path, killed):
    for harm in (Path.unlink, lambda path: flipped(path, 0.5)):
        out = Path(shutil.copytree(killed, tmp_path / f"run{len(os.listdir(tmp_path))}"))
        harm(out / "best.safetensors")
        with pytest.raises(RunFolderError, match=r"best.safetensors is .*epoch 1.*--continue-with train.keep=last"):
            train(TINY, out, log=quiet)
    # The cure that it names.
    lines = []
    cured = train(out, log=lines.append, continue_with=["train.keep=last"])
    assert cured.complete() and any(line.startswith("resumed at step 6") for line in lines)
    assert cured.results()["training"]["selected"] == "last epoch"


def test_best_weights_of_an_epoch_without_a_state_are_written_again(tmp_path, whole, monkeypatch):
    """A kill between the writing of best.safetensors and that of the state."""
    from vcreg_hub.training import snapshots

    out, saves = tmp_path / "run", []

    def killed(path, parts):
        saves.append(path)
        if len(saves) == 2:
            raise Interrupt
        save_state(path, parts)

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "save_state", killed)
        with pytest.raises(Interrupt):
            train(TINY, out, log=quiet)
    assert_same(whole, train(TINY, out, log=quiet))


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_kill_in_the_first_write_of_the_recipe_leaves_a_usable_folder(tmp_path):
    killed = """
        import os, signal, tempfile
        from pathlib import Path
        from vcreg_hub import files
        files.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
        from vcreg_hub.config import from_json
        from vcreg_hub.run import train
        train(from_json(Path("tiny.json").read_text()), "run")
    """
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(killed)], cwd=tmp_path, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path / "run")
    assert len(left) == 1 and left[0].startswith(".recipe.json.") and left[0].endswith(".part")
    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"])
    assert train(short, tmp_path / "run", log=quiet).complete()
    assert left[0] not in os.listdir(tmp_path / "run")


def test_left_over_parts_are_swept_by_the_next_run_and_by_overwrite(tmp_path, killed):
    for overwrite in (False, True):
        out = Path(shutil.copytree(killed, tmp_path / f"run{overwrite}"))
        parts = [out / ".last.safetensors.ab12cd_9.part", out / "state" / ".step-000000007.safetensors.00000000.part"]
        mine = [out / ".notes.part", out / ".thesis.tex.abcdefgh.part"]
        for path in (*parts, *mine):
            path.write_bytes(b"half")
        assert train(TINY, out, log=quiet, overwrite=overwrite).complete()
        assert not any(path.exists() for path in parts) and all(path.exists() for path in mine)


def test_a_damaged_recipe_below_runs_is_in_nobody_s_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "runs" / "20260101-000000-tiny"
    broken.mkdir(parents=True)
    (broken / "recipe.json").write_text('{"name": "ti')
    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"])
    assert train(short, log=quiet).path.resolve() != broken
    # And in that folder itself nothing was trained: the recipe is written anew.
    assert train(short, broken, log=quiet).complete()


# ---- the record ------------------------------------------------------------------------------------------------------


def journal(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_the_record_lists_restarts_signals_processes_and_threads(tmp_path):
    run = interrupted(TINY, tmp_path / "run", (2, signal.SIGUSR1), (3, Interrupt()), (1, signal.SIGTERM))
    threads = torch.get_num_threads()
    assert run.results()["sessions"] == [
        {"step": 0, "processes": 1, "threads": threads, "signal": {"name": "SIGUSR1", "after_step": 2}},
        {"step": 2, "processes": 1, "threads": threads},
        {"step": 4, "processes": 1, "threads": threads, "signal": {"name": "SIGTERM", "after_step": 5}},
        {"step": 5, "processes": 1, "threads": threads},
    ]
    events = [json.loads(line)["event"] for line in (run.path / "progress.jsonl").read_text().splitlines()]
    assert events[0] == "start" and events[-2:] == ["measuring", "end"]


def test_a_heartbeat_tells_step_loss_rate_and_time_left(tmp_path, monkeypatch):
    """On a clock where a step takes 40 seconds, lines are at most a minute apart."""
    from vcreg_hub.training import journal as module

    at = iter(range(0, 10**9, 40))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(at)))
    run = train(TINY, tmp_path / "run", log=quiet)
    lines = journal(run.path, "progress")
    assert [line["step"] for line in lines] == list(range(1, 13)) and lines[-1]["epoch"] == 3
    assert all(0 < line["loss"] < 10 for line in lines)
    assert lines[0]["rate"] is None and lines[1]["rate"] == pytest.approx(32 / 40)
    assert [line["time_left"] for line in lines[1:3]] == [(12 - 2) * 40, (12 - 3) * 40]


def test_going_on_with_other_settings_says_where(tmp_path, whole, killed):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    changes = ["optim.lr=1e-4", "train.epochs=4", "vcreg.alpha=0.1", "evals=classification"]
    run = train(out, log=quiet, continue_with=changes)
    assert run.recipe() == override(TINY, changes)
    last = run.results()["sessions"][-1]
    assert last["step"] == 6
    assert last["changed"] == {"optim.lr": [0.002, 0.0001], "train.epochs": [3, 4], "vcreg.alpha": [0.64, 0.1]}
    rows, before = table(run), table(whole)
    assert rows[0] == before[0] and len(rows) == 4 and float(rows[1]["lr"]) < float(before[1]["lr"])


def test_a_changed_run_that_is_interrupted_goes_on_with_its_folder_alone(tmp_path, killed):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, signal.SIGTERM)
        with pytest.raises(StoppedError):
            train(out, log=quiet, continue_with=["optim.lr=1e-4"])
    with pytest.raises(UsageError, match=r"optim.lr.*--continue-with"):
        train(TINY, out, log=quiet)
    # As a queued job would: the same call once more changes nothing more.
    run = train(out, log=quiet, continue_with=["optim.lr=1e-4"])
    assert [session.get("changed") for session in run.results()["sessions"]] == [
        None, {"optim.lr": [0.002, 0.0001]}, None,
    ]  # fmt: skip


@pytest.mark.parametrize("setting", ["model.name=test_vit", "train.batch_size=16", "optim.name=lion", "data.name=mnist",
                                     "train.ema_decay=null", "train.seed=3", "task=ldam"])  # fmt: skip
def test_what_no_state_fits_may_not_change(killed, setting):
    with pytest.raises(ConfigError, match=f"--continue-with {setting.partition('=')[0]}"):
        train(killed, log=quiet, continue_with=[setting])


def test_fewer_epochs_than_were_trained_are_refused(tmp_path, killed):
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"train.epochs=1, but the run in .* has trained more"):
        train(out, log=quiet, continue_with=["train.epochs=1", "optim.warmup_epochs=0"])


def test_only_an_unfinished_run_goes_on_with_other_settings(tmp_path, whole):
    with pytest.raises(UsageError, match="is complete"):
        train(whole.path, log=quiet, continue_with=["optim.lr=1e-4"])
    with pytest.raises(UsageError, match="has not begun"):
        train(TINY, tmp_path / "new", log=quiet, continue_with=["optim.lr=1e-4"])


def test_the_advice_of_a_diverged_run_is_taken(tmp_path):
    wild = override(TINY, ["optim.lr=1000", "optim.name=momentum", "optim.warmup_epochs=0", "train.save_every=1",
                           "train.ema_decay=null", "train.keep=last"])  # fmt: skip
    wild = replace(wild, vcreg=None)
    with pytest.raises(DivergedError, match=r"--continue-with optim.lr=") as error:
        train(wild, tmp_path / "run", log=quiet)
    assert "\n" not in str(error.value)
    assert journal(tmp_path / "run", "diverged")
    assert train(tmp_path / "run", log=quiet, continue_with=["optim.lr=1e-3", "train.clip_norm=0.1"]).complete()


# ---- room ------------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path, monkeypatch):
    from vcreg_hub.training import snapshots

    monkeypatch.setattr(snapshots.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    at_step(monkeypatch, 1, AssertionError("a step was taken"))
    with pytest.raises(StorageError, match=r"needs about .* GB for states and weights, .* GB free: make room"):
        train(TINY, tmp_path / "run", log=quiet)


MOUNTED = ["unshare", "-rm", "sh", "-c"]
CAN_MOUNT = subprocess.run([*MOUNTED, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="needs a file system of its own")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_full_or_read_only_disk_is_one_line_and_the_last_state_is_whole(tmp_path, killed, how):
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    (tmp_path / "disk").mkdir()
    fill = {"full": "dd if=/dev/zero of=disk/filler bs=4k 2>/dev/null; ", "read-only": "mount -o remount,ro disk; "}
    # The estimate looks at a disk that others fill later.
    entry = "import shutil; from collections import namedtuple; shutil.disk_usage = lambda path: " \
            "namedtuple('U', 'free')(10**12); from vcreg_hub.cli import main; main()"  # fmt: skip
    script = (
        f"mount -t tmpfs -o size=64m tmpfs disk && cp -r {killed} disk/run && {fill[how]}"
        f'{sys.executable} -c "{entry}" train tiny.json --out disk/run --no-bar; code=$?; '
        "cp -r disk/run after; exit $code"
    )
    ended = subprocess.run([*MOUNTED, script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("vcreg: ")]
    assert len(said) == 1 and "cannot be written" in said[0] and "Traceback" not in ended.stderr
    assert {"full": "No space left", "read-only": "Read-only"}[how] in said[0]
    assert going_on(tmp_path / "after")[-1].startswith("resumed at step ")


# ---- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_while_it_is_measured_loses_nothing(tmp_path, whole, monkeypatch):
    module = sys.modules["vcreg_hub.run.train"]

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(module, "measure", stopped)
        with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command goes on"):
            train(TINY, tmp_path / "run", log=quiet)
    lines = []
    assert_same(whole, train(TINY, tmp_path / "run", log=lines.append))
    assert any(line.startswith("resumed at step 12, the end of epoch 3") for line in lines)
    assert not any(line.startswith("epoch ") for line in lines), "nothing was trained again"


def test_ctrl_c_saves_too(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(TINY, tmp_path / "run", log=quiet)
    assert states(tmp_path / "run") == ["step-000000002.safetensors"]


# ---- two processes ---------------------------------------------------------------------------------------------------


def _two(folder: Path, recipe: Recipe, out: Path, stop_after: int | None = None) -> subprocess.CompletedProcess[str]:
    """Two processes; SIGUSR1 goes to their launcher once a state of that step or a later one is saved."""
    (folder / "recipe.json").write_text(to_json(recipe))
    command = [sys.executable, "-m", "vcreg_hub.run.launch", "--standalone", "--nproc-per-node", "2",
               "-m", "vcreg_hub", "train", "recipe.json", "--out", str(out), "--no-bar"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    try:
        deadline = time.monotonic() + 120
        while stop_after is not None and process.poll() is None:
            assert time.monotonic() < deadline
            if any(line["step"] >= stop_after for line in Journal(out).lines("saved")):
                process.send_signal(signal.SIGUSR1)
                break
            time.sleep(0.02)
        said, err = process.communicate(timeout=250)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, said, err)


@pytest.mark.timeout(600)
def test_two_processes_resume_to_the_bit(tmp_path):
    recipe = override(TINY, [*BATCHNORM, "train.epochs=6", "train.save_every=1"])
    whole = _two(tmp_path, recipe, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr[-2000:]
    out = tmp_path / "run"
    for stop_after in (2, 9):
        stopped = _two(tmp_path, recipe, out, stop_after)
        assert stopped.returncode == 75, stopped.stderr[-2000:]
        assert "Traceback" not in stopped.stderr
    resumed = _two(tmp_path, recipe, out)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert resumed.stdout.count("resumed at step") == 1
    assert_same(RunDir(tmp_path / "whole"), RunDir(out))
    sessions = RunDir(out).results()["sessions"]
    assert [one["processes"] for one in sessions] == [2, 2, 2] and sessions[0]["signal"]["name"]
    assert any(step % 4 for step in (sessions[1]["step"], sessions[2]["step"])), "within an epoch"
