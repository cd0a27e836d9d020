"""`vcreg data`: preparing a set from real archives, refusals with their exit codes, and what a user is told."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.video.stored_rar import COMPRESSED, pack, stored_rar
from PIL import Image
from typer.testing import CliRunner

from vcreg_hub.cli import app, main
from vcreg_hub.data.datasets import OWN_VIDEOS, POINT_SETS, VIDEO_SETS
from vcreg_hub.data.video import action_shapes, hmdb51
from vcreg_hub.data.video.action_shapes import ActionShapes, make
from vcreg_hub.data.video.decode import write_video
from vcreg_hub.data.video.hmdb51 import prepare
from vcreg_hub.data.video.index import read_index
from vcreg_hub.errors import DataError

runner = CliRunner()
SPEC = ActionShapes(sources=9, clips_per_source=1, height=16, width=16, min_frames=3, max_frames=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shapes") / "set", SPEC)


@pytest.fixture
def packed(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two archives of a small HMDB51."""
    folder = pack(made, tmp_path / "down loads")
    (folder / "all.rar").rename(folder / "hmdb51_org.rar")
    (folder / "splits.rar").rename(folder / "test_train_splits.rar")
    md5 = hashlib.md5((folder / "test_train_splits.rar").read_bytes()).hexdigest()
    row = replace(VIDEO_SETS["hmdb51"], classes=6, clips=54, train=30, test=18, split_md5=md5)
    monkeypatch.setitem(VIDEO_SETS, "hmdb51", row)
    return folder


def refused(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["vcreg", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, capsys.readouterr().err


def test_hmdb51_from_its_archives(packed: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = runner.invoke(app, ["data", "hmdb51", "--source", str(packed), "--out", str(out), "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert "54 clips in 6 classes" in result.stdout and "30 train, 0 validation, 18 test, 6 unused" in result.stdout
    assert "0 clips do not decode" in result.stdout and f"--set data.root={out}" in result.stdout
    assert "unpacking spin_back" in result.stderr and "54 of 54 clips counted" in result.stderr
    index = read_index(out)
    assert (
        index.clips == prepare(made, tmp_path / "plain", video_set=VIDEO_SETS["hmdb51_like"], log=lambda _: None).clips
    )
    looked = runner.invoke(app, ["data", "hmdb51", "--root", str(out)])
    assert "54 clips" in looked.stdout and "classes: slide_down, " in looked.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"down loads", "out", "plain"}, "nothing lies elsewhere"


def test_a_clip_that_does_not_decode_is_named(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "set"))
    broken = sorted((root / "videos" / "spin").iterdir())[1]
    broken.write_bytes(b"not a video")
    arguments = ["data", "hmdb51_like", "--source", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 clip does not decode" in result.stdout and broken.name in result.stdout
    looked = runner.invoke(app, ["data", "hmdb51_like", "--root", str(tmp_path / "out")])
    assert "1 clip does not decode" in looked.stdout


def test_action_shapes_is_made_from_its_seed(tmp_path: Path) -> None:
    def clips(out: str, seed: int) -> dict[str, bytes]:
        arguments = ["data", "action_shapes", "--out", str(tmp_path / out), "--sources", "4", "--seed", str(seed)]
        result = runner.invoke(app, [*arguments, "--workers", "0"])
        assert result.exit_code == 0, result.output
        assert "96 clips in 6 classes" in result.stdout
        videos = tmp_path / out / "videos"
        return {path.relative_to(videos).as_posix(): path.read_bytes() for path in videos.rglob("*.avi")}

    first = clips("a", 1)
    assert len(first) == 96 and first == clips("b", 1) == clips("a", 1)
    other = clips("c", 2)
    assert other.keys() == first.keys() and other != first


def test_an_interrupted_action_shapes_says_how_to_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    out, wrote, counted = tmp_path / "inter", action_shapes.write_video, hmdb51.measured
    arguments = ["action_shapes", "--out", out, "--sources", 4, "--workers", 0]

    def stops(*_: object) -> None:
        raise DataError("stopped")

    for module, name, real in ((action_shapes, "write_video", wrote), (hmdb51, "measured", counted)):
        monkeypatch.setattr(module, name, stops)
        assert "stopped" in refused(monkeypatch, capsys, *arguments)[1]
        code, err = refused(monkeypatch, capsys, "action_shapes", "--root", out)
        assert code == 1 and f"{out} is half made: repeat `vcreg data action_shapes --out {out}`" in err
        monkeypatch.setattr(module, name, real)
    result = runner.invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == 0 and "96 clips in 6 classes" in result.stdout


def test_clips_of_a_single_frame_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(5):
            frames = np.full((1 if i < 2 and name == "b" else 3, 16, 16, 3), 100, dtype=np.uint8)
            write_video(tmp_path / "own" / name / f"{i}.avi", frames)
    result = runner.invoke(app, ["data", "video_folder", "--root", str(tmp_path / "own")])
    assert "10 clips in 2 classes" in result.stdout
    assert "with a single frame: 2 clips, such as b/0.avi" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["hmdb"], 2, "did you mean 'hmdb51'"),
        (["hmdb51"], 2, "--root is missing"),
        (["hmdb51", "--out", "o"], 2, "--source is missing: the archives of hmdb51"),
        (["hmdb51", "--source", "{packed}"], 2, "--out is missing"),
        (["digits", "--out", "o"], 2, "digits needs no preparing"),
        (["action_shapes", "--out", "o", "--source", "{packed}"], 2, "takes no --source"),
        (["action_shapes", "--out", "{packed}"], 1, "holds no action_shapes set"),
        (["hmdb51", "--source", "nowhere", "--out", "o"], 1, "no such folder or archive"),
        (["hmdb51", "--source", "{packed}", "--out", "o", "--splits", "nowhere"], 1, "nowhere"),
        (["hmdb51", "--source", "{packed}", "--out", "{file}"], 1, "File exists"),
        (["video_folder", "--root", "nowhere"], 1, "there is no such folder"),
        (["hmdb51", "--root", "{packed}"], 1, "holds no video index"),
        (["hmdb51", "--out"], 2, "requires an argument"),
    ],
)
def test_refusals(packed: Path, tmp_path: Path, monkeypatch, capsys, arguments, code, part) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    given = [word.format(packed=packed, file=tmp_path / "file") for word in arguments]
    got, err = refused(monkeypatch, capsys, *given)
    assert (got, part in err, "Traceback" in err) == (code, True, False), err


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        ("truncated", "not a whole RAR archive"),
        ("page", "is not a RAR archive"),
        ("split archive", "MD5"),
        ("compressed", "apt install unar"),
        ("clips", "6,766 clips, but the split files list 54"),
        ("escape", "outside the target folder"),
    ],
)
def test_archives_that_are_not_hmdb51_s(packed: Path, tmp_path: Path, monkeypatch, capsys, damage, part) -> None:
    archive, lists = packed / "hmdb51_org.rar", packed / "test_train_splits.rar"
    if damage == "truncated":
        archive.write_bytes(archive.read_bytes()[:-2000])
    elif damage == "page":
        archive.write_bytes(b"<html>Moved</html>")
    elif damage == "split archive":
        lists.write_bytes(lists.read_bytes() + b"\n")
    elif damage == "compressed":
        monkeypatch.setenv("PATH", str(tmp_path))
        archive.write_bytes(stored_rar({"spin.rar": b"x"}, method=COMPRESSED))
    elif damage == "clips":
        monkeypatch.setitem(VIDEO_SETS, "hmdb51", replace(VIDEO_SETS["hmdb51"], clips=6766))
    else:
        archive.write_bytes(stored_rar({"../spin.rar": b"x"}))
    code, err = refused(monkeypatch, capsys, "hmdb51", "--source", packed, "--out", tmp_path / "out", "--workers", 0)
    assert code == 1 and part in err and "Traceback" not in err
    assert not (tmp_path / "out" / "dataset.json").exists() and not (tmp_path / "out" / "videos").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"down loads", "out"}


def test_the_list_names_every_set() -> None:
    listed = runner.invoke(app, ["data"]).stdout
    names = {line.split("\t")[1] for line in listed.splitlines()}
    assert {"digits", "imagenet", *VIDEO_SETS, *OWN_VIDEOS, *POINT_SETS} <= names
    told = json.loads(runner.invoke(app, ["data", "--json"]).stdout)
    assert {(row["kind"], row["name"]) for row in told} >= {("images", "digits"), ("videos", "hmdb51")}


def test_what_is_in_a_set_as_json() -> None:
    told = json.loads(runner.invoke(app, ["data", "digits", "--json"]).stdout)
    assert (told["train"], told["test"]) == (1297, 500) and told["classes"][:2] == ["0", "1"]


def test_what_was_prepared_is_told_as_it_is_set(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "my shapes"
    arguments = ["data", "hmdb51_like", "--source", str(made), "--out", str(out), "--workers", "0"]
    last = runner.invoke(app, arguments).stdout.splitlines()[-1]
    assert shlex.split(last)[1:] == ["--set", "data.name=hmdb51_like", "--set", f"data.root={out}"]
    told = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert told["folder"] == str(out) and told["settings"] == ["data.name=hmdb51_like", f"data.root={out}"]
    assert told["clips"] == 54 and len(told["classes"]) == 6


def test_points_are_described() -> None:
    printed = runner.invoke(app, ["data", "moons:0.1"]).stdout
    assert printed == "moons:0.1: 300 train, 2000 val, 10000 test, drawn by each seed\nclasses: left, right\n"
    told = json.loads(runner.invoke(app, ["data", "moons:0.1", "--json"]).stdout)
    assert (told["train"], told["test"], told["classes"]) == (300, 10000, ["left", "right"])


def test_a_whole_set_is_checked_and_what_is_broken_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8)).save(tmp_path / "set" / split / name / f"{i}.png")
    arguments = ["data", "folder", "--root", str(tmp_path / "set"), "--check", "--workers", "2"]
    whole = runner.invoke(app, arguments)
    assert whole.exit_code == 0 and not whole.stdout, whole.output
    assert "12 of 12 images decoded" in whole.stderr and "all images of folder can be read" in whole.stderr
    bad = tmp_path / "set" / "train" / "dog" / "1.png"
    bad.write_bytes(b"<html>")
    code, err = refused(monkeypatch, capsys, *arguments[1:])
    assert code == 1 and err.splitlines()[-1] == "vcreg: 1 images of folder cannot be read"
    listed = runner.invoke(app, arguments)
    assert listed.stdout.splitlines()[0] == "train:" and str(bad) in listed.stdout.splitlines()[1]
    found = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert found["name"] == "folder" and str(bad) in found["broken"]["train"][0]


def test_the_check_of_videos_decodes_them_again(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "set"))
    prepare(root, tmp_path / "out", video_set=VIDEO_SETS["hmdb51_like"], log=lambda _: None)
    arguments = ["data", "hmdb51_like", "--root", str(tmp_path / "out"), "--check", "--workers", "0"]
    assert runner.invoke(app, arguments).exit_code == 0
    broken = sorted((root / "videos" / "spin").iterdir())[1]
    broken.write_bytes(b"not a video")
    found = runner.invoke(app, [*arguments, "--json"])
    assert found.exit_code == 1 and broken.name in str(json.loads(found.stdout)["broken"])


def test_a_check_is_not_mixed_with_preparing(monkeypatch, capsys) -> None:
    for arguments in (["--check"], ["hmdb51", "--check", "--out", "somewhere"]):
        code, err = refused(monkeypatch, capsys, *arguments)
        assert code == 2 and "--check is of one data set that is there" in err
