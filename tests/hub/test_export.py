"""A run folder out, plain timm and plain transformers in: the same logits, classes and preprocessing."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vcreg_hub
from vcreg_hub.config import Data, Model, Recipe, Video
from vcreg_hub.data.image.transforms import test_transform as view_of_the_run
from vcreg_hub.errors import RunFolderError, UnknownNameError, UsageError
from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.export import _check_target, write_export
from vcreg_hub.models.build import build_model
from vcreg_hub.models.libraries.timm import _crop_share
from vcreg_hub.models.outputs import logits
from vcreg_hub.models.video_networks import NETWORKS
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.rundir import RunDir

CLASSES = ["top", "trousers", "shoe: left", 'a "bag"']
VIT = dict(model_type="vit", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
TINY = {
    "resnet": dict(model_type="resnet", depths=[1, 1], hidden_sizes=[16, 32], embedding_size=8),
    "convnext": dict(model_type="convnext", depths=[1, 1], hidden_sizes=[8, 16], num_stages=2),
    "vit": VIT | {"patch_size": 8},
}


def make_run(folder: Path, name: str, in_chans: int = 3, size: int = 32, resize: int | None = 37, **kwargs) -> Path:
    """A finished run of an untrained network, its statistics moved away from their start."""
    data = Data("fashion_mnist", root="/srv/fashion", image_size=size, resize=resize, interpolation="bicubic")
    video = Video(frames=8) if name in NETWORKS else None
    recipe = Recipe("mine", Model(name, kwargs=kwargs), data, vcreg=VCReg(), video=video)
    torch.manual_seed(len(name))
    model = build_model(recipe.model, num_classes=len(CLASSES), in_chans=in_chans, image_size=size)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand_like(tensor)
    run = RunDir(folder)
    run.write_recipe(recipe)
    write_tensors(folder / "model.safetensors", model.state_dict())
    described = {"classes": CLASSES, "in_chans": in_chans, "image_size": size, "resize": resize}
    described |= {"mean": [0.3, 0.4, 0.5][:in_chans], "std": [0.2, 0.25, 0.3][:in_chans], "interpolation": "bicubic"}
    metric = {"metric": "top1", "value": 50.0, "unit": "%", "higher_is_better": True, "dataset": "fashion_mnist"}
    write_json(folder / "results.json", {"format": 1, "metrics": [metric], "training": {}, "data": described})
    write_json(folder / "env.json", {"python": "3.11", "packages": {}, "device": "CPU"})
    return folder


@torch.no_grad()
def run_logits(folder: Path) -> torch.Tensor:
    """Logits of the run's own network for a fixed input."""
    recipe, data = RunDir(folder).recipe(), RunDir(folder).results()["data"]
    model = build_model(
        recipe.model, num_classes=len(CLASSES), in_chans=data["in_chans"], image_size=data["image_size"]
    )
    model.load_state_dict(RunDir(folder).tensors())
    clip = (recipe.video.frames,) if recipe.video else ()
    return logits(model.eval()(fixed_input(*clip, data["in_chans"], data["image_size"])))


def fixed_input(*shape: int) -> torch.Tensor:
    """Two images or clips of `shape`, whose last number is the side of the square."""
    shape = (2, *shape, shape[-1])
    return torch.linspace(-2, 2, math.prod(shape)).sin().reshape(shape)


def image(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


WITHOUT_VCREG_HUB = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "vcreg_hub":
            raise ImportError("vcreg_hub cannot be imported here")
sys.meta_path.insert(0, Refuse())
try:
    import vcreg_hub
except ImportError:
    pass
else:
    sys.exit("vcreg_hub could be imported")
import numpy as np, timm, torch, transformers
from PIL import Image
torch.set_num_threads(1)
image = Image.fromarray(np.load(sys.argv[2]))
answers = {}
for name, (folder, kind, in_chans, size) in json.loads(sys.argv[1]).items():
    x = torch.linspace(-2, 2, 2 * in_chans * size * size).sin().reshape(2, in_chans, size, size)
    photo = image if in_chans == 3 else image.convert("L")
    answer = answers[name] = {}
    if kind == "video":
        clips = torch.linspace(-2, 2, 16 * x[0].numel()).sin().reshape(2, 8, *x.shape[1:])
        model = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
        processor = transformers.AutoVideoProcessor.from_pretrained(folder)
        answer["transformers"] = model(clips).logits.tolist()
        answer["transformers classes"] = [model.config.id2label[i] for i in range(model.config.num_labels)]
        frames = np.stack([np.asarray(photo.resize((size, size)))] * 8)
        answer["white"] = processor(list(255 + 0 * frames), return_tensors="pt")["pixel_values"][0, 0, :, 0, 0].tolist()
        continue
    if kind == "timm":
        model = timm.create_model(folder, pretrained=True).eval()
        config = timm.data.resolve_model_data_config(model)
        answer["timm"] = model(x).tolist()
        answer["timm classes"] = list(model.pretrained_cfg["label_names"])
        answer["timm view"] = timm.data.create_transform(**config, is_training=False)(photo).tolist()
    folder = folder.partition(":")[2] or folder
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    answer["transformers"] = model(x).logits.tolist()
    answer["transformers classes"] = [model.config.id2label[i] for i in range(model.config.num_labels)]
    answer["transformers view"] = processor(photo, return_tensors="pt")["pixel_values"][0].tolist()
with open(sys.argv[3], "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Runs of several kinds, their exports, and what a process without vcreg_hub makes of those."""
    root = tmp_path_factory.mktemp("export")
    for kind, config in TINY.items():
        write_json(root / "configs" / kind / "config.json", config)
    kinds = {
        "timm": ("test_convnext", dict(drop_path_rate=0.1)),
        "timm-grey": ("test_convnext", dict(in_chans=1, resize=None)),
        "timm-sized": ("test_vit", dict(size=48, resize=64)),
        "timm-pooled": ("test_vit", dict(global_pool="avg")),
        "torchvision": ("torchvision:resnet18", {}),
        **{f"hf-{kind}": (f"hf:{root / 'configs' / kind}", {}) for kind in TINY},
        "hf-grey": (f"hf:{root / 'configs' / 'resnet'}", dict(in_chans=1, resize=None)),
        "video-videomae": ("videomae_tiny", dict(resize=None)),
        "video-vivit": ("vivit_tiny", dict(resize=None)),
    }
    for key, (name, arguments) in kinds.items():
        write_export(make_run(root / "runs" / key, name, **arguments), root / "out" / key, licence="mit")
    asked = {}
    for key in kinds:
        data = RunDir(root / "runs" / key).results()["data"]
        scheme, library = ("local-dir:", "timm") if key.startswith(("timm", "torch")) else ("", key.partition("-")[0])
        asked[key] = (f"{scheme}{root / 'out' / key}", library, data["in_chans"], data["image_size"])
    np.save(root / "image.npy", np.asarray(image()))
    arguments = [json.dumps(asked), str(root / "image.npy"), str(root / "answers.json")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_VCREG_HUB, *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home")},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, json.loads((root / "answers.json").read_text())


KEYS = [
    "timm",
    "timm-grey",
    "timm-sized",
    "timm-pooled",
    "torchvision",
    "hf-resnet",
    "hf-convnext",
    "hf-vit",
    "hf-grey",
]


@pytest.mark.parametrize("key", [*KEYS, "video-videomae", "video-vivit"])
def test_identical_logits_in_a_process_without_this_package(exported, key):
    root, answers = exported
    expected = run_logits(root / "runs" / key)
    for library in ("timm", "transformers"):
        if library in answers[key]:
            found = torch.tensor(answers[key][library])
            # torchvision's ResNet is computed by timm's code: the same sums in another order.
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 if key == "torchvision" else 0)
    assert ("timm" in answers[key]) == key.startswith(("timm", "torch")) and "transformers" in answers[key]


@pytest.mark.parametrize("key", KEYS)
def test_class_names_and_preprocessing_travel(exported, key):
    root, answers = exported
    data = RunDir(root / "runs" / key).results()["data"]
    view = view_of_the_run(RunDir(root / "runs" / key).recipe().data, data["mean"], data["std"])
    expected = view(image("RGB" if data["in_chans"] == 3 else "L"))
    for library in ("timm", "transformers"):
        if library in answers[key]:
            assert answers[key][f"{library} classes"] == CLASSES
            found = torch.tensor(answers[key][f"{library} view"])
            # PIL and torchvision's tensor resize round a pixel differently by at most one step of 255.
            assert found.shape == expected.shape
            assert (found - expected).abs().max() <= 1.01 / 255 / min(data["std"])


@pytest.mark.parametrize("key", ["video-videomae", "video-vivit"])
def test_video_processors_normalise_as_the_run_did(exported, key):
    root, answers = exported
    data = RunDir(root / "runs" / key).results()["data"]
    assert answers[key]["transformers classes"] == CLASSES
    assert answers[key]["white"] == pytest.approx([(1 - m) / s for m, s in zip(data["mean"], data["std"], strict=True)])


def test_only_what_is_meant_to_be_published(exported):
    root, _ = exported
    common = {"config.json", "env.json", "model.safetensors", "recipe.json", "results.json"}
    assert {path.name for path in (root / "out" / "timm").iterdir()} == common
    assert {path.name for path in (root / "out" / "hf-vit").iterdir()} == common | {"preprocessor_config.json"}
    for path in (root / "out").rglob("*.json"):
        assert str(root) not in path.read_text() and "/srv" not in path.read_text(), path


def test_configuration(exported):
    root, _ = exported
    config = json.loads((root / "out" / "timm" / "config.json").read_text())
    assert config["architecture"] == "test_convnext" and config["num_classes"] == 4
    assert config["pretrained_cfg"]["license"] == "mit"
    assert "num_classes" not in config["model_args"] and "drop_path_rate" not in config["model_args"]
    assert json.loads((root / "out" / "torchvision" / "config.json").read_text())["architecture"] == "resnet18"
    assert RunDir(root / "out" / "hf-vit").recipe().model.name == "hf:vit"
    assert RunDir(root / "out" / "timm").recipe().data.root is None


def test_a_folder_of_exports_is_found_by_name(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "convnext_atto_vcreg", in_chans=1, resize=None)
    write_export(run, tmp_path / "hub" / "convnext_atto_vcreg.fashion_mnist", licence="mit")
    monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path / "hub"))
    model = timm.create_model("convnext_atto_vcreg", pretrained=True).eval()
    assert model.num_classes == 4 and len(model.vcreg.sites) == 12
    assert torch.equal(model(fixed_input(1, 32)), run_logits(run))
    config = timm.data.resolve_model_data_config(model)
    assert tuple(config["input_size"]) == (1, 32, 32) and config["crop_pct"] == 1.0 and tuple(config["mean"]) == (0.3,)
    assert model.pretrained_cfg["architecture"] == "convnext_atto"


def test_our_own_architecture(tmp_path):
    run = make_run(tmp_path / "run", "resnet32_cifar", resize=None)
    out = write_export(run, tmp_path / "out", licence="mit")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert torch.equal(model(fixed_input(3, 32)), run_logits(run))


def test_torchvision_without_a_twin_says_how_it_is_loaded(tmp_path, monkeypatch):
    import safetensors.torch
    import torchvision

    run = make_run(tmp_path / "run", "torchvision:mobilenet_v2")
    out = write_export(run, tmp_path / "out", licence="mit")
    config = json.loads((out / "config.json").read_text())
    assert config["library"] == "torchvision" and config["label_names"] == CLASSES
    with pytest.raises(
        UsageError, match=r"holds weights for torchvision, but test_vit is .*use torchvision:mobilenet_v2"
    ):
        build_model(Model("test_vit", pretrained=str(out)), num_classes=4, in_chans=3, image_size=32)
    again = build_model(
        Model("torchvision:mobilenet_v2", pretrained=str(out)), num_classes=4, in_chans=3, image_size=32
    )
    assert torch.equal(again.eval()(fixed_input(3, 32)), run_logits(run))
    assert "neither timm nor transformers loads this" in config["note"]
    scope = {"torchvision": torchvision, "safetensors": safetensors}
    scope |= {name: config[name] for name in ("architecture", "model_args")}
    monkeypatch.chdir(out)
    exec(config["note"].partition("this: ")[2], scope)
    assert torch.equal(scope["model"].eval()(fixed_input(3, 32)), run_logits(run))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_the_card_of_torchvision_s_own_network_runs_as_it_is_printed(tmp_path, monkeypatch, in_chans):
    run = make_run(tmp_path / "run", "torchvision:mobilenet_v2", in_chans=in_chans)
    out = write_export(run, tmp_path / "out", licence="mit")
    card = write_card(out, licence="mit").read_text(encoding="utf-8")
    loads, shows, looks = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    monkeypatch.chdir(out)
    Image.effect_noise((40, 36), 80).convert("RGB").save("picture.png")
    names: dict = {}
    for snippet in (loads, shows, looks):
        exec(compile(snippet, "card", "exec"), names)
    assert names["logits"].shape == (1, 4) and names["embeddings"].shape == (1, 1280)
    (ours,) = vcreg_hub.predict(out, "picture.png", top_k=3)
    assert names["answers"] == pytest.approx(dict(ours.classes), rel=1e-3)


def test_other_weights_come_without_the_metrics_of_these(tmp_path):
    run = make_run(tmp_path / "run", "test_vit")
    with pytest.raises(RunFolderError, match=r"has no last.safetensors; it has model"):
        write_export(run, tmp_path / "out", licence="mit", weights="last")
    tensors = RunDir(run).tensors()
    write_tensors(run / "last.safetensors", {name: tensor + 1 for name, tensor in tensors.items()})
    out = write_export(run, tmp_path / "out", licence="mit", weights="last")
    assert torch.equal(RunDir(out).tensors()["norm.bias"], tensors["norm.bias"] + 1)
    assert RunDir(out).results()["metrics"] == []
    assert RunDir(out).results()["training"]["selected"] == "last"


@pytest.mark.parametrize("licence", ["", None])
def test_no_licence_is_assumed(tmp_path, licence):
    with pytest.raises(UsageError, match=r"no licence yet"):
        write_export(make_run(tmp_path / "run", "test_vit"), tmp_path / "out", licence=licence)
    with pytest.raises(UnknownNameError, match=r"did you mean .*'apache-2.0'"):
        write_export(tmp_path / "run", tmp_path / "out", licence="apache-2")


def test_a_folder_that_is_there_is_not_overwritten_unasked(tmp_path):
    run = make_run(tmp_path / "run", "test_vit")
    (tmp_path / "out").mkdir()
    write_export(run, tmp_path / "out", licence="mit")
    (tmp_path / "out" / "README.md").write_text("a card")
    with pytest.raises(UsageError, match=r"exists already"):
        write_export(run, tmp_path / "out", licence="mit")
    assert (tmp_path / "out" / "README.md").exists()
    write_export(run, tmp_path / "out", licence="mit", overwrite=True)
    assert not (tmp_path / "out" / "README.md").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


FOREIGN = {
    "a file": (None, r"out is not an export \(out\)"),
    "somebody's folder": (
        ["notes.txt", "thesis.tex"],
        r"not an export \(notes\.txt, thesis\.tex\) and is left as it is",
    ),
    "an export and a file more": (["config.json", "model.safetensors", "notes.txt"], r"not an export \(notes\.txt\)"),
    "a folder below": (["config.json", "README.md", "data/"], r"not an export \(data\)"),
    "pictures only": (["curve.png", "README.md"], r"not an export \(no config\.json\)"),
    "a run folder": (["model.safetensors", "recipe.json", "results.json", "env.json"], r"not an export \(no config"),
    "a run folder with more": (["config.json", "metrics.csv"], r"not an export \(metrics\.csv\)"),
}
REPLACEABLE = {
    "nothing there": None,
    "an empty folder": [],
    "an export": ["config.json", "model.safetensors", "recipe.json", "results.json", "env.json"],
    "an export with its card": ["config.json", "README.md", "SHA256SUMS", ".eval_results/", "curve.png"],
    "transformers' export": ["config.json", "preprocessor_config.json", "video_preprocessor_config.json"],
}


def laid_out(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("somebody's")
    return folder


@pytest.mark.parametrize("names, message", FOREIGN.values(), ids=list(FOREIGN))
def test_only_an_export_may_be_replaced(tmp_path, names, message):
    to = tmp_path / "out"
    if names is None:
        to.write_text("somebody's")
    else:
        laid_out(to, names)
    with pytest.raises(UsageError, match=r"exists already"):
        _check_target(to, overwrite=False)
    with pytest.raises(UsageError, match=message):
        _check_target(to, overwrite=True)
    assert to.is_file() or sorted(path.name for path in to.iterdir()) == sorted(name.strip("/") for name in names)


@pytest.mark.parametrize("names", REPLACEABLE.values(), ids=list(REPLACEABLE))
def test_what_an_export_may_replace(tmp_path, names):
    to = tmp_path / "out" if names is None else laid_out(tmp_path / "out", names)
    _check_target(to, overwrite=True)
    if names:
        with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
            _check_target(to, overwrite=False)
    else:
        _check_target(to, overwrite=False)


def test_every_file_of_an_export_counts_as_one(exported):
    root, _ = exported
    for path in (root / "out").iterdir():
        _check_target(path, overwrite=True)


def test_a_failed_export_leaves_what_was_there(tmp_path):
    run = make_run(tmp_path / "run", "test_vit")
    out = write_export(run, tmp_path / "out", licence="mit")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    tensors = RunDir(run).tensors()
    write_tensors(run / "model.safetensors", {k: v for k, v in tensors.items() if k != "norm.bias"})
    with pytest.raises(UsageError, match=r"1 missing \(norm.bias\)"):
        write_export(run, out, licence="mit", overwrite=True)
    write_tensors(run / "model.safetensors", tensors)
    write_json(run / "env.json", {"device": "CPU", "note": "data in /home/somebody/data"})
    with pytest.raises(UsageError, match=r"env.json would publish note: an absolute path: /home/somebody/data"):
        write_export(run, out, licence="mit", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_what_the_run_folder_lacks(tmp_path):
    run = make_run(tmp_path / "run", "test_vit")
    results = RunDir(run).results()
    write_json(run / "results.json", {**results, "data": {**results["data"], "mean": None, "classes": []}})
    with pytest.raises(RunFolderError, match=r"lacks data.classes, data.mean"):
        write_export(run, tmp_path / "out", licence="mit")
    (run / "results.json").unlink()
    with pytest.raises(RunFolderError, match=r"has no results.json"):
        write_export(run, tmp_path / "out", licence="mit")


def test_paths_in_a_recipe_are_cut_to_their_last_name(tmp_path):
    run = make_run(tmp_path / "run", "test_vit")
    recipe = RunDir(run).recipe()
    model = dataclasses.replace(recipe.model, pretrained="/home/somebody/runs/a")
    RunDir(run).write_recipe(dataclasses.replace(recipe, model=model))
    out = write_export(run, tmp_path / "out", licence="mit")
    assert RunDir(out).recipe().model.pretrained == "a"


@pytest.mark.parametrize("size", [28, 32, 96, 160, 224, 288, 384])
def test_crop_share_is_read_back_exactly(size):
    for resize in range(size, 3 * size):
        share = json.loads(json.dumps(_crop_share(size, resize)))
        assert math.floor(size / share) == resize
        assert abs(share - size / resize) < 1e-12
