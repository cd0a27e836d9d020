"""A card and the numbers beside it, one of them edited."""

from __future__ import annotations

import re

import pytest
from hub.folders import make_export, make_run, results, row

from vcreg_hub.errors import IntegrityError, UsageError
from vcreg_hub.files import write_json
from vcreg_hub.hub.bundle import read_bundle
from vcreg_hub.hub.card import write_card


@pytest.fixture
def folder(tmp_path, monkeypatch):
    benchmarks = {"zalando-datasets/fashion_mnist": {"top1": "top1_of_clothes"}}
    monkeypatch.setattr("vcreg_hub.hub.card_metadata._BENCHMARKS", benchmarks)
    return make_export(tmp_path / "export")


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "said", "measured"),
    [
        ("README.md", "91.25", "81.25"),
        ("results.json", "81.25", "91.25"),
        (".eval_results/zalando-datasets-fashion_mnist-class-test.yaml", "91.25", "81.25"),
    ],
)
def test_other_numbers_are_refused(folder, name, said, measured):
    read_bundle(folder)
    edit(folder / name, "81.25", "91.25")
    message = rf"top1.* of \S+ says {said}, its results.json {measured}.*`vcreg card {re.escape(str(folder))} --write`"
    with pytest.raises(IntegrityError, match=message):
        read_bundle(folder)
    write_card(folder)
    read_bundle(folder)


@pytest.mark.parametrize("edited", ["| 91.25 | 81.25 (n = 1) |", "| 81.25 | 91.25 (n = 1) |"])
def test_an_edited_table_is_refused(folder, edited):
    text = (folder / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| top1 (%) |"))
    other = line.replace("| 81.25 | 81.25 (n = 1) |", edited)
    assert other != line
    (folder / "README.md").write_text(text.replace(line, other), encoding="utf-8")
    message = rf"top1 \(%\): the table of the card .* says {re.escape(repr(other))}, .* {re.escape(repr(line))}"
    with pytest.raises(IntegrityError, match=message):
        read_bundle(folder)
    (folder / "README.md").write_text(text.replace(f"{line}\n", ""), encoding="utf-8")
    with pytest.raises(IntegrityError, match="nothing of it"):
        read_bundle(folder)


def test_a_metric_more_or_less_is_refused(folder):
    write_json(folder / "results.json", results(row(), row(99.0, metric="top5")))
    with pytest.raises(IntegrityError, match=r"top5.* says nothing, its results\.json 99\.0"):
        read_bundle(folder)


def test_the_numbers_of_several_seeds_and_folds_pass(folder, tmp_path):
    sibling = make_run(tmp_path / "sibling", seed=1, values=results(row(79.5)))
    twin = make_run(tmp_path / "twin", vcreg=None, values=results(row(70.0)))
    write_card(folder, siblings=[sibling], twins=[twin])
    read_bundle(folder)


def test_own_words_pass_and_a_broken_header_does_not(folder):
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMy own words: 91.25.\n", encoding="utf-8")
    read_bundle(folder)
    edit(card, "license: apache-2.0", "license: [apache-2.0")
    with pytest.raises(UsageError, match=r"the header of .*README\.md cannot be read"):
        read_bundle(folder)
