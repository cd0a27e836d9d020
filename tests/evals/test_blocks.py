"""What is told of each block, against the analysis on features taken by hooks of the test's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vcreg_hub.analysis.collapse import cdnv, ncc_accuracy, ncc_agreement
from vcreg_hub.analysis.spectrum import effective_rank
from vcreg_hub.config import Data, Model, Place, Recipe, Train, override
from vcreg_hub.errors import ConfigError
from vcreg_hub.evals.blocks import Blocks
from vcreg_hub.evals.collapse import Collapse
from vcreg_hub.evals.information import Information
from vcreg_hub.results.report import summarise, tabulated
from vcreg_hub.run import evaluate_run, train
from vcreg_hub.run.build import build
from vcreg_hub.run.evaluate import evaluation_context

RECIPE = Recipe(
    name="tiny",
    model=Model("test_convnext"),
    data=Data("digits", labels="superclass", train_images=200, image_size=32, crop="none", workers=0),
    train=Train(epochs=1, batch_size=50),
    evals=(Blocks(label_sets=("superclass", "class"), samples=150),),
)


@pytest.fixture(scope="module")
def context():
    data, network = build(RECIPE)
    return evaluation_context(RECIPE, data, network, Accelerator(cpu=True))


def by_hand(context, split, places):
    """The output of block stages.1.blocks.0, positions averaged, and the scores."""
    block = context.network.get_submodule("stages.1.blocks.0")
    kept = []
    handle = block.register_forward_hook(lambda _m, _i, output: kept.append(output.mean((2, 3))))
    batch = torch.cat([samples for samples, *_ in context.trained_on.eval_batches(split, 256)])[places]
    with torch.no_grad():
        scores = context.network.eval()(batch)
    handle.remove()
    return kept[0], scores


def test_each_block_is_measured_on_both_splits_by_both_label_sets(context):
    (evaluation,) = RECIPE.evals
    found = {(name, *place): value for name, value, place in evaluation.run(context)}
    block = "stages.1.blocks.0"
    seen = {split: context.at_blocks(evaluation, split, "blocks", 150) for split in ("train", "test")}
    rows = {split: by_hand(context, split, of.places) for split, of in seen.items()}
    labels = {}
    for kind in ("superclass", "class"):
        of = context.data(replace(evaluation, labels=kind))
        labels |= {(kind, split): torch.from_numpy(of.labels(split)[seen[split].places]) for split in seen}
    learnt = {kind: (rows["train"][0], labels[kind, "train"]) for kind in ("superclass", "class")}
    for split in ("train", "test"):
        features, scores = rows[split]
        at = ("block_effective_rank", block, None, split)
        assert found[at] == pytest.approx(effective_rank(features), rel=1e-4)
        for kind in ("superclass", "class"):
            of = labels[kind, split]
            assert found["block_cdnv", block, kind, split] == pytest.approx(cdnv(features, of), rel=1e-4)
            expected = ncc_accuracy(learnt[kind], (features, of))
            assert found["block_ncc_top1", block, kind, split] == pytest.approx(expected, abs=1)
        agreement = ncc_agreement(learnt["superclass"], features, scores.argmax(1))
        assert found["block_ncc_agreement", block, "superclass", split] == pytest.approx(agreement, abs=1)
        assert ("block_ncc_agreement", block, "class", split) not in found, "the network knows no such classes"
    assert {place[0] for _, *place in found} == set(seen["train"].features) and len(seen["train"].features) == 10
    assert [name for name in seen["train"].features if name.endswith("(input)")] == ["head.fc (input)"]
    assert np.array_equal(seen["test"].places, context.at_blocks(evaluation, "test", "blocks", 150).places)


def test_the_rows_of_a_run_name_their_block_and_tables_leave_them_out(tmp_path):
    folder = train(replace(RECIPE, vcreg=None), tmp_path / "run", log=lambda _: None)
    rows = [row for row in folder.results()["metrics"] if row["metric"] == "block_cdnv"]
    assert len(rows) == 10 * 2 * 2 and {row["split"] for row in rows} == {"train", "test"}
    assert {row["dataset_config"] for row in rows} == {"superclass", "class"}
    evaluate_run(folder.path, ["evals=classification"], save=True)
    summaries = summarise([folder.path])
    assert len([one for one in summaries if one.quantity.block]) == len(folder.results()["metrics"]) - 2
    head = tabulated(summaries).markdown().splitlines()[0]
    assert head == "| run | top1 (superclass, test) | loss (superclass, test) | seeds |"


def test_information_is_found_where_there_is_some(context):
    evaluation = Information(where="stages.0.blocks.0", samples=400, steps=300)
    found = {place: value for _, value, place in evaluation.run(context)}
    assert found.keys() == {Place(block, None, split) for block in ("stages.0.blocks.0", "head.fc (input)")
                            for split in ("train", "test")}  # fmt: skip
    assert found[Place("stages.0.blocks.0", None, "test")] > 0.1, "an untrained block tells something of its input"


def test_settings_that_cannot_be(context):
    with pytest.raises(ConfigError, match="samples is a whole number from 2"):
        Blocks(samples=1)
    with pytest.raises(ConfigError, match="steps is a whole number from 1"):
        Information(steps=0)
    recipe = override(RECIPE, ["evals=blocks,information", "evals.blocks.label_sets=superclass,class"])
    assert recipe.evals == (Blocks(label_sets=("superclass", "class"), samples=150), Information())


def test_collapse_agrees_with_the_network_s_own_answers(context):
    found = dict(Collapse().run(context))
    train_rows, test_rows = context.features(Collapse(), "train"), context.features(Collapse())
    with torch.no_grad():
        answers = context.network.eval()(
            torch.cat([samples for samples, *_ in context.trained_on.eval_batches("test", 256)])
        ).argmax(1)
    expected = ncc_agreement(tuple(map(torch.from_numpy, train_rows)), torch.from_numpy(test_rows[0]), answers)
    assert found["ncc_agreement"] == pytest.approx(expected, abs=0.3)
    assert "ncc_agreement" not in dict(Collapse(labels="class").run(context))
