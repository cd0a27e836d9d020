"""The README's shell commands, run as they stand, in order, in one folder. Minutes; run by hand: pytest -m e2e."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# Commands that reach the Hub, for which the loopback hub's tests stand, and one that takes half an hour.
LEFT_OUT = ("vcreg train finetune:", "vcreg publish", "vcreg reproduce")


def commands(page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("vcreg ")]


def draw_own_images(root: Path) -> None:
    """What the README calls photos/, labels.csv and sorted/: the same images, their labels said in three ways."""
    lines = ["path,kind,colour"]
    for number in range(40):
        kind, colour = ("cat", "dog")[number % 2], ("black", "white")[number // 2 % 2]
        image = Image.new("RGB", (36, 36), (200 * (kind == "cat"), number, 200 * (colour == "white")))
        for folder in (f"photos/{kind}/{kind} {colour}", f"sorted/by_kind/{kind}", f"sorted/by_colour/{colour}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / folder / f"{number}.jpg")
        lines.append(f"photos/{kind}/{kind} {colour}/{number}.jpg,{kind},{colour}")
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_commands_run_in_order(tmp_path):
    draw_own_images(tmp_path)
    ran = 0
    for line in commands():
        if line.startswith(LEFT_OUT):
            continue
        words = shlex.split(line, comments=True)[1:]
        if words[1].startswith("folder:"):
            words += ["--set", "train.epochs=1", "--set", "data.image_size=32", "--set", "data.resize=32"]
        done = subprocess.run(
            [sys.executable, "-m", "vcreg_hub", *words],
            cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 13
    assert (tmp_path / "exports" / "a" / "README.md").exists()


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_the_commands_of_the_page_on_commands_run_in_order(tmp_path):
    for line in commands("docs/commands.md"):
        done = subprocess.run(
            [sys.executable, "-m", "vcreg_hub", *shlex.split(line)[1:]],
            cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
    assert (tmp_path / "runs" / "optuna" / "summary.json").exists()


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_quickstart(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "quickstart.py"), str(tmp_path / "quickstart")],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "logits equal to the last bit" in done.stdout and "not yet run" not in done.stdout
    assert (tmp_path / "quickstart" / "report.png").exists()
    assert (tmp_path / "quickstart" / "export" / "README.md").exists()
