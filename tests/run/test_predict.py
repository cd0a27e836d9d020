"""Predictions for files: by name, folder or module, grey or colour, images or videos, and what cannot be read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pyarrow import parquet

import vcreg_hub
from vcreg_hub.data.video.decode import decode_frames, write_video
from vcreg_hub.errors import DataError, UsageError
from vcreg_hub.models.checkpoint import load_checkpoint

GREY = "resnet32_cifar_vcreg.fashion_mnist"
CLIPS = "videomae_tiny_vcreg.action_shapes"


def picture(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 255, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def video(path: Path, seed: int, frames: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    write_video(path, random.randint(0, 255, (frames, 48, 64, 3)).astype(np.uint8))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three pictures in two class folders, and what is none."""
    picture(tmp_path / "in" / "cat" / "b.png", 1)
    picture(tmp_path / "in" / "cat" / "a.jpg", 2)
    picture(tmp_path / "in" / "dog" / "c.PNG", 3, "L")
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    picture(tmp_path / "in" / ".hidden" / "d.png", 4)
    return tmp_path / "in"


def test_the_classes_are_those_of_the_logits(folder):
    found = vcreg_hub.predict(GREY, folder, top_k=3)
    assert [Path(one.path).name for one in found] == ["a.jpg", "b.png", "c.PNG"]
    model = timm.create_model(GREY, pretrained=True, vcreg=False).eval()
    view = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    names = load_checkpoint(GREY).view.classes
    for one in found:
        with torch.no_grad():
            chances = model(view(Image.open(one.path).convert("L"))[None]).softmax(1)[0]
        order = chances.argsort(descending=True)[:3].tolist()
        assert [name for name, _ in one.classes] == [names[i] for i in order]
        np.testing.assert_allclose([p for _, p in one.classes], chances[order], atol=1e-5)
        assert one.error is None


def test_more_classes_than_there_are_is_all_of_them(folder):
    (one, *_) = vcreg_hub.predict(GREY, [folder / "cat" / "a.jpg"], top_k=50)
    assert len(one.classes) == 10 and sum(p for _, p in one.classes) == pytest.approx(1, abs=1e-5)


def test_a_module_without_names_numbers_its_classes(folder):
    model = timm.create_model("test_convnext", num_classes=3)
    (one,) = vcreg_hub.predict(model, folder / "cat" / "a.jpg", top_k=1)
    assert one.classes[0][0] in {"0", "1", "2"}


def test_colour_files_of_a_grey_network_are_said(folder, caplog):
    vcreg_hub.predict(GREY, folder)
    assert "2 files are colour: the network sees them in grey" in caplog.text


def test_grey_files_of_a_colour_network_are_said(folder, caplog):
    model = timm.create_model("test_convnext", num_classes=3)
    vcreg_hub.predict(model, folder)
    assert "1 file is grey: the network sees it in three equal channels" in caplog.text


def test_a_grey_file_is_three_equal_channels(folder):
    model = timm.create_model("test_convnext", num_classes=3)
    grey = folder / "dog" / "c.PNG"
    colour = folder / "dog" / "same.png"
    Image.open(grey).convert("RGB").save(colour)
    one, other = vcreg_hub.predict(model, [grey, colour])
    assert one.classes == other.classes


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(folder):
    broken, empty = folder / "cat" / "broken.png", folder / "cat" / "empty.jpg"
    broken.write_bytes((folder / "cat" / "b.png").read_bytes()[:200])
    empty.write_bytes(b"")
    whole = {one.path: one.classes for one in vcreg_hub.predict(GREY, [folder / "cat" / "b.png", folder / "dog"])}
    found = vcreg_hub.predict(GREY, folder)
    errors = {Path(one.path).name: one.error for one in found if one.error}
    assert errors.keys() == {"broken.png", "empty.jpg"}
    assert str(empty) in errors["empty.jpg"] and "0 bytes" in errors["empty.jpg"]
    assert all(not one.classes for one in found if one.error)
    for one in found:
        if one.path in whole:
            assert [name for name, _ in one.classes] == [name for name, _ in whole[one.path]]


def test_nothing_readable_is_an_error(folder):
    (folder / "cat" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the 1 files can be read: .*b\.png does not decode"):
        vcreg_hub.predict(GREY, folder / "cat" / "b.png")


@pytest.mark.parametrize(
    ("paths", "kind", "part"),
    [
        ([], UsageError, "no file or folder is given"),
        (["nothing.png"], UsageError, "there is no file or folder"),
        (["empty"], DataError, "no images there or below"),
        (["videos"], DataError, "it holds 1 videos, but the network takes images"),
    ],
)
def test_what_is_no_input_says_so(paths, kind, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    video(tmp_path / "videos" / "v.avi", 0)
    with pytest.raises(kind) as error:
        vcreg_hub.predict(GREY, paths)
    assert part in str(error.value)


@pytest.mark.parametrize(("top_k", "to", "part"), [(0, None, "top_k is 1 or more"), (1, "x.xls", "expected a name")])
def test_a_wrong_call_is_refused_before_anything_is_loaded(top_k, to, part):
    with pytest.raises(UsageError) as error:
        vcreg_hub.predict("no such model", "no such file", top_k, to=to)
    assert part in str(error.value)


def test_tables(folder, tmp_path):
    (folder / "cat" / "broken.png").write_bytes(b"")
    found = vcreg_hub.predict(GREY, folder, 2, to=tmp_path / "out.csv")
    vcreg_hub.predict(GREY, folder, 2, to=tmp_path / "out.parquet")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "error", "class_1", "probability_1", "class_2", "probability_2"]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for one, row, record in zip(found, rows, table, strict=True):
        assert row["path"] == record["path"] == one.path
        assert (record["error"] or None) == one.error == (row["error"] or None)
        if one.classes:
            assert row["class_2"] == record["class_2"] == one.classes[1][0]
            assert float(row["probability_1"]) == record["probability_1"] == one.classes[0][1]
        else:
            assert row["class_1"] == "" and record["class_1"] is None


def test_videos(tmp_path):
    video(tmp_path / "spin" / "a.avi", 1)
    video(tmp_path / "spin" / "b.mp4", 2, frames=3)
    (tmp_path / "spin" / "c.avi").write_bytes(b"no video")
    found = vcreg_hub.predict(CLIPS, tmp_path, 2)
    assert [Path(one.path).name for one in found] == ["a.avi", "b.mp4", "c.avi"]
    assert found[2].error and "c.avi" in found[2].error and not found[2].classes
    # By hand: the middle clip of 16 of the 20 frames, every second of them.
    checkpoint = load_checkpoint(CLIPS)
    indices = np.clip(np.linspace(2, 18, 8), 2, 17).astype(int).tolist()
    frames = decode_frames(tmp_path / "spin" / "a.avi", indices).permute(0, 3, 1, 2)
    from torchvision.transforms import v2

    small = v2.functional.center_crop(v2.functional.resize(frames, [32, 42], antialias=True), [32, 32])
    clip = v2.functional.normalize(small.float() / 255, checkpoint.view.mean, checkpoint.view.std)
    with torch.no_grad():
        chances = checkpoint.network(clip[None]).logits.softmax(1)[0]
    best = int(chances.argmax())
    assert found[0].classes[0][0] == checkpoint.view.classes[best]
    assert found[0].classes[0][1] == pytest.approx(float(chances[best]), abs=0.02)


def test_json_is_a_list_with_one_object_a_file(folder, capsys):
    from vcreg_hub.cli.use import predict

    (folder / "cat" / "broken.png").write_bytes(b"")
    predict(GREY, [str(folder)], 2, None, 64, 0, "no", as_json=True)
    out, err = capsys.readouterr()
    listed = json.loads(out)
    assert len(listed) == 4 and {row["path"] for row in listed} >= {str(folder / "cat" / "a.jpg")}
    read = next(row for row in listed if row["path"].endswith("a.jpg"))
    assert read["error"] is None and len(read["predictions"]) == 2
    assert read["predictions"][0]["probability"] >= read["predictions"][1]["probability"]
    assert "1 of 4 files cannot be read" in err


def test_a_terminal_gets_a_table(folder, capsys, tmp_path):
    from vcreg_hub.cli.use import predict

    predict(GREY, [str(folder / "cat")], 2, tmp_path / "t.csv", 64, 0, "no")
    out, err = capsys.readouterr()
    assert "a.jpg" in out and "%" in out and "t.csv" in err


def test_two_processes_give_the_same_list_once(folder):
    program = "import sys; sys.argv = ['vcreg', 'predict', sys.argv[1], sys.argv[2], '--json', '--top-k', '1']\n"
    program += "from vcreg_hub.cli import main; main()"
    alone = vcreg_hub.predict(GREY, folder, 1)
    import two_processes

    port = str(two_processes.free_port())
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, GREY, folder],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        texts = [process.communicate(timeout=200)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert texts[1] == ""
    listed = json.loads(texts[0])
    assert [(row["path"], row["predictions"][0]["class"]) for row in listed] == [
        (one.path, one.classes[0][0]) for one in alone
    ]


def test_the_command_lists_files_that_can_be_read_beside_those_that_cannot(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from vcreg_hub.cli import app

    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32), 90).save("fine.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    for names in (["fine.png", "broken.png"], ["broken.png", "fine.png"]):
        done = CliRunner().invoke(app, ["predict", "resnet32_cifar_vcreg", *names, "--top-k", "2"])
        assert done.exit_code == 0, done.exception
        lines = [line.split("\t") for line in done.stdout.splitlines() if ".png" in line]
        assert [line[0] for line in lines] == names and {len(line) for line in lines} == {3}
