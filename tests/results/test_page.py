"""The page of a report: one file, nothing fetched, rows of one digest alone side by side."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.files import write_json, write_tensors, write_text
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.results.aggregate import recipe_id
from vcreg_hub.results.comparison import comparisons
from vcreg_hub.results.gallery import Gallery, Portrait, Reading, Similarity, Sprite
from vcreg_hub.results.page import write_page
from vcreg_hub.results.report import find_runs
from vcreg_hub.rundir import RunDir

RECIPE = Recipe("r", Model("convnext_atto"), Data("digits"), train=Train(epochs=2), vcreg=VCReg())
METRICS = """epoch,step,train_loss,val_top1,vcreg_gradient_share/a,vcreg_gradient_share/b,val_cdnv/a,val_cdnv/b
1,10,0.9,50,0.5,0.25,,
2,20,0.5,60,0.25,0.125,1.5,0.5
"""


def finished(path, recipe, **values):
    write_tensors(path / "model.safetensors", {"a": torch.zeros(1)})
    RunDir(path).write_recipe(recipe)
    row = {"unit": "%", "higher_is_better": True, "dataset": "digits", "dataset_config": "class", "split": "test"}
    write_json(path / "results.json", {"metrics": [{"metric": m, "value": v, **row} for m, v in values.items()]})
    write_json(path / "env.json", {})
    write_text(path / "metrics.csv", METRICS)


@pytest.fixture
def runs(tmp_path):
    """Two seeds with and without the regularizer, and a run that trained longer."""
    for seed in (0, 1):
        recipe = replace(RECIPE, train=replace(RECIPE.train, seed=seed))
        finished(tmp_path / "vcreg" / f"seed{seed}", recipe, top1=71.0 + seed)
        finished(tmp_path / "plain" / f"seed{seed}", replace(recipe, vcreg=None), top1=70.0)
    finished(tmp_path / "longer" / "seed0", replace(RECIPE, train=Train(epochs=9)), top1=90.0)
    return tmp_path


def gallery():
    portrait = Portrait(
        group=recipe_id(replace(RECIPE, train=replace(RECIPE.train, seed=0))),
        readings=(Reading("block_cdnv", "a", "class", "test", 1.0), Reading("block_cdnv", "b", "class", "test", 0.5)),
        spectrum=(3.0, 1.0, 0.0), points=((0.0, 0.0), (1.0, 2.0), (2.0, 1.0)), labels=(0, 1, 1), answers=(0, 1, 0),
        neighbours=((0, 1, 2),), mistakes=(2,),
    )  # fmt: skip
    plain = replace(portrait, group=recipe_id(replace(RECIPE, vcreg=None)))
    cka = Similarity(plain.group, portrait.group, ("a",), ("a",), ((0.5,),))
    pixel = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
    return Gallery(("zero", "</script><b>one"), "test", Sprite(pixel, 32, 20), (plain, portrait), (cka,), ("why not",))


def written(tmp_path, runs):
    compared = comparisons(find_runs([runs]))
    write_page(tmp_path / "report.html", compared, {compared[-1].digest: gallery()})
    return compared, (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_of_other_protocols_are_never_side_by_side(runs, tmp_path):
    compared, page = written(tmp_path, runs)
    assert [sorted(one.labels.values()) for one in compared] == [["longer"], ["plain", "vcreg"]]
    sections = page.split("<section>")[1:]
    assert len(sections) == 2 and compared[0].digest in sections[0] and compared[1].digest in sections[1]
    assert "90.00 %" in sections[0] and "90.00 %" not in sections[1]
    assert "9 epochs" in sections[0] and "2 epochs" in sections[1] and "Numbers stand in one" in page
    assert "+1.50 ± 0.71 points (95% CI -4.85 to +7.85)" in sections[1]


def test_the_same_protocol_has_the_same_digest_whatever_reads_the_data(runs, tmp_path):
    other = replace(RECIPE, name="other", data=replace(RECIPE.data, root="/elsewhere", workers=9))
    finished(runs / "other" / "seed0", other, top1=50.0)
    assert len(comparisons(find_runs([runs]))) == 2
    finished(runs / "less" / "seed0", replace(RECIPE, data=replace(RECIPE.data, train_images=10)), top1=50.0)
    assert len(comparisons(find_runs([runs]))) == 3


def test_the_page_is_one_file_that_asks_for_nothing(runs, tmp_path):
    _, page = written(tmp_path, runs)
    assert [found for found in re.findall(r"https?://[^\"' ]+", page) if "www.w3.org" not in found] == []
    assert not re.search(r"<(link|img|iframe)|\bsrc=|fetch\(|XMLHttpRequest|@import", page)
    assert "default-src 'none'" in page, "a browser refuses what the page might ask for"


def test_the_data_of_the_pictures(runs, tmp_path):
    _, page = written(tmp_path, runs)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))
    assert data[1]["classes"] == ["zero", "</script><b>one"] and "<b>one" not in page, "names are escaped"
    charts = data[1]["charts"]
    curve = next(chart for chart in charts["curves"] if chart["title"] == "Training loss")
    assert [line["points"] for line in curve["series"]] == [[[1, 0.9, ""], [2, 0.5, ""]]] * 4
    share = next(chart for chart in charts["blocks"] if chart["title"] == "Regularizer's share of the gradient")
    assert share["series"][0]["points"] == [[1, 0.25, "a"], [2, 0.125, "b"]], "of the last epoch"
    cdnv = next(chart for chart in charts["blocks"] if chart["title"] == "CDNV, by class")
    assert [line["name"] for line in cdnv["series"]] == ["plain", "vcreg"] and cdnv["log"]
    values, beside = charts["results"]
    assert [row["values"] for row in values["rows"]] == [[70.0, 70.0], [71.0, 72.0]]
    assert beside["signed"] and beside["rows"][0]["values"] == [1.0, 2.0]
    assert data[1]["similarity"][0]["rows"] == "plain" and data[0]["portraits"] == []


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_it(runs, tmp_path, width):
    written(tmp_path, runs)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
               "--virtual-time-budget=5000", "--dump-dom", str(tmp_path / "report.html")]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<svg") >= 15 and dom.count("<polyline") >= 20 and dom.count('class="tile"') >= 5
