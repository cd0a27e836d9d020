"""docs/use.md: its Python runs, and its commands run too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

PAGE = (Path(__file__).parents[2] / "docs" / "use.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Where the page's examples run: a folder `photos` with two classes of images."""
    monkeypatch.chdir(tmp_path)
    for name, level in (("boots", 40), ("shirts", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 48), (level, level, 90)).save(tmp_path / "photos" / name / "one.png")
    (tmp_path / "output" / "train").mkdir(parents=True)
    trained = {"state_dict": timm.create_model("resnet18", num_classes=2).state_dict(), "epoch": 3}
    torch.save(trained, tmp_path / "output" / "train" / "last.pth.tar")
    (tmp_path / "names.txt").write_text("boots\nshirts\n", encoding="utf-8")
    return tmp_path


def test_python_snippets_run(photos):
    snippets = fenced("python")
    assert len(snippets) >= 2
    namespace: dict[str, object] = {"__name__": "page"}
    for snippet in snippets:
        exec(compile(snippet, "docs/use.md", "exec"), namespace)
    assert (photos / "photos.parquet").is_file()


def test_commands_run(photos):
    from vcreg_hub.cli import app

    lines = [line for block in fenced("bash") for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "vcreg"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"
        if "--to" in words:
            assert (photos / words[words.index("--to") + 1]).is_file()
