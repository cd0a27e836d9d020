"""The walk on videos: trained, resumed, by two processes, evaluated again, exported, and refused before it starts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vcreg_hub.cli import app
from vcreg_hub.cli.app import Interrupted
from vcreg_hub.config import Data, Eval, Model, Optim, Recipe, Train, Video, from_json, override, to_json
from vcreg_hub.data.datasets import VIDEO_SETS
from vcreg_hub.data.video.action_shapes import CLASSES, ActionShapes, make
from vcreg_hub.data.video.decode import UnreadableVideoError
from vcreg_hub.data.video.hmdb51 import prepare
from vcreg_hub.errors import ConfigError, UsageError
from vcreg_hub.evals.multi_view import MultiView
from vcreg_hub.experiments.grid import Trial
from vcreg_hub.files import read_tensors
from vcreg_hub.models.video_networks import NETWORKS, NORMALISATION
from vcreg_hub.recipes import addresses, load_recipe
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.run import build, evaluate_run, load_run, smoke_test, train
from vcreg_hub.run.build import recipe_data
from vcreg_hub.tasks.classification import Classification

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
RECIPE = Recipe(
    name="clips",
    model=Model("videomae_tiny", kwargs={**SMALL, "drop_path": 0.1, "head_dropout": 0.2}),
    data=Data("action_shapes", val_fraction=0.2, image_size=16, hflip=0.0, workers=0),
    optim=Optim(lr=1e-3, schedule_per="step", layer_decay=0.9),
    train=Train(epochs=2, batch_size=8, mixup=0.8, cutmix=1.0, label_smoothing=0.1),
    eval=Eval(batch_size=12),
    evals=(MultiView(),),
    vcreg=VCReg(alpha=3.0, beta=0.3),
    where="final",
    video=Video(frames=4, stride=2, clips=2, crops=2, repeats=2),
)


def quiet(_text: str) -> None:
    """The tests read files, not lines."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = ActionShapes(sources=6, clips_per_source=1, height=16, width=24, min_frames=3, max_frames=20)
    root = make(tmp_path_factory.mktemp("clips") / "set", spec)
    prepare(root, root, video_set=VIDEO_SETS["action_shapes"], log=quiet)
    return root


@pytest.fixture
def recipe(root: Path) -> Recipe:
    return replace(RECIPE, data=replace(RECIPE.data, root=str(root)))


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(RECIPE, data=replace(RECIPE.data, root=str(root)))
    return train(recipe, tmp_path_factory.mktemp("trained") / "run", log=quiet).path


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_a_run_says_what_it_was_trained_and_tested_on(trained: Path) -> None:
    found = results(trained)
    rows = {row["metric"]: row for row in found["metrics"]}
    assert rows.keys() == {"top1", "top5", "mean_per_class", "undecodable"}
    assert rows["top1"]["fold"] == 1 and "sigma" not in rows["top1"]
    assert rows["top1"]["protocol"] == "top-1 accuracy, 2 clips x 2 crops, mean probability; last epoch"
    data = found["data"]
    assert data["classes"] == list(CLASSES) and (data["frames"], data["stride"], data["split"]) == (4, 2, 1)
    assert data["mean"] == list(NORMALISATION["imagenet"][0]) and data["undecodable"] == 0
    assert [site["site"] if "site" in site else site.get("name") for site in found["regularizer"]] == ["classifier"]
    rows = list(csv.DictReader((trained / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"val_top1", "vcreg_variance_loss"} <= rows[0].keys()


def test_a_vivit_is_shown_what_it_was_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    sizes = {**SMALL, "tubelet_size": [2, 8, 8]}
    vivit = replace(recipe, model=Model("vivit_tiny", kwargs=sizes), train=Train(batch_size=8, max_steps=1))
    folder = train(vivit, tmp_path / "run", log=quiet)
    assert folder.results()["data"]["mean"] == [0.5, 0.5, 0.5]
    other = override(vivit, ["data.mean=[0.75,0.75,0.75]", "data.std=[0.25,0.25,0.25]"])
    assert train(other, tmp_path / "other", log=quiet).results()["data"]["std"] == [0.25, 0.25, 0.25]


def test_an_evaluation_repeats_the_numbers_and_noise_adds_its_own(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = results(run)["metrics"]
    assert [row.to_json() for row in evaluate_run(run)] == before
    noisy = [row.to_json() for row in evaluate_run(run, ["video.noise=2"], save=True)]
    assert {row["sigma"] for row in noisy} == {2.0} and "Gaussian noise of sigma 2 on normalised" in noisy[0][
        "protocol"
    ]
    assert results(run)["metrics"] == before + noisy, "a noise level replaces no other"
    evaluate_run(run, ["video.noise=2"], save=True)
    assert results(run)["metrics"] == before + noisy
    single = evaluate_run(run, ["video.clips=1", "video.crops=1", "video.merge=score"])
    assert "1 clips x 1 crops, mean score" in single[0].protocol
    for foreign in ("video.split=2", "video.frames=8", "model.kwargs.hidden_size=48"):
        with pytest.raises(UsageError, match=foreign.partition("=")[0]):
            evaluate_run(run, [foreign])


class Interrupt(Exception):
    """Stands for Ctrl-C at a chosen place."""


def test_an_interrupted_run_resumes_to_the_same_bits(
    recipe: Recipe, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, seen = Classification.loss, []

    def stop_in_the_second_epoch(self, *arguments):
        seen.extend([1] * torch.is_grad_enabled())  # a training step; the loop also looks once after each epoch
        if len(seen) == steps + 2:
            raise Interrupt
        return call(self, *arguments)

    steps = results(trained)["training"]["steps"] // 2
    monkeypatch.setattr(Classification, "loss", stop_in_the_second_epoch)
    with pytest.raises(Interrupt):
        train(recipe, tmp_path / "run", log=quiet)
    resumed = train(recipe, tmp_path / "run", log=quiet)
    assert len(seen) == 2 * steps + 2, "the first epoch was not trained again"
    whole = read_tensors(trained / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.tensors().items())
    assert resumed.results()["metrics"] == results(trained)["metrics"]


class InProcess:
    """Stands for the process that a study starts for a trial, without the seconds that starting one takes."""

    def __init__(self, trial: Trial, out: Path, threads: int, launch: object = None) -> None:
        self.returncode = 0 if train(trial.recipe, out / trial.path, log=quiet).complete() else 1

    def poll(self) -> int:
        return self.returncode


def test_an_interrupted_sweep_goes_on_and_ends_in_a_table(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, seen, stop_after = Classification.loss, [], 0

    def counted(self, *arguments):
        seen.extend([1] * torch.is_grad_enabled())
        if len(seen) == stop_after:
            raise KeyboardInterrupt
        return call(self, *arguments)

    monkeypatch.setattr("vcreg_hub.experiments.runner._start", InProcess)
    monkeypatch.setattr("vcreg_hub.experiments.runner.time.sleep", lambda seconds: None)
    monkeypatch.setattr(Classification, "loss", counted)
    (tmp_path / "recipe.json").write_text(to_json(override(recipe, ["eval.split=val"])))
    sweep = ["sweep", str(tmp_path / "recipe.json"), "--grid", "vcreg.alpha=1,3", "--out", str(tmp_path / "study")]
    steps = 2 * (len(load_run_sets(recipe).train) // 8)
    stop_after = steps + steps // 2 + 1  # the second run's second epoch
    with pytest.raises(Interrupted):
        CliRunner().invoke(app, sweep)
    assert not (tmp_path / "study" / "report.md").exists()
    first = tmp_path / "study" / "alpha=1" / "seed0" / "results.json"
    written = first.stat().st_mtime_ns
    stop_after = 0
    done = CliRunner().invoke(app, sweep)
    assert done.exit_code == 0, done.output
    assert "2 runs, 1 complete already" in done.output
    assert first.stat().st_mtime_ns == written and len(seen) == 2 * steps + 1, "no finished epoch was trained again"
    assert [line.split(" | ")[0] for line in done.output.splitlines() if "alpha=" in line and " | " in line] == [
        "| alpha=1", "| alpha=3"
    ]  # fmt: skip
    assert (tmp_path / "study" / "report.md").read_text().count("| alpha=") == 2
    assert json.loads((tmp_path / "study" / "summary.json").read_text())


def test_gradient_checkpointing_and_bf16_train_the_same_network(recipe: Recipe, tmp_path: Path) -> None:
    # Momentum, whose step is as large as the gradient: AdamW's first is one of sign alone.
    short = override(recipe, ["train.epochs=1", "evals=[]", "optim.name=momentum", "optim.lr=0.05"])
    once = train(short, tmp_path / "once", log=quiet).tensors()
    start = build(short)[1].state_dict()
    moved = max((once[name] - start[name]).abs().max().item() for name in once)

    def trained_with(*settings: str) -> float:
        """How far the weights end from those of plain float32, of how far these moved."""
        run = train(override(short, list(settings)), tmp_path / "-".join(settings), log=quiet)
        return max((run.tensors()[name] - once[name]).abs().max().item() for name in once) / moved

    assert trained_with("train.gradient_checkpointing=true") < 1e-5
    assert 1e-5 < trained_with("train.precision=bf16") < 0.1
    assert 1e-5 < trained_with("train.precision=bf16", "train.gradient_checkpointing=true") < 0.1


@pytest.mark.slow
def test_a_compiled_network_trains_to_about_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    short = override(recipe, ["train.max_steps=2", "evals=[]", "model.kwargs.drop_path=0.0"])
    short = override(short, ["model.kwargs.head_dropout=0.0"])
    eager = train(short, tmp_path / "eager", log=quiet).tensors()
    compiled = train(override(short, ["train.compile=true"]), tmp_path / "compiled", log=quiet).tensors()
    for name, tensor in eager.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4)
    again = train(short, tmp_path / "again", log=quiet).tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in eager.items()), "nothing compiled is left behind"


def test_clips_that_break_after_indexing_are_counted_and_named(
    root: Path, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = shutil.copytree(root, tmp_path / "set")
    sets = load_run_sets(recipe)
    lost = {part: max(getattr(sets, part), key=lambda clip: clip.frames).path for part in ("train", "val", "test")}
    (broken / "videos" / lost["train"]).unlink()
    (broken / "videos" / lost["val"]).write_bytes(b"")
    cut = broken / "videos" / lost["test"]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    said = []
    # An evaluation of both kinds, the real number of views, and a probe that reads the same clips in one view.
    changed = [f"data.root={broken}", "train.epochs=1", "video.clips=10", "video.crops=3", "video.max_failed=2"]
    cut_recipe = override(recipe, [*changed, "evals=multi_view,linear_probe"])
    run = train(cut_recipe, tmp_path / "run", log=said.append)
    found = run.results()
    assert found["training"]["undecodable"] == [lost["train"], lost["val"]]
    assert found["data"]["undecodable_test"] == [lost["test"]]
    for part, path in lost.items():
        name = {"val": "held-out training", "train": "training"}.get(part, part)
        assert any(f"1 {name} clips did not decode" in line for line in said) and path in caplog.text
    assert {row["metric"]: row["value"] for row in found["metrics"]}["undecodable"] == 1
    (row,) = csv.DictReader((run.path / "metrics.csv").read_text().splitlines())
    share = float(row["val_top1"]) * len(sets.val) / 100
    assert share == pytest.approx(round(share)) and share <= len(sets.val) - 1
    assert float(row["samples_per_second"]) > 0
    strict = override(cut_recipe, ["video.max_failed=1"])
    with pytest.raises(UnreadableVideoError, match=r"2 clips failed to decode, video\.max_failed is 1") as raised:
        train(strict, tmp_path / "strict", log=quiet)
    assert lost["train"] in str(raised.value) and lost["val"] in str(raised.value)
    assert not (tmp_path / "strict" / "last.safetensors").exists(), "the validation came first"


def test_clips_that_the_index_knows_to_be_broken_are_named(
    root: Path, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "left_out" not in recipe_data(recipe).describe()
    broken = shutil.copytree(root, tmp_path / "set")
    lost = sorted(load_run_sets(recipe).train, key=lambda clip: clip.path)[:2]
    for clip in lost:
        (broken / "videos" / clip.path).write_bytes(b"")
    prepare(broken, broken, video_set=VIDEO_SETS["action_shapes"], log=quiet)
    about = recipe_data(override(recipe, [f"data.root={broken}"])).describe()
    assert about["undecodable"] == 2 and about["left_out"] == [clip.path for clip in lost]
    assert lost[0].path in caplog.text


def test_the_limit_of_failed_clips_is_that_of_all_processes_together(
    root: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """One process meets two broken clips, more than the limit, the other one; both stop with the same three."""
    from vcreg_hub.data.batches import Order

    broken = shutil.copytree(root, tmp_path / "set")
    train_clips = load_run_sets(recipe).train
    # Of an epoch's order what comes after the first step, so that the end of the epoch is where it is seen.
    places = [[place for _, place in Order(train_clips, 1, 0, rank, 2)][4:] for rank in (0, 1)]
    for place in (*places[0][:2], places[1][0]):
        (broken / "videos" / train_clips[place].path).write_bytes(b"")
    plain = override(recipe, [f"data.root={broken}", "video.max_failed=1", "train.mixup=0", "train.cutmix=0"])
    (tmp_path / "recipe.json").write_text(to_json(plain))
    processes = _two_processes(tmp_path / "recipe.json", tmp_path / "two")
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], said
    last = {text.strip().splitlines()[-1] for text in said}
    assert len(last) == 1 and "3 clips failed to decode, video.max_failed is 1" in last.pop(), said
    assert "(2 clips so far)" in said[0] and "(2 clips so far)" not in said[1]
    assert not (tmp_path / "two" / "last.safetensors").exists(), "nothing was saved of that epoch"


def _two_processes(recipe: Path, out: Path) -> list[subprocess.Popen[str]]:
    """`vcreg train` under two processes that nobody ends when one of them does, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vcreg_hub", "train", str(recipe), "--out", str(out)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "HF_HUB_OFFLINE": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


def load_run_sets(recipe: Recipe):
    from vcreg_hub.data.video.datasets import load_videos

    assert recipe.video is not None
    return load_videos(recipe.data, recipe.video)


def test_an_exported_run_is_plain_transformers_also_with_other_frames(trained: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor

    from vcreg_hub.hub.export import write_export

    folder = write_export(trained, tmp_path / "export", licence="apache-2.0")
    loaded = AutoModelForVideoClassification.from_pretrained(folder).eval()
    _, videos, model = load_run(trained)
    clip = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(clip).logits, model.eval()(clip).logits)
    assert loaded.config.num_frames == 4 and list(loaded.config.label2id) == list(videos.class_names)
    assert list(AutoVideoProcessor.from_pretrained(folder).image_mean) == list(videos.mean)


def _torchrun(tmp_path: Path, recipe: Recipe, out: Path) -> subprocess.CompletedProcess:
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "vcreg_hub", "train", str(tmp_path / "recipe.json"), "--out", str(out)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, cwd=tmp_path)


def test_two_processes_train_what_one_trains(recipe: Recipe, tmp_path: Path) -> None:
    plain = override(
        recipe,
        ["train.mixup=0", "train.cutmix=0", "vcreg.sync=true", "optim.name=momentum", "optim.lr=0.05",
         "model.kwargs.drop_path=0.0", "model.kwargs.head_dropout=0.0"],
    )  # fmt: skip
    done = _torchrun(tmp_path, plain, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "processes: 2" in done.stdout
    assert json.loads((tmp_path / "two" / "env.json").read_text())["processes"] == 2
    one = train(plain, tmp_path / "one", log=quiet)
    tensors = read_tensors(tmp_path / "two" / "model.safetensors")
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-3, atol=1e-4)
    mine, theirs = one.results()["metrics"], results(tmp_path / "two")["metrics"]
    assert [row["metric"] for row in mine] == [row["metric"] for row in theirs]
    assert {r["metric"]: r["value"] for r in mine} == pytest.approx({r["metric"]: r["value"] for r in theirs}, abs=0.5)


def _own_videos(root: Path, folder: Path) -> Path:
    """Class folders of one's own: two of the made classes."""
    for name in CLASSES[:2]:
        shutil.copytree(root / "videos" / name, folder / name.replace("_", " "))
    return folder


def _fine_tuning(videos: Path, start: str, *settings: str) -> Recipe:
    return override(
        load_recipe("finetune:video"),
        [f"data.root={videos}", f"model.pretrained={start}", "model.name=videomae_tiny", "data.image_size=16",
         "data.workers=0", "video.frames=4", "video.clips=2", "video.crops=1", "train.epochs=2", "train.batch_size=4",
         f"model.kwargs={json.dumps({**SMALL, 'head_init_scale': 0.001})}", "data.val_fraction=0.2", *settings],
    )  # fmt: skip


def test_two_processes_fine_tune_a_network_of_ours_on_one_s_own_videos(
    root: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = _fine_tuning(_own_videos(root, tmp_path / "mine"), str(trained))
    done = _torchrun(tmp_path, recipe, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "processes: 2" in done.stdout
    found = results(tmp_path / "two")
    assert found["data"]["classes"] == ["slide down", "slide left"]
    assert "fold" not in found["metrics"][0], "a folder has one split"
    start, end = (read_tensors(run / "model.safetensors") for run in (trained, tmp_path / "two"))
    assert start["classifier.weight"].shape[0] == 6 and end["classifier.weight"].shape[0] == 2
    body = "videomae.encoder.layer.0.intermediate.dense.weight"
    moved = (end[body] - start[body]).norm() / start[body].norm()
    assert 0 < moved < 0.1, "it started from the weights of the other run"


@pytest.mark.parametrize("kind", ["export", "hf"])
def test_fine_tuning_starts_from_any_checkpoint_and_a_list_file(
    kind: str, root: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vcreg_hub.hub.export import write_export

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    videos = _own_videos(root, tmp_path / "mine")
    files = sorted(videos.rglob("*.avi"))
    for part, chosen in (("train", files[::2]), ("test", files[1::2])):
        lines = [f"{path.relative_to(videos)} {int(path.parent.name == 'slide left')}\n" for path in chosen]
        (videos / f"{part}.csv").write_text("".join(lines))
    folder = write_export(trained, tmp_path / "export", licence="apache-2.0")
    recipe = _fine_tuning(videos, str(folder), "data.name=video_list", "train.epochs=1", "optim.warmup_epochs=0")
    recipe = override(recipe, ["train.batch_size=2", "data.val_fraction=0"])
    if kind == "hf":
        recipe = override(recipe, [f"model.name=hf:{folder}", "model.pretrained=true", "model.kwargs={}"])
    run = train(recipe, tmp_path / "run", log=quiet)
    assert run.results()["data"]["classes"] == ["class_0", "class_1"]
    again = write_export(run.path, tmp_path / "again", licence="apache-2.0")
    assert json.loads((again / "config.json").read_text())["architectures"] == ["VideoMAEForVideoClassification"]


@pytest.mark.parametrize("address", ["action_shapes:vivit_tiny_vcreg", "noise:action_shapes"])
def test_small_recipes_smoke(
    address: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "smoke-cache"))
    assert train(smoke_test(load_recipe(address)), tmp_path / "run", log=quiet).complete()


@pytest.mark.slow
@pytest.mark.parametrize("address", [a for a in addresses() if a.startswith(("hmdb51", "finetune:video", "noise:v"))])
def test_full_size_recipes_smoke(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert train(smoke_test(load_recipe(address)), tmp_path / "run", log=quiet).complete()


VIDEO_RECIPES = [a for a in addresses() if load_recipe(a).video is not None]


@pytest.mark.parametrize("address", VIDEO_RECIPES)
def test_video_recipes_say_what_they_assume_and_survive_json(address: str) -> None:
    recipe = load_recipe(address)
    assert from_json(to_json(recipe)) == recipe
    assert recipe.where == "final", "the paper regularizes what feeds the classifier"
    assert (recipe.video.clips, recipe.video.crops) == (10, 3)
    assert recipe.model.name in NETWORKS and recipe.video.frames == NETWORKS[recipe.model.name].frames
    for path in recipe.assumed:
        value = recipe
        for part in path.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    if address.startswith("hmdb51"):
        assert {"optim.layer_decay", "model.kwargs.drop_path", "model.kwargs.head_dropout"} <= set(recipe.assumed)
        assert ("vcreg.alpha" in recipe.assumed) == (recipe.vcreg is not None)
        assert (recipe.train.epochs, recipe.train.batch_size, recipe.optim.lr) == (50, 128, 1e-3)
        assert (recipe.train.mixup, recipe.train.cutmix, recipe.train.label_smoothing) == (0.8, 1.0, 0.1)
    if address.startswith("noise"):
        assert recipe.video.noise == 1.0 and recipe.video.noise_place == "normalised"


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["video.clips=0"], 2, "clips is a whole number from 1"),
        (["video.split=4"], 2, "video.split=4: action_shapes has splits 1 to 3"),
        (["eval.split=val", "data.val_fraction=0"], 2, "nothing is held out"),
        (["model.name=test_convnext", "model.kwargs={}"], 2, "test_convnext takes images"),
        (["video=null"], 2, "videomae_tiny takes clips"),
        (["model.kwargs.num_frames=8"], 2, "model.kwargs.num_frames=8 and video.frames=4 differ"),
        (["data.train_size=32"], 2, "clips have data.image_size=16 throughout"),
        (["data.labels=superclass"], 2, "videos have one label set"),
        (["data.name=hmdb51", "data.root=null"], 2, "vcreg data hmdb51"),
        (["data.name=hmdb51_like"], 1, "holds action_shapes, not hmdb51_like"),
        (["data.name=action_shapes:many"], 2, "expected action_shapes:<sources>x<clips of each>"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    settings: list[str], code: int, message: str, recipe: Recipe, tmp_path: Path
) -> None:
    _refused(recipe, settings, tmp_path, code, message)


def _refused(recipe: Recipe, settings: list[str], tmp_path: Path, code: int, message: str) -> None:
    """`vcreg train` ends with the exit code of an error that says `message`, and has trained nothing."""
    file, out = tmp_path / "recipe.json", tmp_path / "refused"
    file.write_text(to_json(recipe))
    changes = [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(app, ["train", str(file), *changes, "--out", str(out), "--no-bar"])
    assert getattr(done.exception, "exit_code", None) == code, (done.exception, done.output)
    assert message in str(done.exception)
    assert not (out / "state").exists() and not (out / "last.safetensors").exists()


def test_a_checkpoint_of_another_architecture_is_refused_before_training(
    recipe: Recipe, trained: Path, tmp_path: Path
) -> None:
    from vcreg_hub.hub.export import write_export

    folder = write_export(trained, tmp_path / "export", licence="apache-2.0")
    _refused(recipe, [f"model.pretrained={folder}", "model.kwargs.hidden_size=48"], tmp_path, 2,
             "is not a videomae_tiny: it has hidden_size 24 instead of 48")  # fmt: skip
    _refused(recipe, [f"model.pretrained={folder}", "model.name=vivit_tiny", "model.kwargs={}"], tmp_path,
             2, "is a 'videomae', but vivit_tiny is a 'vivit'")  # fmt: skip


def test_lists_with_a_label_that_no_class_has_or_a_class_without_training_clips_are_refused(
    root: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    videos = _own_videos(root, tmp_path / "mine")
    files = [path.relative_to(videos) for path in sorted(videos.rglob("*.avi"))]
    (videos / "classes.txt").write_text("down\nleft\n")
    own = ["data.name=video_list", f"data.root={videos}", "data.val_fraction=0"]

    def lists(train_labels: list[int], test_label: int) -> None:
        (videos / "train.csv").write_text("".join(f"{f} {n}\n" for f, n in zip(files, train_labels, strict=False)))
        (videos / "test.csv").write_text(f"{files[-1]} {test_label}\n")

    lists([0, 1, 2], 0)
    _refused(recipe, own, tmp_path, 1, "has label 2, but there are 2 classes (0 to 1)")
    lists([0, 0, 0], 1)
    _refused(recipe, own, tmp_path, 1, "no training clip has 1 (left)")


def test_a_prepared_set_with_other_counts_than_promised_is_refused(root: Path, recipe: Recipe, tmp_path: Path) -> None:
    """An index that calls itself HMDB51 but holds other clips."""
    fake = shutil.copytree(root, tmp_path / "set")
    about = json.loads((fake / "dataset.json").read_text())
    (fake / "dataset.json").write_text(json.dumps(about | {"name": "hmdb51"}))
    _refused(recipe, ["data.name=hmdb51", f"data.root={fake}"], tmp_path, 1, "hmdb51 has 51 classes")


def test_a_recipe_of_clips_and_one_of_images_do_not_mix() -> None:
    with pytest.raises(ConfigError, match="repeats is a whole number from 1"):
        Video(repeats=0)
    with pytest.raises(ConfigError, match="noise is a number from 0"):
        Video(noise=-1.0)
