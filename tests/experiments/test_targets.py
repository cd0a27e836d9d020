"""Every table and figure: from its experiments at a scale of seconds to the page that compares it with the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vcreg_hub.config import differences, override
from vcreg_hub.data import is_drawn
from vcreg_hub.errors import UnknownNameError, UsageError
from vcreg_hub.evals.information import Information
from vcreg_hub.experiments import comparison, page, runner, targets
from vcreg_hub.experiments.comparison import OVERHEAD, Outcome, compared, read_outcomes
from vcreg_hub.experiments.estimate import cost_of, estimate
from vcreg_hub.experiments.experiment import Experiment, Variant
from vcreg_hub.experiments.full_scale import FULL_SCALE, PROBES
from vcreg_hub.experiments.reproduce import run_target
from vcreg_hub.experiments.table import EXPERIMENTS
from vcreg_hub.experiments.targets import TARGETS, find_target, with_seeds
from vcreg_hub.files import write_json
from vcreg_hub.paper import PAPER_TABLES
from vcreg_hub.recipes import load_recipe
from vcreg_hub.results import report
from vcreg_hub.results.aggregate import Group, over_seeds
from vcreg_hub.results.rows import Result
from vcreg_hub.run import smoke_test, train

REPOSITORY = Path(__file__).parents[2]
BOTH = [(name, scale) for name in TARGETS for scale in ("small", "full")]


@pytest.mark.parametrize(("name", "scale"), BOTH)
def test_a_line_has_a_run_and_a_cell(name, scale):
    target = TARGETS[name]
    for line in target.lines(scale):
        experiment = target.experiments(scale)[line.experiment]
        variant, _, axis = line.run.partition(",")
        assert variant in {one.name for one in experiment.variants}
        path, _, value = axis.partition("=")
        assert not axis or any(of.endswith(path) and value in values for of, values in experiment.axis.items())
        if line.cell is not None:
            row, column = line.cell
            assert PAPER_TABLES[target.paper].shown(row, column)


@pytest.mark.parametrize(("name", "scale"), BOTH)
def test_an_experiment_measures_what_a_line_asks_for(name, scale):
    experiments = TARGETS[name].experiments(scale)
    for line in TARGETS[name].lines(scale):
        experiment, label = experiments[line.experiment], line.run.partition(",")[0]
        variant = next(one for one in experiment.variants if one.name == label)
        recipe = override(load_recipe(variant.recipe), [*experiment.settings, *variant.settings])
        measured = [(one.data or recipe.data).name for one in recipe.evals if line.metric in one.metrics]
        assert measured and line.dataset in (None, *measured), (line, measured)


@pytest.mark.parametrize("name", FULL_SCALE)
def test_an_experiment_of_the_full_scale_compares_runs_that_differ_in_vcreg_alone(name):
    experiment = FULL_SCALE[name]
    plain, *others = (override(load_recipe(v.recipe), [*experiment.settings, *v.settings]) for v in experiment.variants)
    for other in others:
        assert {path.partition(".")[0] for path in differences(plain, other)} <= {"name", "vcreg", "where", "assumed"}
    assert not set(experiment.seeds) & set(experiment.selection_seeds)
    probed = {one.data.name for one in plain.evals if one.data is not None}
    assert probed == {data for _, data in PROBES.values()}
    searched = override(plain, experiment.holding_out)
    assert searched.data.val_fraction > 0 and len(searched.evals) == 1, "what chooses is measured on ImageNet alone"


# The targets whose pictures are drawn in the walk: they take a third of its time.
DRAWN, PNG = ("table3",), b"\x89PNG"


# ---- the walk --------------------------------------------------------------------------------------------------


def tiny(experiment: Experiment) -> Experiment:
    """One point of each grid, two values of each axis, three variants, two seeds, no pretraining."""
    variants = tuple(
        replace(v, grid={path: values[:1] for path, values in v.grid.items()}) for v in experiment.variants[:3]
    )
    axis = {path: values[:2] for path, values in experiment.axis.items()}
    held_out = tuple("data.val_fraction=0.25" if "val_fraction" in one else one for one in experiment.holding_out)
    return replace(
        experiment,
        variants=variants,
        axis=axis,
        seeds=with_seeds(experiment, 2),
        pretraining=None,
        holding_out=held_out,
    )


def seconds(recipe):
    """The recipe on made-up data of its labels and channels, by the smallest network of its kind."""
    if recipe.video is not None:
        cut = smoke_test(
            replace(recipe, model=replace(recipe.model, name="videomae_tiny", kwargs={"num_hidden_layers": 2}))
        )
        return override(cut, ["data.image_size=32", "video.frames=4", "video.crops=1", "data.val_fraction=0.25"])
    if is_drawn(recipe.data):
        return override(recipe, ["train.max_steps=2"])
    cut = smoke_test(recipe)
    placed = recipe.where not in ("blocks", "final") or recipe.model.name.startswith("conv")
    network = "test_convnext" if placed else "test_resnet"
    small = {"image_size": 32, "train_size": None, "resize": None, "repeats": 1, "val_fraction": 0.25,
             "root": None, "train_images": None, "imbalance": None, "hierarchy": None}  # fmt: skip
    # Of many probes a few: each costs a second.
    evals = tuple(_seconds(one, small) for one in (*recipe.evals[:2], *recipe.evals[2:][-1:]))
    task = replace(cut.task, projector=(8, 8)) if hasattr(cut.task, "projector") else cut.task
    data = replace(cut.data, **small, name=stand_in(recipe.data.name))
    made = replace(cut, data=data, evals=evals, task=task, model=replace(cut.model, name=network, kwargs={}))
    return override(made, ["train.ema_decay=null", "optim.layer_decay=null", "train.sync_batchnorm=false"])


def stand_in(name):
    """Made-up images in the place of a data set; a thousand classes would take a hundred times as many."""
    if name in ("digits", "fashion_mnist"):
        return f"synthetic:{name}"
    # Each another name, as two probes of one data set are refused.
    return f"synthetic:{2 + len(name)}x3"


def _seconds(one, small):
    one = replace(one, count=2) if hasattr(one, "count") else one
    one = replace(one, steps=2, samples=64) if isinstance(one, Information) else one
    return one if one.data is None else replace(one, data=replace(one.data, **small, name=stand_in(one.data.name)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One folder for all targets, which share experiments."""
    return tmp_path_factory.mktemp("runs")


def made_up(target):
    """The target with lines that name the stand-ins of their data sets."""
    small, full = (
        tuple(replace(line, dataset=line.dataset and stand_in(line.dataset)) for line in lines)
        for lines in (target.small, target.full)
    )
    return replace(target, small=small, full=full)


class InProcess:
    """A trial's process, without the seconds that starting one takes."""

    def __init__(self, trial, out, threads, launch=None):
        self.returncode = 0 if train(trial.recipe, out / trial.path, log=lambda text: None).complete() else 1

    def poll(self):
        return self.returncode


@pytest.mark.parametrize(
    ("name", "scale"),
    [*((name, "small") for name in TARGETS), *(pytest.param(n, "full", marks=pytest.mark.slow) for n in TARGETS)],
)
def test_a_target_runs_through_to_its_page(name, scale, runs, monkeypatch):
    target = made_up(TARGETS[name])
    monkeypatch.setitem(TARGETS, name, target)
    monkeypatch.setattr(targets, "_KNOWN", {key: tiny(one) for key, one in targets._KNOWN.items()})
    monkeypatch.setattr(runner, "_start", InProcess)
    monkeypatch.setattr(runner.time, "sleep", lambda seconds: None)
    if name not in DRAWN:
        for module in (comparison, report):
            monkeypatch.setattr(module, "draw_metrics", lambda summaries, path: path.write_bytes(PNG))
        monkeypatch.setattr(report, "draw_noise", lambda *drawn: None)
    if target.bench:
        record_timing(runs, scale)
    table = run_target(name, scale, runs, change=seconds, log=lambda text: None)
    text = (runs / f"{name}.{scale}.md").read_text()
    assert table.markdown() in text and target.title in text
    page_ = (runs / f"{name}.{scale}.html").read_text()
    assert table.html() in page_ and "<script" not in page_ and "http" not in page_
    ran = [row for row in table.rows if row[4 if not target.bench else 2] != "not yet run"]
    assert ran, "a number of ours"
    if not target.bench:
        assert (runs / f"{name}.{scale}.png").read_bytes().startswith(PNG)
        assert all(row[5] == "2" for row in ran) and any(" (95% CI " in row[7] for row in ran)
    again: list[str] = []
    assert run_target(name, scale, runs, change=seconds, log=again.append) == table
    assert not [line for line in again if line.startswith("done")], "it resumes: everything is there already"
    section = page._section(name, target, runs)
    assert f"## {name}: " in section and ran[0][2] in section


def record_timing(folder, scale):
    """The recorded measurement in the place of one that takes minutes."""
    import json

    timing = json.loads((REPOSITORY / "docs/results/overhead/cpu.json").read_text())
    write_json(folder / OVERHEAD / {"small": "cpu.json", "full": "cuda.json"}[scale], timing)


# ---- the pages that are there -----------------------------------------------------------------------------------


def test_the_page_is_rendered_from_what_is_recorded():
    assert (REPOSITORY / "docs/reproduction.md").read_text(encoding="utf-8") == page.page(
        REPOSITORY / "docs/results"
    ), "run scripts/reproduction"


@pytest.mark.parametrize("name", TARGETS)
def test_a_script_starts_the_full_form(name):
    path = REPOSITORY / "scripts" / "reproduce" / f"{name}.sh"
    text = path.read_text(encoding="utf-8")
    assert text == page.script(name, TARGETS[name]), "run scripts/reproduction"
    assert "hours" in text or TARGETS[name].bench
    assert path.stat().st_mode & 0o111 and f"vcreg reproduce {name} --scale full" in text


def test_there_is_no_script_without_a_target():
    assert {path.stem for path in (REPOSITORY / "scripts" / "reproduce").glob("*")} == set(TARGETS)


# ---- one line, one estimate ---------------------------------------------------------------------------------------


def summaries(**values):
    row = {"metric": "logreg_top1", "unit": "%", "higher_is_better": True, "dataset": "fashion_mnist",
           "dataset_config": "class", "split": "test"}  # fmt: skip
    runs = [
        (
            Group(label=label, id=label, baseline=None if label == "plain" else "plain"),
            seed,
            [Result(**row, value=value)],
        )
        for label, of in values.items()
        for seed, value in enumerate(of)
    ]
    return over_seeds(runs)


def test_our_number_stands_beside_the_paper_s_with_its_interval_and_difference():
    target = TARGETS["table5"]
    found = {"hierarchy_convnext": Outcome(summaries(plain=(60.0, 62.0), vcreg=(63.0, 66.0)))}
    plain, vcreg, *rest = compared(target, "small", found).rows
    assert plain[3:] == ("60.7 %", "61.00 ± 1.41 %", "2", "48.29 to 73.71", "-")
    assert vcreg[3:6] == ("72.9 %", "64.50 ± 2.12 %", "2")
    assert vcreg[7] == "+3.50 ± 0.71 points (95% CI -2.85 to +9.85)"
    assert {row[4] for row in rest} == {"not yet run"}


def test_recorded_results_are_read_and_absent_ones_are_not_made_up(tmp_path):
    target = TARGETS["table5"]
    recorded = read_outcomes(target, "small", REPOSITORY / "docs" / "results")
    assert recorded["hierarchy_convnext"].env["commit"] and recorded["hierarchy_convnext"].summaries
    assert not any(one.summaries or one.env for one in read_outcomes(target, "small", tmp_path).values())


def test_an_estimate_counts_runs_and_hours_and_names_missing_data(tmp_path):
    grid = {"vcreg.alpha": ("1", "2"), "vcreg.beta": ("1", "2", "3")}
    recipe = "fashion_mnist:hierarchy_convnext"
    experiment = Experiment(
        (Variant("plain", recipe, baseline=True), Variant("vcreg", f"{recipe}_vcreg", grid)),
        "logreg_top1", (100,), (0, 1, 2), axis={"train.epochs": ("10", "20")},
    )  # fmt: skip
    found = estimate(experiment, tmp_path)
    assert (found.runs, found.done, found.unknown) == (6 + 2 * 2 * 3, 0, 0)
    epochs = 6 * 30 + 2 * 3 * (10 + 20)
    assert found.hours == pytest.approx({"CPU core": epochs * 4000 / 2000 / 3600})
    assert found.missing == ()
    # The paper's own number comes out for what it was told of; ImageNet is not here.
    assert cost_of(load_recipe("imagenet:convnext_tiny")) == pytest.approx((768.0, "MI50"))
    assert cost_of(load_recipe("imagenet:convnext_tiny_vcreg")).hours == pytest.approx(768.0)
    # Small images are made by 8 cores at 1,500 a second; of a long tail there are 12,406.
    assert cost_of(load_recipe("cifar:superclass")).hours == pytest.approx(200 * 50_000 / 12_000 / 3600)
    tail = cost_of(load_recipe("cifar:long_tail")).hours
    assert 100 * 12_406 / 12_000 / 3600 < tail < 1.2 * 100 * 12_406 / 12_000 / 3600
    missing = estimate(targets._KNOWN["imagenet_resnet50"], tmp_path).missing
    (imagenet,) = (text for text in missing if text.startswith("imagenet"))
    assert len(missing) == 9 and any(text.startswith("flowers102: 102flowers.tgz") for text in missing)
    assert imagenet.startswith("imagenet: ") and "image-net.org" in imagenet
    there = estimate(targets._KNOWN["imagenet_resnet50"], tmp_path, (f"data.root={tmp_path}",))
    assert not any(text.startswith("imagenet") for text in there.missing) and there.runs == 20 + 2 * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "vit_base_patch32_224", "convnext_atto"])
def test_the_multiply_adds_are_those_of_the_networks(name):
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vcreg_hub.experiments.estimate import _GIGA

    with torch.device("meta"):
        network, image = timm.create_model(name), torch.zeros(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(_GIGA[name][0], rel=0.03)


def test_seeds_are_added_but_never_those_of_the_search():
    experiment = replace(EXPERIMENTS["hierarchy_convnext"], seeds=(98, 99), selection_seeds=(100,))
    assert with_seeds(experiment, 1) == (98,) and with_seeds(experiment, 4) == (98, 99, 101, 102)
    with pytest.raises(UsageError, match="--seeds"):
        with_seeds(experiment, 0)


def test_a_target_is_found_by_its_name():
    assert find_target("table4") is TARGETS["table4"]
    with pytest.raises(UnknownNameError, match="did you mean 'table4'"):
        find_target("tabel4")


def test_another_launcher_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VCREG_LAUNCHER", "acelerate")
    with pytest.raises(UnknownNameError, match="did you mean 'accelerate'"):
        runner.run_trials([], tmp_path)
