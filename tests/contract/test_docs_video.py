"""docs/video.md: its Python runs, and its commands, options, settings, recipes, experiments and scripts exist."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from vcreg_hub.config import override
from vcreg_hub.data.datasets import OWN_VIDEOS, VIDEO_SETS
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.recipes import load_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "video.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def as_vcreg(line: str) -> list[str] | None:
    """The words after `vcreg` of a line that comes to such a call; None for others."""
    words = shlex.split(line, comments=True)
    if words[0] == "vcreg":
        return words[1:]
    if "vcreg_hub" in words:
        return words[words.index("vcreg_hub") + 1 :]
    if words[0] == "sbatch":
        script = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
        assert (ROOT / words[script]).is_file(), line
        return ["train", *words[script + 1 :]]
    return None


COMMANDS = [line for block in fenced("bash") for line in block.splitlines() if as_vcreg(line) is not None]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line: str) -> None:
    from typer.main import get_command

    from vcreg_hub.cli import app

    words = as_vcreg(line)
    command = get_command(app).commands[words.pop(0)]
    if hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options
    name, settings = words[0], [after for word, after in itertools.pairwise(words) if word == "--set"]
    if command.name == "train":
        override(load_recipe(name), settings)
    elif command.name == "reproduce":
        for variant in EXPERIMENTS[name].variants:
            override(load_recipe(variant.recipe), settings)
    elif command.name == "data":
        assert name in VIDEO_SETS | OWN_VIDEOS


def test_settings_and_recipes_named_in_the_text_exist() -> None:
    recipe = load_recipe("hmdb51:videomae_base_vcreg")
    settings = {s.replace("\n", "") for s in re.findall(r"--set\s+([a-z_]+\.[a-z_]+=[^\s`;,]+)", PAGE)}
    assert len(settings) > 10
    for setting in settings:
        override(recipe, [setting])
    for address in re.findall(r"`([a-z0-9_]+:[a-z0-9_]+)`", PAGE):
        load_recipe(address)


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = fenced("python")
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "docs/video.md", "exec"), {"__name__": "page"})
    assert "effective_rank" in capsys.readouterr().out
