"""Cards of video networks: three splits and several seeds on one card, and what a recipe assumed."""

from __future__ import annotations

import statistics

import pytest
from hub.folders import make_run, results, row
from huggingface_hub import ModelCard

from vcreg_hub.config import Data, Model, Video
from vcreg_hub.errors import UsageError
from vcreg_hub.hub.card import render, render_card
from vcreg_hub.hub.runs import collect

ABOUT = {"dataset": "action_shapes", "protocol": "top-1 accuracy, 10 clips x 3 crops, mean probability; last epoch"}


def runs_of(root, values, **changes):
    """A run for each (split, seed) of `values`."""
    return [
        make_run(
            root / f"split{split}-seed{seed}",
            seed=seed,
            values=results(row(value, fold=split, seed=seed, **ABOUT)),
            model=Model("videomae_tiny"),
            data=Data("action_shapes", image_size=32),
            video=Video(split=split, frames=8),
            **changes,
        )
        for (split, seed), value in values.items()
    ]


def test_splits_and_seeds_stand_on_one_card(tmp_path):
    ours = {(split, seed): 60.0 + 10 * split + 3 * seed for seed in (0, 1, 2) for split in (1, 2, 3)}
    runs = runs_of(tmp_path / "vcreg", ours, assumed=("optim.layer_decay", "vcreg.alpha"))
    twins = runs_of(tmp_path / "plain", {key: value - 5 for key, value in ours.items()}, vcreg=None)
    record = collect(runs[0], licence="mit", siblings=runs, twins=[])
    mean, *singly = record.scores
    assert mean.split == "test, mean of 3 splits" and mean.summary.n == 3 and mean.value is None
    assert mean.summary.mean == pytest.approx(statistics.fmean([80.0, 83.0, 86.0]))
    assert mean.summary.std == pytest.approx(statistics.stdev([80.0, 83.0, 86.0]))
    assert [(s.split, s.summary.n) for s in singly] == [(f"test, fold {fold}", 3) for fold in (1, 2, 3)]
    assert singly[0].value == 70.0, "that of the weights on the card"
    card = render(record)
    (entry,) = ModelCard(card).data.eval_results
    assert (entry.dataset_split, entry.metric_value) == ("test, fold 1", 70.0), "no other network's number"
    assert "seeds 0, 1, 2 on splits 1, 2, 3 (9 runs)" in card and "Seed of these weights: 0, split 1" in card
    assert "mean of 3 splits" in card and "83.00 ± 3.00 (n = 3)" in card
    assert "does not confirm it: `optim.layer_decay`, `vcreg.alpha`" in card
    assert "clips: 100 train" in card and "10 clips x 3 crops" in card
    assert "does not confirm" not in render(collect(twins[0], licence="mit", siblings=twins))
    compared = collect(runs[0], licence="mit", siblings=runs, twins=twins)
    assert compared.scores[0].baseline.mean == mean.summary.mean - 5
    assert "| +5.00 ± 0.00 (n = 3; 95% CI +5.00 to +5.00) |" in render(compared)


def test_the_plain_twin_s_splits_are_averaged_alike(tmp_path):
    ours = {(1, 0): 70.0, (2, 0): 80.0}
    runs = runs_of(tmp_path / "vcreg", ours)
    twins = runs_of(tmp_path / "plain", {(1, 0): 60.0, (2, 0): 74.0}, vcreg=None)
    record = collect(runs[0], licence="mit", siblings=runs, twins=twins)
    mean = record.scores[0]
    assert mean.baseline.mean == 67.0 and mean.summary.mean == 75.0
    assert "| +8.00 (n = 1) |" in render(record)


def test_a_seed_counts_once_on_each_split(tmp_path):
    runs = runs_of(tmp_path, {(1, 0): 70.0, (2, 0): 80.0})
    again = runs_of(tmp_path / "again", {(2, 0): 81.0})
    with pytest.raises(UsageError, match="0 on split 1, 0 on split 2, 0 on split 2: each seed counts once"):
        render_card(runs[0], licence="mit", siblings=[*runs, *again])
