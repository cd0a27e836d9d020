"""The command line: what it prints, and that a refusal is one line and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from vcreg_hub import cli
from vcreg_hub.cli import app, main

runner = CliRunner()


def refused(monkeypatch, capsys, *arguments):
    """Exit code and stderr of a call that goes through `main`, as the installed command does."""
    monkeypatch.setattr(sys, "argv", ["vcreg", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, capsys.readouterr().err


def test_recipes_lists_every_address_with_its_summary():
    result = runner.invoke(app, ["recipes"])
    assert result.exit_code == 0
    assert "imagenet:resnet50_vcreg" in result.stdout and "Table 1" in result.stdout
    assert json.loads(runner.invoke(app, ["recipes", "--json"]).stdout)["digits:convnext_atto_vcreg"]


def test_a_recipe_is_shown_whole_each_setting_with_its_meaning():
    shown = runner.invoke(app, ["recipes", "digits:convnext_atto_vcreg", "--set", "train.epochs=7"])
    rows = dict(line.split("\t", 1) for line in shown.stdout.splitlines())
    assert rows["train.epochs"].startswith("7\tpasses over the training samples.")
    assert rows["vcreg.alpha"].startswith("0.64\tweight of the variance loss.")
    assert rows["evals"].startswith("classification,linear_probe\t") and rows["evals.linear_probe.penalty"]
    told = json.loads(runner.invoke(app, ["recipes", "digits:convnext_atto_vcreg", "--json"]).stdout)
    assert told["vcreg"]["alpha"] == 0.64 and told["train"]["epochs"] == 10


def test_the_version():
    from importlib.metadata import version

    assert runner.invoke(app, ["--version"]).stdout == f"vcreg {version('vcreg_hub')}\n"


def test_a_report_says_which_planned_runs_are_missing(tmp_path):
    from experiments.test_runner import RECIPE, finished

    from vcreg_hub.config import to_json

    for seed in (0, 1, 2):
        (tmp_path / "alpha=1").mkdir(exist_ok=True)
        (tmp_path / "alpha=1" / f"seed{seed}.recipe.json").write_text(to_json(RECIPE))
    begun = tmp_path / "alpha=1" / "seed1"
    begun.mkdir()
    assert "(of 3 planned)" in str(runner.invoke(app, ["report", str(tmp_path)]).exception)
    finished(tmp_path / "alpha=1" / "seed0", RECIPE, top1=50.0)
    (begun / "metrics.csv").write_text("epoch\n1\n")
    result = runner.invoke(app, ["report", str(tmp_path)])
    assert "50.00" in result.stdout
    assert "2 planned runs are not complete: " in result.stderr
    assert "seed1 (begun)" in result.stderr and "seed2 (not begun)" in result.stderr
    assert len(json.loads(runner.invoke(app, ["report", str(tmp_path), "--json"]).stdout)) == 1


def test_train_then_report_and_eval(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "model.name=test_convnext", "--set", "train.epochs=1", "--set", "data.train_images=64",
                "--set", "optim.warmup_epochs=0"]  # fmt: skip
    result = runner.invoke(app, ["train", "digits:convnext_atto_vcreg", "--out", "runs/a", *settings])
    assert result.exit_code == 0, result.output
    assert "processes: 1" in result.stdout and "probe_top1" in result.stdout and "runs/a" in result.stdout
    again = runner.invoke(app, ["train", "runs/a/recipe.json", "--out", "runs/b"])
    assert again.exit_code == 0
    numbers = [json.loads((tmp_path / "runs" / r / "results.json").read_text())["metrics"] for r in "ab"]
    assert numbers[0] == numbers[1], "a run's recipe.json repeats it"

    report = runner.invoke(app, ["report", "runs/a", "--json", "--out", "report"])
    assert {row["metric"] for row in json.loads(report.stdout)} >= {"top1", "probe_top1"}
    assert (tmp_path / "report" / "report.png").exists()
    evaluated = runner.invoke(app, ["eval", "runs/a", "--set", "eval.split=test", "--json"])
    assert json.loads(evaluated.stdout) == numbers[0]


@pytest.mark.filterwarnings("ignore:the probe stopped")
def test_a_smoke_test_shows_no_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke = ["train", "digits:convnext_atto_vcreg", "--smoke", "--set", "model.name=test_convnext", "--out", "runs/a"]
    result = runner.invoke(app, smoke)
    assert result.exit_code == 0, result.output
    *_, verdict, folder = result.stdout.strip().splitlines()
    assert "smoke test passed" in verdict and "top1" in verdict and "mean nothing" in verdict
    assert not any(sign.isdigit() for sign in verdict.replace("top1", "").replace("top5", ""))
    assert folder == "run folder: runs/a"


def test_a_recipe_from_outside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab_runs.py").write_text(
        "from dataclasses import replace\n"
        "from vcreg_hub.recipes import load_recipe\n"
        "def mine():\n    return replace(load_recipe('digits:convnext_atto'), name='mine')\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from vcreg_hub.errors import ConfigError, UnknownNameError
    from vcreg_hub.recipes import load_recipe

    assert load_recipe("my_lab_runs:mine").name == "mine"
    with pytest.raises(ConfigError, match="returned a int"):
        load_recipe("my_lab_runs:wrong")
    with pytest.raises(UnknownNameError, match="my_lab_runs:mine"):
        load_recipe("my_lab_runs:min")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["train", "digit:convnext_atto"], 2, "did you mean 'digits:convnext_atto'"),
        (["train", "digits"], 2, "module:function"),
        (["train", "nothing.json"], 2, "there is no recipe file nothing.json"),
        (["train", "digits:convnext_atto", "--set", "train.epoch=1"], 2, "did you mean 'train.epochs'"),
        (["train", "digits:convnext_atto", "--set", "model.name=convnext_ato"], 2, "convnext_atto"),
        (["train", "digits:convnext_atto", "--set", "data.name=digit"], 2, "digits"),
        (["train", "finetune:image", "--set", "data.root=no/such/folder"], 1, "no/such/folder"),
        (["blocks", "resnet5"], 2, "resnet50"),
        (["blocks", "resnet18", "--where", "block"], 2, "nearest: blocks"),
        (["train", "digits:convnext_atto_vcreg", "--set", "where=stage.*"], 2, "nearest: stages"),
        (["train", "digits:convnext_atto", "--tracker", "tensorbord"], 2, "did you mean 'tensorboard'"),
        (["eval", "no/such/run"], 1, "no/such/run"),
        (["report", "no/such/run"], 1, "no complete run"),
        (["sweep", "digits:convnext_atto", "--out", "x", "--grid", "train.epochs"], 2, "a grid is"),
        (["sweep", "digits:convnext_atto", "--out", "x", "--set", "train.seed=3"], 2, "with --seeds"),
        (["train", "digits:convnext_atto", "--out", "thesis.tex"], 2, "thesis.tex is a file"),
        (["reproduce", "fashion"], 2, "fashion_mnist"),
        (["train"], 2, "Missing argument"),
        (["trian"], 2, "trian"),
    ],
)
def test_refusals_are_one_line_and_an_exit_code(monkeypatch, capsys, tmp_path, arguments, code, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    got, err = refused(monkeypatch, capsys, *arguments)
    assert got == code, err
    assert part in err
    assert "Traceback" not in err


def test_libraries_say_errors_alone_unless_they_are_asked(monkeypatch, capsys):
    names = (*cli._QUIET, *cli._NO_BARS)
    for name in names:
        monkeypatch.setenv(name, "")  # so that what `main` sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATASETS_VERBOSITY", "info")
    refused(monkeypatch, capsys, "trian")
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error" and os.environ["DATASETS_VERBOSITY"] == "info"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1", "stderr is no terminal here"


def test_blocks_prints_sites():
    result = runner.invoke(app, ["blocks", "resnet18", "--json"])
    rows = json.loads(result.stdout)
    assert len(rows) == 8 and rows[0]["channels"] == 64
    assert "8 sites" in runner.invoke(app, ["blocks", "resnet18"]).stdout
    assert "1 site\n" in runner.invoke(app, ["blocks", "resnet18", "--where", "final"]).stdout


def test_env_names_no_person_machine_or_path():
    text = runner.invoke(app, ["env"]).stdout
    told = json.loads(text)
    assert told["packages"]["torch"] and told["python"]
    for private in (os.uname().nodename, os.path.expanduser("~"), os.getcwd()):
        assert len(private) < 4 or private not in text


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_how_to_go_on(tmp_path, sent):
    settings = ["--set", "model.name=test_convnext", "--set", "train.epochs=100000", "--set", "data.train_images=64"]
    command = [sys.executable, "-u", "-m", "vcreg_hub", "train", "digits:convnext_atto_vcreg", "--out", "run"]
    process = subprocess.Popen(
        [*command, *settings, "--no-bar"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A shell starts what it runs in the background deaf to Ctrl-C, and the tests may be that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert any("train_loss" in line for line in process.stdout), process.stderr.read()
        if sent == signal.SIGTERM:
            second = subprocess.run([*command, *settings], capture_output=True, text=True, cwd=tmp_path, timeout=120)
            assert second.returncode == 2
            assert second.stderr.splitlines()[-1].startswith("vcreg: another run is at work in run;")
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    last = err.splitlines()[-1]
    if sent == signal.SIGINT:
        assert (process.returncode, last) == (
            130,
            "vcreg: interrupted; the same command goes on from what is saved",
        )
    else:
        assert process.returncode == 75
        assert last.startswith("vcreg: stopped by SIGTERM after step ") and "the same command goes on" in last
    assert "Traceback" not in err


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vcreg_hub", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "train" in done.stdout


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_ctrl_c_while_something_is_being_imported(module):
    """As it comes to somebody who notices a typo and does not wait: torch alone takes seconds."""
    program = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "sys.argv = ['vcreg', 'env']\n"
        "from vcreg_hub.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


def test_the_processes_of_a_launcher_part_before_python_ends(tmp_path):
    import torch.distributed as dist

    from vcreg_hub.cli.printing import leave_group

    leave_group()  # one process has no group
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        leave_group()
        assert not dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "resnet32_cifar_vcreg", "."], "the same command begins anew"),
        (["features", "resnet32_cifar_vcreg", ".", "--to", "x.npy"], "the same command goes on from what is saved"),
        (["features", "resnet32_cifar_vcreg", ".", "--to", "x.npy", "--no-cache"], "the same command begins anew"),
    ],
)
def test_an_interrupted_command_says_what_it_does_next(arguments, says, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vcreg_hub.cli.use.check_model", interrupt)
    monkeypatch.setattr(sys, "argv", ["vcreg", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == f"vcreg: interrupted; {says}\n"
