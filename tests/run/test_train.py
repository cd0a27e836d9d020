"""The walk from recipe to run folder: resumed, diverged, under several processes, and claimed by somebody else."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Optim, Recipe, Train, differences, override, to_json
from vcreg_hub.errors import ConfigError, DivergedError, RunFolderError, UsageError, WeightsNotFoundError
from vcreg_hub.evals.classification import Classification
from vcreg_hub.evals.linear_probe import LinearProbe
from vcreg_hub.files import read_tensors
from vcreg_hub.recipes import addresses, load_recipe
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import build, evaluate_run, load_run, smoke_test, train
from vcreg_hub.run.telling import regularizer_row
from vcreg_hub.tasks.classification import Classification as ClassificationTask

TINY = Recipe(
    name="tiny",
    model=Model("test_convnext", kwargs={"drop_path_rate": 0.1}),
    data=Data("digits", labels="superclass", val_fraction=0.2, train_images=128, image_size=32, crop="pad",
              hflip=0.0, workers=0),
    optim=Optim(lr=2e-3, warmup_epochs=1),
    train=Train(epochs=3, batch_size=32, mixup=0.2, cutmix=1.0, label_smoothing=0.1, ema_decay=0.9),
    evals=(Classification(), LinearProbe()),
    vcreg=VCReg(),
)  # fmt: skip


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


def test_a_run_leaves_its_four_files_and_nothing_else(tmp_path):
    folder = train(TINY, tmp_path / "run", log=quiet)
    assert folder.complete()
    assert sorted(os.listdir(folder.path)) == [
        "best.safetensors", "env.json", "metrics.csv", "model.safetensors", "progress.jsonl", "recipe.json",
        "results.json",
    ] or not (folder.path / "best.safetensors").exists()  # fmt: skip
    assert folder.recipe() == TINY
    results = folder.results()
    found = {(m["metric"], m["dataset_config"], m["split"]) for m in results["metrics"]}
    assert {("top1", "superclass", "test"), ("probe_top1", "class", "test")} <= found
    assert results["training"]["epochs"] == 3 and results["training"]["steps"] == 12
    assert results["data"]["train"] == 128 and results["data"]["classes"] == ["even", "odd"]
    assert len(results["regularizer"]) == 9, "one entry for each block"
    env = folder.env()
    assert env["processes"] == 1 and env["packages"]["timm"]
    rows = list(csv.DictReader((folder.path / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"lr", "train_loss", "val_top1", "seconds"} <= rows[0].keys()

    lines = []
    again = train(TINY, tmp_path / "run", log=lines.append)
    assert again.complete() and "complete already" in lines[-1]


def test_saved_weights_are_the_plain_model_s(tmp_path):
    import timm

    folder = train(override(TINY, ["train.epochs=1", "optim.warmup_epochs=0"]), tmp_path / "run", log=quiet)
    stock = timm.create_model("test_convnext", num_classes=2, in_chans=1)
    assert folder.tensors().keys() == stock.state_dict().keys()
    stock.load_state_dict(folder.tensors())
    _, images, model = load_run(folder.path)
    batch = torch.randn(2, images.in_chans, 32, 32)
    assert torch.equal(stock.eval()(batch), model.eval()(batch))
    again = {row.metric: row.value for row in evaluate_run(folder.path)}
    assert again == {row["metric"]: row["value"] for row in folder.results()["metrics"]}


class Interrupt(Exception):
    """Stands for Ctrl-C at a chosen place."""


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    whole = train(TINY, tmp_path / "whole", log=quiet)
    seen = []

    def stop_in_the_second_epoch(self, *arguments):
        seen.extend([1] * torch.is_grad_enabled())  # a training step; the loop also looks once after each epoch
        if len(seen) == 6:
            raise Interrupt
        return call(self, *arguments)

    call = ClassificationTask.loss
    monkeypatch.setattr(ClassificationTask, "loss", stop_in_the_second_epoch)
    with pytest.raises(Interrupt):
        train(TINY, tmp_path / "broken", log=quiet)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    resumed = train(TINY, tmp_path / "broken", log=quiet)
    assert len(seen) == 6 + 8, "the first epoch was not trained again"
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    assert resumed.results()["metrics"] == whole.results()["metrics"]


def test_twins_start_alike_and_vcreg_changes_the_end(tmp_path):
    short = override(
        TINY,
        ["train.epochs=1", "optim.warmup_epochs=0", "train.max_steps=1", "train.ema_decay=null", "evals=[]"],
    )
    none = replace(short, vcreg=VCReg(alpha=0.0, beta=0.0))
    plain, zero, regularized = (
        train(r, tmp_path / n, log=quiet).tensors()
        for n, r in (("plain", replace(short, vcreg=None)), ("zero", none), ("vcreg", short))
    )
    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    assert any(not torch.equal(plain[name], regularized[name]) for name in plain)


def test_accumulation_takes_the_same_step(tmp_path):
    base = override(
        TINY,
        [
            "train.epochs=1",
            "optim.warmup_epochs=0",
            "train.mixup=0",
            "train.cutmix=0",
            "train.ema_decay=null",
            "model.kwargs.drop_path_rate=0.0",
            "evals=[]",
            "optim.name=momentum",
            "optim.lr=0.1",
        ],
    )
    base = replace(base, vcreg=None)
    once = train(base, tmp_path / "once", log=quiet).tensors()
    four = train(override(base, ["train.accumulation=4"]), tmp_path / "four", log=quiet).tensors()
    for name in once:
        torch.testing.assert_close(once[name], four[name], rtol=1e-4, atol=1e-5)


def test_a_diverged_run_names_step_and_place_and_keeps_the_last_good_weights(tmp_path, monkeypatch):
    seen = []
    call = ClassificationTask.loss

    def poisoned(self, module, *batch):
        seen.extend([1] * torch.is_grad_enabled())  # a training step; the loop also looks once after each epoch
        if len(seen) >= 6:
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))
        return call(self, module, *batch)

    monkeypatch.setattr(ClassificationTask, "loss", poisoned)
    with pytest.raises(DivergedError, match=r"step 6 \(epoch 2\).*weights of .*last.safetensors"):
        train(TINY, tmp_path / "run", log=quiet)
    kept = read_tensors(tmp_path / "run" / "last.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_what_the_last_step_of_an_epoch_broke_is_not_kept(tmp_path, monkeypatch):
    """The loss before a step says nothing of the weights after it."""
    from vcreg_hub.training import loop

    saved = train(TINY, tmp_path / "good", log=quiet)
    steps_per_epoch = int(saved.results()["training"]["steps"]) // TINY.train.epochs
    lr_at, calls = loop.lr_at, []

    def explode(*args):
        calls.append(1)
        # Finite weights that overflow in the next forward pass.
        return 1e25 if len(calls) == 2 * steps_per_epoch else lr_at(*args)

    monkeypatch.setattr(loop, "lr_at", explode)
    recipe = override(TINY, ["train.epochs=3", "train.ema_decay=null", "train.clip_norm=null"])
    with pytest.raises(DivergedError, match=rf"step {2 * steps_per_epoch + 1} \(epoch 2\).*weights after epoch 1"):
        train(recipe, tmp_path / "run", log=quiet)
    kept = read_tensors(tmp_path / "run" / "last.safetensors")
    assert all(tensor.abs().max() < 1e6 for tensor in kept.values())


def test_a_metric_that_is_not_finite_ends_the_run_in_a_line(tmp_path, monkeypatch):
    from vcreg_hub.evals import classification

    monkeypatch.setattr(classification, "evaluate", lambda *args, **kwargs: iter([("loss", float("nan"))]))
    recipe = override(TINY, ["data.val_fraction=0", "evals=classification"])
    with pytest.raises(DivergedError, match="not finite: loss on test"):
        train(recipe, tmp_path / "run", log=quiet)
    assert not (tmp_path / "run" / "results.json").exists()


def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    recipe = override(TINY, ["train.keep=best", "train.epochs=4", "optim.lr=0.02", "train.ema_decay=null"])
    folder = train(recipe, tmp_path / "run", log=quiet)
    rows = list(csv.DictReader((folder.path / "metrics.csv").read_text().splitlines()))
    best = max(range(4), key=lambda i: (float(rows[i]["val_top1"]), -i))
    recipe_val = evaluate_run(folder.path, ["eval.split=val", "evals=classification"])
    assert recipe_val[0].value == pytest.approx(float(rows[best]["val_top1"]))


def test_a_folder_of_another_recipe_is_not_touched(tmp_path):
    folder = train(override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"]), tmp_path / "run", log=quiet)
    before = (folder.path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"evals, .*train.epochs"):
        train(TINY, tmp_path / "run", log=quiet)
    assert (folder.path / "model.safetensors").read_bytes() == before
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds no run"):
            train(TINY, tmp_path / "stray", log=quiet, overwrite=overwrite)
    assert os.listdir(tmp_path / "stray") == ["thesis.tex"]
    (tmp_path / "run" / "notes.txt").write_text("mine")
    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]", "train.seed=7"])
    assert train(short, tmp_path / "run", log=quiet, overwrite=True).recipe() == short
    assert (tmp_path / "run" / "notes.txt").exists(), "only a run's own files are replaced"
    assert differences(TINY, replace(TINY, vcreg=None)) == ["vcreg"]


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("train.batch_size=30", "batch_size=30"),
        ("train.batch_size=256", "fewer than one step"),
        ("train.precision=fp16", "needs a GPU"),
        ("evals=linear_prob", "did you mean 'linear_probe'"),
        ("evals=multi_view", "multi_view is of clips"),
        ("task=clasification", "did you mean 'classification'"),
        ("optim.min_lr=0.5", "optim.min_lr is from 0 to optim.lr=0.002"),
        ("optim.name=adamww", "unknown optimizer 'adamww'"),
    ],
)  # fmt: skip
def test_wrong_recipes_are_refused_in_one_line(tmp_path, setting, part):
    with pytest.raises(UsageError) as error:
        recipe = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "train.accumulation=4", setting])
        train(recipe, tmp_path / "run", log=quiet)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_place_that_is_overwritten_is_one_line(tmp_path):
    """The activation after it works in place. (`where=*` takes that activation instead.)"""
    settings = ["model.name=resnet10t", "where=bn1", "train.epochs=1", "optim.warmup_epochs=0", "evals=[]"]
    with pytest.raises(ConfigError, match=r"where='bn1' has the place bn1, whose output the next layer overwrites"):
        train(override(TINY, settings), tmp_path / "run", log=quiet)


def test_bf16_and_gradient_checkpointing_train(tmp_path):
    recipe = override(
        TINY, ["train.precision=bf16", "train.gradient_checkpointing=true", "train.epochs=1", "optim.warmup_epochs=0"]
    )
    assert train(recipe, tmp_path / "run", log=quiet).complete()


def _torchrun(tmp_path, recipe, out, processes):
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m", "vcreg_hub", "train", str(tmp_path / "recipe.json"), "--out", str(out)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path)


def test_two_processes_train_what_one_trains(tmp_path):
    recipe = override(
        TINY,
        [
            "train.epochs=2",
            "train.mixup=0",
            "train.cutmix=0",
            "vcreg.sync=true",
            "optim.name=momentum",
            "optim.lr=0.1",
            "model.kwargs.drop_path_rate=0.0",
        ],
    )
    done = _torchrun(tmp_path, recipe, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "processes: 2" in done.stdout
    one, two = train(recipe, tmp_path / "one", log=quiet), tmp_path / "two"
    assert json.loads((two / "env.json").read_text())["processes"] == 2
    tensors = read_tensors(two / "model.safetensors")
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-3, atol=1e-4)
    mine = {m["metric"]: m["value"] for m in one.results()["metrics"]}
    theirs = {m["metric"]: m["value"] for m in json.loads((two / "results.json").read_text())["metrics"]}
    assert theirs["top1"] == pytest.approx(mine["top1"], abs=0.5), "padding must not count a sample twice"


def test_two_processes_fine_tune(tmp_path):
    from safetensors.torch import save_file

    from vcreg_hub.models.build import build_model

    start = build_model(Model("test_convnext"), num_classes=7, in_chans=3, image_size=32)
    save_file(start.state_dict(), tmp_path / "start.safetensors")
    _image_folder(tmp_path / "photos")
    recipe = override(
        load_recipe("finetune:image"),
        ["model.name=test_convnext", f"model.pretrained={tmp_path / 'start.safetensors'}", "data.image_size=32",
         f"data.root={tmp_path / 'photos'}", "data.resize=36", "train.epochs=2", "train.batch_size=8",
         "data.workers=0"],
    )  # fmt: skip
    done = _torchrun(tmp_path, recipe, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "processes: 2" in done.stdout
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["data"]["classes"] == ["bright", "dark"]
    tensors = read_tensors(tmp_path / "two" / "model.safetensors")
    assert tensors["head.fc.weight"].shape[0] == 2, "a fresh head of the new classes"


def _image_folder(root):
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for name, low in (("dark", 0), ("bright", 128)):
        (root / name).mkdir(parents=True)
        for i in range(24):
            pixels = torch.randint(low, low + 128, (40, 48, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / name / f"{i}.png")


def test_a_refused_recipe_claims_no_folder(tmp_path):
    wrong = override(TINY, ["train.epochs=1", "train.accumulation=3", "evals=[]"])
    with pytest.raises(ConfigError, match="not divisible"):
        train(wrong, tmp_path / "run", log=quiet)
    said = []
    assert train(override(wrong, ["train.accumulation=1"]), tmp_path / "run", log=said.append).complete()
    assert "warmup: 0 of 1 epochs, not 1" in said


def test_a_folder_at_work_in_is_kept_until_its_process_ends(tmp_path):
    from vcreg_hub.run.accelerator import make_accelerator
    from vcreg_hub.run.claim import claimed

    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"])
    with claimed(tmp_path / "run", short, False, make_accelerator(short)) as folder:
        assert os.listdir(folder.path) == ["recipe.json"], "the lock is no file"
        with pytest.raises(UsageError, match=r"another run is at work in .*run; wait"):
            train(short, tmp_path / "run", log=quiet, overwrite=True)
    assert train(short, tmp_path / "run", log=quiet).complete()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked on Linux alone")
def test_a_killed_run_s_workers_keep_nobody_out(tmp_path):
    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"])
    (tmp_path / "recipe.json").write_text(to_json(short))
    killed = """if True:
        import os, pathlib, signal, time
        from vcreg_hub.config import from_json
        from vcreg_hub.run.accelerator import make_accelerator
        from vcreg_hub.run.claim import claimed
        recipe = from_json(pathlib.Path("recipe.json").read_text())
        with claimed("run", recipe, False, make_accelerator(recipe)):
            worker = os.fork()
            if worker == 0:
                time.sleep(120)
                os._exit(0)
            print(worker, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with open(tmp_path / "worker", "w") as said:
        ended = subprocess.run([sys.executable, "-c", killed], stdout=said, cwd=tmp_path, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    try:
        assert train(short, tmp_path / "run", log=quiet).complete()
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("out", ["thesis.tex", "thesis.tex/run"])
def test_a_file_is_no_folder(tmp_path, out):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis.tex is a file; choose another --out"):
        train(TINY, tmp_path / out, log=quiet, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_epoch_s_row_leaves_out_sites_that_saw_too_few_rows():
    names = ("variance_loss", "effective_rank")
    rows = [(None, None, 4), (0.5, 2.0, 4), (0.25, 3.0, 4), (None, None, 0)]

    class Attached:
        def __init__(self, rows):
            self.rows = [{"site": f"b{i}", **dict(zip(names, values)), "backwards": n}
                         for i, (*values, n) in enumerate(rows)]  # fmt: skip

        def statistics(self):
            return self.rows

    means = {name: value for name, value in regularizer_row(Attached(rows)).items() if "/" not in name}
    assert means == {"vcreg_variance_loss": 0.375, "vcreg_effective_rank": 2.5}
    assert regularizer_row(Attached(rows[:1])) == {} == regularizer_row(None)


def test_damaged_files_of_a_run_are_named(tmp_path):
    short = override(TINY, ["train.epochs=1", "optim.warmup_epochs=0", "evals=[]"])
    folder = train(short, tmp_path / "run", log=quiet)
    (folder.path / "results.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"results.json.*--overwrite"):
        train(short, tmp_path / "run", log=quiet)
    (folder.path / "recipe.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"recipe.json is damaged"):
        train(short, tmp_path / "run", log=quiet)


def test_weights_that_cannot_be_fetched_are_one_line(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"test_vit could not be had .*model.pretrained=PATH") as error:
        train(override(TINY, ["model.name=test_vit", "model.pretrained=true", "model.kwargs={}"]), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:the probe stopped")
@pytest.mark.parametrize(
    "address", [a for a in addresses() if a.startswith(("digits", "fashion", "finetune", "moons"))]
)
def test_small_recipes_smoke(tmp_path, address):
    recipe = smoke_test(load_recipe(address))
    assert train(recipe, tmp_path / "run", log=quiet).complete()


@pytest.mark.slow
@pytest.mark.parametrize("address", [a for a in addresses() if a.startswith("imagenet")])
def test_imagenet_recipes_smoke(tmp_path, address):
    recipe = smoke_test(load_recipe(address))
    assert train(recipe, tmp_path / "run", log=quiet).complete()


def test_processes_that_do_not_meet_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises((ConfigError, ValueError)):
        train(TINY, tmp_path / "run", log=quiet)


def test_nothing_is_trained_in_no_epochs(tmp_path):
    recipe = replace(TINY, train=Train(epochs=0, batch_size=32), vcreg=None, name="start")
    _, start = build(recipe)
    folder = train(recipe, tmp_path / "run", log=quiet)
    kept = folder.tensors()
    assert all(torch.equal(kept[name], tensor) for name, tensor in start.state_dict().items())
    results = folder.results()
    assert results["training"] | {"epochs": 0, "steps": 0} == results["training"]
    assert {row["protocol"].partition("; ")[2] for row in results["metrics"]} == {"as it started, not trained"}
    assert train(recipe, tmp_path / "run", log=quiet).complete()
    with pytest.raises(ConfigError, match="epochs is a whole number from 0"):
        Train(epochs=-1)
