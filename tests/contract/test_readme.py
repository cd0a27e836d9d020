"""The README's Python snippets run, in order and in one process; its commands name what exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from vcreg_hub.bench import throughput
from vcreg_hub.bench.table import render
from vcreg_hub.results.aggregate import differences
from vcreg_hub.results.report import read_summary, tabulated

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


COMMANDS = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def fenced(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.M | re.S)


def photos(folder: Path) -> None:
    """The images of one's own that the examples name."""
    for name in ("boots", "shirts"):
        (folder / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 48), (40, 90, 200)).save(folder / "photos" / name / "one.png")


def test_python_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path)
    snippets = fenced("python")
    assert snippets
    namespace: dict[str, object] = {"__name__": "readme"}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)


@pytest.mark.parametrize("page", [README, COMMANDS], ids=["README", "commands"])
def test_commands_exist(page):
    from typer.main import get_command

    from vcreg_hub.cli import app
    from vcreg_hub.recipes import addresses

    known = get_command(app).commands
    lines = [line for block in fenced("bash", page) for line in block.splitlines() if line.startswith("vcreg ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[1] in known, line
        options = {o for p in known[words[1]].params for o in p.opts + p.secondary_opts}
        assert {w.partition("=")[0] for w in words[2:] if w.startswith("--")} <= options, line
        if words[1] == "train" and not words[2].endswith(".json"):
            assert words[2] in addresses(), line


@pytest.mark.parametrize("name", ["scripts/quickstart", "scripts/test", "scripts/check"])
def test_scripts_the_readme_names_are_there(name):
    assert name in README and (Path(__file__).parents[2] / name).exists()


RESULTS = Path(__file__).parents[2] / "docs" / "results"
CHOOSING = (RESULTS.parent / "choosing.md").read_text(encoding="utf-8")


def test_the_measured_table_is_the_recorded_one():
    assert tabulated(read_summary(RESULTS / "fashion_mnist"), ["top1", "probe_top1"]).markdown() in README
    assert tabulated(read_summary(RESULTS / "hierarchy_convnext"), ["top1", "logreg_top1"]).markdown() in README
    assert tabulated(read_summary(RESULTS / "transfer_frozen"), ["logreg_top1"]).markdown() in README
    assert tabulated(read_summary(RESULTS / "transfer_digits"), ["top1"]).markdown() in README


GAINS = [
    ("hierarchy_resnet", "logreg_top1"),
    ("hierarchy_convnext", "logreg_top1"),
    ("class_incremental", "known_top1"),
    ("class_incremental", "unknown_top1"),
]


@pytest.mark.parametrize(("folder", "metric"), GAINS)
def test_what_vcreg_is_good_for_is_what_was_recorded(folder, metric):
    found = differences(read_summary(RESULTS / folder))
    (gain,) = (one for one in found if one.one.quantity.metric == metric and one.one.group.label == "vcreg")
    line = next(line for line in README.splitlines() if f"(`{folder}`)" in line and gain.shown in line)
    assert f"| {gain.baseline.shown} | {gain.one.shown} | {gain.shown} |" in line
    interval = "(95% CI {:+.2f} to {:+.2f})".format(*gain.interval)
    assert metric == "unknown_top1" or f"{gain.mean:+.2f} points {interval}" in CHOOSING


def test_the_numbers_on_videos_are_the_recorded_ones():
    rows = read_summary(RESULTS / "action_shapes_finetuned")
    means = [row for row in rows if row.folds and row.quantity.metric == "top1"]
    mean = {row.group.label.partition(",")[0]: row.mean for row in means}
    assert f"{mean['plain']:.1f}% without and {mean['vcreg']:.1f}% with VCReg" in " ".join(README.split())
    table = tabulated(rows, ["top1"]).markdown().splitlines()
    (difference,) = (line for line in table if "vcreg, mean of 3 splits - " in line)
    assert difference.split("|")[2].partition(" points ")[0].strip() in README


def _shown(folder: str) -> list[str]:
    if folder.startswith("moons"):
        return ["overlap_top1", "margin_p1", "margin"]
    if folder == "class_incremental":
        return ["known_top1", "unknown_top1"]
    if folder.startswith(("hierarchy", "transfer")):
        return ["top1", "logreg_top1"]
    return ["top1"] if "shapes" in folder else ["top1", "probe_top1"]


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/summary.json")))
def test_the_tables_of_the_results_page_are_the_recorded_ones(folder):
    """A whole line each: every number that the page shows of a folder is in its summary."""
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    table = tabulated(read_summary(RESULTS / folder), _shown(folder)).markdown()
    assert table in page and f"vcreg reproduce {folder}`" in page


def test_the_overhead_page_shows_what_its_json_files_hold():
    page = (RESULTS / "overhead" / "README.md").read_text(encoding="utf-8")
    for name, whole in (("cpu.json", True), ("cpu_bf16.json", False)):
        result = json.loads((RESULTS / "overhead" / name).read_text(encoding="utf-8"))
        assert result["env"]["device"] in page
        assert render(result if whole else result | {"blocks": []}) in page


def test_the_throughput_page_shows_what_its_json_file_holds():
    page = (RESULTS / "throughput" / "README.md").read_text(encoding="utf-8")
    result = json.loads((RESULTS / "throughput" / "cpu.json").read_text(encoding="utf-8"))
    assert result["env"]["device"] in page
    assert throughput.render(result) in page
