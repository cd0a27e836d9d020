"""The cards of the releases: every snippet runs as it is printed, the counts are those by hand, and nothing drifts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub.folders import make_run, results
from torch import nn

import vcreg_hub
from vcreg_hub.checkpoints.find import find_weights
from vcreg_hub.files import write_text
from vcreg_hub.hub.card import render, write_card
from vcreg_hub.hub.export import network_size
from vcreg_hub.hub.index import cards_folder, drifted, read_records, refresh
from vcreg_hub.hub.pictures import draw_pictures, picture_names, recorded
from vcreg_hub.hub.runs import collect
from vcreg_hub.models.build import load_network
from vcreg_hub.models.libraries.library import Preprocessing

RECORDS = {record.name: record for record in read_records(cards_folder())}
IMAGES = [name for name, record in RECORDS.items() if record.task.startswith("image")]
# Counted by hand, layer by layer, of one grey 32 x 32 image or one clip of 8 frames of 3 x 32 x 32.
_RESNET = (
    9 * 16 * 32**2  # the first convolution
    + 10 * 9 * 16 * 16 * 32**2
    + (9 * 16 * 32 + 9 * 9 * 32 * 32) * 16**2
    + (9 * 32 * 64 + 9 * 9 * 64 * 64) * 8**2
    + 64 * 10
)
BY_HAND = {
    "resnet32_cifar_vcreg.fashion_mnist": (463_866, _RESNET),
    "convnext_zepto_rms_vcreg.fashion_mnist": (1_900_202, 6_097_920),
    "videomae_tiny_vcreg.action_shapes": (261_222, 18_088_512),
}


def snippets(name: str) -> list[str]:
    text = (cards_folder() / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)


@pytest.fixture
def picture(tmp_path, monkeypatch) -> Path:
    """A scanned digit, the only real picture that always is at hand."""
    from PIL import Image
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    digit = Image.fromarray((load_digits().images[7] * 15.9).astype("uint8"))
    digit.resize((40, 36)).convert("RGB").save("picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", IMAGES)
def test_the_snippets_of_an_image_card_run_as_they_are_printed(name, picture):
    loads, shows, looks, pipes = snippets(name)
    names: dict = {}
    for snippet in (loads, shows, looks):
        exec(compile(snippet, "card", "exec"), names)
    assert names["logits"].shape == (1, 10) and names["features"].shape[0] == 1
    torch.testing.assert_close(names["model"].get_classifier()(names["embeddings"]), names["logits"])
    (ours,) = vcreg_hub.predict(name, picture, top_k=3)
    assert list(names["answers"]) == [of for of, _ in ours.classes]
    assert list(names["answers"].values()) == pytest.approx([share for _, share in ours.classes], rel=1e-4)
    piped: dict = {}
    exec(compile(pipes, "card", "exec"), piped)
    assert {one["label"]: one["score"] for one in piped["answers"]} == pytest.approx(names["answers"], rel=1e-4)


@pytest.mark.parametrize("name", IMAGES)
def test_without_the_line_for_grey_pictures_the_pipeline_fails(name, picture):
    """Where transformers learns to do it, the line can go."""
    (pipes,) = snippets(name)[3:]
    plain = "\n".join(line for line in pipes.splitlines() if "classify.image_processor =" not in line)
    with pytest.raises(RuntimeError, match="to have 1 channels, but got 3"):
        exec(compile(plain, "card", "exec"), {})


def test_a_grey_network_of_transformers_itself_works_by_the_lines_of_its_card(picture):
    from transformers import BitImageProcessor, ResNetConfig, ResNetForImageClassification

    run = make_run(
        picture.parent / "run", weights=False, values=results() | {"data": {"in_chans": 1, "image_size": 32}}
    )
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3, num_channels=1
    )
    ResNetForImageClassification(config).save_pretrained(run)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    BitImageProcessor(**sizes, image_mean=[0.5], image_std=[0.25], do_convert_rgb=False).save_pretrained(run)
    card = write_card(run, licence="mit").read_text(encoding="utf-8")
    loads, shows, looks, pipes = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    picture.rename(run / "picture.png")
    os.chdir(run)
    names: dict = {}
    for snippet in (loads, shows, looks, pipes):
        exec(compile(snippet, "card", "exec"), names)
    assert len(names["answers"]) == 3 and names["embeddings"].shape == (1, 8)


def test_the_snippets_of_a_video_card_run_as_they_are_printed(tmp_path, monkeypatch):
    from vcreg_hub.data.video.action_shapes import ActionShapes, draw_clip
    from vcreg_hub.data.video.decode import write_video

    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", draw_clip(ActionShapes(min_frames=30, max_frames=30), 0, 0, 0))
    names: dict = {}
    found = snippets("videomae_tiny_vcreg.action_shapes")
    assert len(found) == 3
    for snippet in found:
        exec(compile(snippet, "card", "exec"), names)
    assert names["logits"].shape == (1, 6) and len(names["answers"]) == 3 and len(names["frames"]) == 8
    assert names["prepared"]["pixel_values"].shape == (1, 8, 3, 32, 32)
    torch.testing.assert_close(names["last"](names["embeddings"]), names["logits"])


@pytest.mark.parametrize("name", RECORDS)
def test_parameters_and_multiply_adds_are_those_counted_by_hand(name):
    record, model = RECORDS[name], load_network(find_weights(name).folder)
    data = record.results["data"]
    view = Preprocessing([], data["in_chans"], data["image_size"], data["image_size"], "bilinear", [], [])
    counted = network_size(model, view)
    assert counted == record.results["network"] and (counted["parameters"], counted["macs"]) == BY_HAND[name]
    assert counted["macs"] == _slowly(model, torch.zeros(1, *counted["input"]))
    card = (cards_folder() / f"{name}.md").read_text(encoding="utf-8")
    assert f"parameters: {BY_HAND[name][0]:,}; multiply-adds for one" in card


def _slowly(model: nn.Module, x: torch.Tensor) -> int:
    """Of each convolution and linear layer outputs times inputs of one of them, and of attention twice tokens squared
    times width."""
    total = 0

    def count(module: nn.Module, given, made) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            total += made.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += made.numel() * module.in_features
        elif type(module).__name__ == "VideoMAEAttention":
            tokens, width = made[0].shape[-2:]
            total += 2 * tokens * tokens * width

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name", RECORDS)
def test_a_card_states_its_input_and_what_was_not_recorded(name):
    card = (cards_folder() / f"{name}.md").read_text(encoding="utf-8")
    video = name.startswith("videomae")
    expected = "clips of 8 frames, 2 apart, 3 channels, 32 x 32" if video else "1 channel (grey), 32 x 32 pixels"
    assert f"- input: {expected}" in card and "training curve: not recorded" in card
    assert ("features block by block: not recorded" in card) == video
    assert all((cards_folder() / file).is_file() for file in re.findall(r"!\[.*?\]\((.*?)\)", card))


# ---- the same record, the same bytes --------------------------------------------------------------------------------


def test_the_cards_are_the_golden_ones():
    assert drifted(cards_folder()) == [], "run scripts/cards"


def test_the_same_record_gives_the_same_bytes_in_another_process(tmp_path):
    for number, record in enumerate(RECORDS.values()):
        write_text(tmp_path / f"{number}.md", render(record))
    code = (
        "import sys; from pathlib import Path; from vcreg_hub.hub.card import render;"
        "from vcreg_hub.hub.index import cards_folder, read_records\n"
        "for n, one in enumerate(read_records(cards_folder())):\n"
        "    assert render(one) == Path(sys.argv[1], f'{n}.md').read_text(encoding='utf-8'), one.name"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", RECORDS)
def test_the_same_record_gives_the_same_pictures(name, tmp_path):
    record, drawn = RECORDS[name], []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        draw_pictures(record, folder, name)
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawn[0] == drawn[1] and set(drawn[0]) == {*record.plots} == {*picture_names(record, name).values()}


# ---- what a run recorded of itself ----------------------------------------------------------------------------------

METRICS = """epoch,train_loss,val_loss,val_top1,val_cdnv/layer1.0,val_cdnv/layer2.0
1,2.0,,10.0,,
2,1.0,1.5,nan,0.5,0.25
"""


def test_an_export_keeps_the_curve_and_the_blocks_that_its_card_draws(tmp_path):
    from vcreg_hub.config import Model
    from vcreg_hub.files import write_tensors
    from vcreg_hub.hub.export import write_export
    from vcreg_hub.models.build import build_model

    run = make_run(tmp_path / "run", weights=False, model=Model("test_resnet"))
    model = build_model(Model("test_resnet"), num_classes=3, in_chans=3, image_size=32)
    write_tensors(run / "model.safetensors", model.state_dict())
    (run / "metrics.csv").write_text(METRICS)
    folder = write_export(run, tmp_path / "out", licence="mit")
    record = collect(folder, licence=None)
    assert record.results["curve"] == {
        "epoch": [1.0, 2.0], "train_loss": [2.0, 1.0], "val_loss": [None, 1.5], "val_top1": [10.0, None]
    }  # fmt: skip
    assert record.results["blocks"] == {"CDNV, held out": {"layer1.0": 0.5, "layer2.0": 0.25}}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = write_card(folder).read_text(encoding="utf-8")
    assert f"parameters: {parameters:,};" in card and "not recorded" not in card
    for name in ("training_curve.png", "blocks.png"):
        assert f"![{name}]({name})" in card and (folder / name).read_bytes().startswith(b"\x89PNG")
    first = (folder / "training_curve.png").read_bytes()
    assert write_card(folder).read_text(encoding="utf-8") == card
    assert (folder / "training_curve.png").read_bytes() == first
    assert "parameters: not counted yet" in write_card(run, licence="mit").read_text(encoding="utf-8")


def test_one_epoch_is_no_curve_and_no_file_is_none():
    assert recorded([]) == {} and recorded([{"epoch": 1.0, "train_loss": 2.0}]) == {}


def test_refreshed_cards_are_left_as_they_are(tmp_path):
    import shutil

    copied = shutil.copytree(cards_folder(), tmp_path / "cards")
    assert refresh(copied) == []
