"""The package's table of contents, and what importing it costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vcreg_hub

SOURCE = Path(vcreg_hub.__file__)
# What a user of timm has not paid for already.
HEAVY = ("accelerate", "av", "datasets", "jinja2", "matplotlib", "pandas", "rich", "sklearn", "transformers", "typer")


def test_all_is_sorted_and_is_what_the_file_imports():
    """The table of homes, which Python reads, and the imports, which type checkers read, say the same."""
    imported = {
        alias.asname or alias.name: node.module
        for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert vcreg_hub.__all__ == sorted(vcreg_hub.__all__)
    assert set(vcreg_hub.__all__) == imported.keys()
    assert vcreg_hub._HOMES == imported


def test_the_contracts_names():
    contract = "VCReg vcreg_loss vcreg_gradient find_blocks attach register_model create_video_model create_image_model"
    assert set(contract.split()) <= set(vcreg_hub.__all__)


@pytest.mark.parametrize("name", vcreg_hub.__all__)
def test_every_name_is_there_and_documented(name):
    assert getattr(vcreg_hub, name).__doc__
    assert name in dir(vcreg_hub)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"has no attribute 'vcregg'"):
        vcreg_hub.vcregg  # noqa: B018


def test_importing_costs_what_timm_costs():
    program = (
        "import json, sys, time, timm\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import vcreg_hub\n"
        "seconds = time.process_time() - start\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "listed = timm.list_models('*_vcreg')\n"
        "print(json.dumps([seconds, sorted(new), listed]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    seconds, new, listed = json.loads(done.stdout)
    assert not set(HEAVY) & set(new)
    assert seconds < 0.3
    assert {"resnet50_vcreg", "convnext_tiny_vcreg", "vit_base_patch32_224_vcreg"} <= set(listed)
