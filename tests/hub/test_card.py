from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import replace

import pytest
import yaml
from hub.folders import env, make_export, make_loadable, make_run, recipe, results, row
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tasks.two_views import TwoViews

from vcreg_hub.config import Data, Model, Video, override
from vcreg_hub.errors import HubError, RunFolderError, UsageError
from vcreg_hub.files import write_json
from vcreg_hub.hub import card_metadata
from vcreg_hub.hub.card import is_as_rendered, render, render_card, write_card
from vcreg_hub.hub.card_metadata import eval_result_files
from vcreg_hub.hub.index import cards_folder
from vcreg_hub.hub.markdown import code, one_line, prose, slug
from vcreg_hub.hub.record import Record
from vcreg_hub.hub.runs import collect
from vcreg_hub.paper import PAPER_NUMBERS, paper_numbers
from vcreg_hub.recipes import load_recipe
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.rundir import RunDir

# As if the Hub listed it.
BENCHMARKS = {"zalando-datasets/fashion_mnist": {"top1": "clothes"}}
HEADER = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)


def header(card: str) -> dict:
    """The YAML of a card, read without huggingface_hub."""
    return yaml.safe_load(HEADER.match(card)[1])


def body(card: str) -> str:
    return HEADER.match(card)[2]


def test_a_card_says_what_the_run_was(tmp_path):
    run = make_run(tmp_path / "run", vcreg=VCReg(alpha=1.28, beta=0.02, delta=None, gradient="algorithm1"))
    card = render_card(run, licence="mit", repo_id="me/test_resnet_vcreg.fashion_mnist")
    for expected in (
        "| alpha (variance) | `1.28` |",
        "| beta (covariance) | `0.02` |",
        "none: the plain square of Eq. 2",
        "| placement | `blocks` |",
        "Algorithm 1 as printed",
        "`0123456789abcdef0123456789abcdef01234567`, a clean tree",
        "torch 2.15.0",
        "`name=adamw`",
        "training time: 4 s",
        "not yet run",
        "The paper reports no number for test_resnet trained on fashion_mnist",
        'timm.create_model("hf-hub:me/test_resnet_vcreg.fashion_mnist", pretrained=True)',
        "shirt, shoe, bag",
        "arXiv:2306.13292",
        "Fewer than three seeds",
        "licence of these weights: `mit`",
    ):
        assert expected in card, expected
    assert "- emissions: not measured" in card and "co2_eq_emissions" not in card
    assert header(card)["license"] == "mit"


def test_a_dirty_tree_and_emissions_are_said_only_when_recorded(tmp_path):
    values = results(emissions_kg_co2eq=0.25)
    run = make_run(tmp_path / "run", values=values, where_it_ran=env(dirty=True))
    card = render_card(run, licence="mit")
    assert "with uncommitted changes" in card
    assert "0.25 kg CO2eq" in card
    assert header(card)["co2_eq_emissions"]["emissions"] == 250.0


def test_seeds_and_the_plain_twin_are_averaged(tmp_path):
    ours, plain = [80.0, 82.5, 81.0], [78.0, 79.0, 77.5]
    runs = [make_run(tmp_path / f"v{s}", seed=s, values=results(row(v))) for s, v in enumerate(ours)]
    twins = [make_run(tmp_path / f"p{s}", seed=s, vcreg=None, values=results(row(v))) for s, v in enumerate(plain)]
    record = collect(runs[1], licence="mit", siblings=runs, twins=twins)
    (score,) = record.scores
    assert (score.value, score.summary.n) == (82.5, 3)
    assert score.summary.mean == pytest.approx(sum(ours) / 3)
    assert score.summary.std == pytest.approx(statistics.stdev(ours))
    assert score.baseline.n == 3
    assert score.baseline.std == pytest.approx(statistics.stdev(plain))
    card = render(record)
    # 2.0, 3.5 and 3.5, seed by seed; 4.303 is Student's t for two degrees of freedom.
    std = statistics.stdev([2.0, 3.5, 3.5])
    low, high = 3.0 - 4.30265 * std / 3**0.5, 3.0 + 4.30265 * std / 3**0.5
    difference = f"+3.00 ± {std:.2f} (n = 3; 95% CI {low:+.2f} to {high:+.2f})"
    assert f"| 82.50 | 81.17 ± 1.26 (n = 3) | 78.17 ± 0.76 (n = 3) | {difference} |" in card
    assert "Fewer than three seeds" not in card
    assert header(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 82.5


def test_what_is_no_sibling_and_no_twin_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    again = make_run(tmp_path / "again", values=results(row(50.0)))
    weaker = make_run(tmp_path / "weaker", seed=1, vcreg=VCReg(alpha=0.16, beta=0.04))
    longer = make_run(tmp_path / "longer", seed=1, vcreg=None, where="final", task=TwoViews())
    with pytest.raises(UsageError, match="each seed counts once"):
        render_card(run, licence="mit", siblings=[again])
    with pytest.raises(UsageError, match=r"differs in vcreg\.alpha"):
        render_card(run, licence="mit", siblings=[weaker])
    with pytest.raises(UsageError, match="differs in task"):
        render_card(run, licence="mit", twins=[longer])
    with pytest.raises(UsageError, match="was trained with VCReg"):
        render_card(run, licence="mit", twins=[weaker])


def test_the_run_that_an_export_was_made_of_is_not_counted_twice(tmp_path):
    export = make_loadable(tmp_path / "export")
    record = collect(export, licence=None, siblings=[tmp_path / "export-run"])
    assert [run.seed for run in record.runs] == [0]


def test_a_licence_is_never_assumed(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match="no licence yet"):
        render_card(run, licence=None)
    with pytest.raises(UsageError, match=r"did you mean 'apache-2\.0'"):
        render_card(run, licence="apache2.0")
    with pytest.raises(UsageError, match="needs --licence-name and --licence-link"):
        render_card(run, licence="other")
    card = render_card(run, licence="other", licence_name="ours", licence_link="https://example.org/l")
    assert header(card)["license_name"] == "ours"


def test_a_licence_is_written_as_the_hub_writes_it(tmp_path):
    assert header(render_card(make_run(tmp_path / "run"), licence="Apache-2.0"))["license"] == "apache-2.0"
    assert header(render_card(make_export(tmp_path / "export"), licence="APACHE-2.0"))["license"] == "apache-2.0"


def test_the_library_is_the_one_that_loads_it(tmp_path):
    names = {"test_resnet": "timm", "resnet32_cifar": "vcreg_hub", "torchvision:resnet18": "timm"}
    names |= {"torchvision:mnasnet0_5": "pytorch"}
    for number, (name, library) in enumerate(names.items()):
        run = make_run(tmp_path / str(number), model=Model(name))
        assert header(render_card(run, licence="mit"))["library_name"] == library, name


def test_a_difference_of_nothing_has_no_minus(tmp_path):
    run = make_run(tmp_path / "run", values=results(row(81.249)))
    twins = [make_run(tmp_path / "twin", vcreg=None, values=results(row(81.25)))]
    assert "| +0.00 (n = 1) |" in render_card(run, licence="mit", twins=twins)


def test_without_a_seed_in_common_the_means_are_subtracted_and_it_is_said(tmp_path):
    run = make_run(tmp_path / "run", values=results(row(81.0)))
    twins = [make_run(tmp_path / "twin", seed=5, vcreg=None, values=results(row(80.0)))]
    record = collect(run, licence="mit", twins=twins)
    assert record.scores[0].difference is None
    assert "| 80.00 (n = 1) | +1.00 (not paired) |" in render(record)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    rows = [row(80.0 - s, sigma=s, fold=2) for s in (1, 1.5, 2)]
    run = make_run(tmp_path / "run", values=results(*rows, row(70.0)))
    twin = make_run(tmp_path / "twin", vcreg=None, values=results(*rows))
    values = collect(run, licence="mit", twins=[twin]).to_json()
    again = Record.from_json(json.loads(json.dumps(values)), tmp_path)
    assert json.dumps(again.to_json()) == json.dumps(values) and render(again) == render(collect(run, licence="mit",
        twins=[twin]))  # fmt: skip
    for path in sorted(cards_folder().glob("*.json")):
        kept = path.read_text(encoding="utf-8")
        assert json.dumps(Record.from_json(json.loads(kept), path).to_json(), indent=2) + "\n" == kept
    with pytest.raises(RunFolderError, match="record of format 1"):
        Record.from_json({name: value for name, value in values.items() if name != "recipe"}, tmp_path)


def test_the_numbers_of_other_seeds_and_twins_are_kept_beside_the_card(tmp_path):
    from vcreg_hub.hub.publish import prepare_upload

    export = make_export(tmp_path / "export")
    assert not (export / "seeds.json").exists()
    sibling = make_run(tmp_path / "sibling", seed=1, values=results(row(79.5)))
    twin = make_run(tmp_path / "twin", vcreg=None, values=results(row(70.0)))
    write_card(export, siblings=[sibling], twins=[twin])
    shutil.rmtree(sibling)
    shutil.rmtree(twin)
    assert is_as_rendered(export, collect(export, licence=None))
    card = render_card(export, repo_id="me/name")
    assert "seeds 0, 1 (n = 2)" in card and "| +11.25 (n = 1) |" in card and "hf-hub:me/name" in card
    write_json(export / "results.json", results(row(90.0)))
    with pytest.raises(RunFolderError, match=r"seeds\.json is of other numbers than results\.json"):
        render_card(export)
    with pytest.raises(RunFolderError, match=r"seeds\.json is of other numbers than results\.json"):
        with prepare_upload(export, "me/name", licence=None, siblings=[], twins=[]):
            pytest.fail("it would be sent")
    (export / "seeds.json").unlink()
    assert not is_as_rendered(export, collect(export, licence=None))


def test_a_licence_that_the_folder_states_is_taken(tmp_path):
    export = make_export(tmp_path / "export")
    assert "licence of these weights: `apache-2.0`" in render_card(export)
    (export / "README.md").unlink()
    assert header(render_card(export))["license"] == "apache-2.0", "config.json states it too"
    with pytest.raises(UsageError, match=r"config\.json states licence 'apache-2\.0', the card would say 'mit'"):
        render_card(export, licence="mit")
    # transformers' config.json has no place for a licence: the card alone states it, with its name and link.
    write_json(export / "config.json", {"model_type": "resnet"})
    with pytest.raises(UsageError, match="no licence yet"):
        render_card(export)
    write_card(export, licence="other", licence_name="ours", licence_link="https://example.org/l")
    again = header(render_card(export))
    assert (again["license"], again["license_name"], again["license_link"]) == (
        "other",
        "ours",
        "https://example.org/l",
    )
    (export / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(UsageError, match="no licence yet"):
        render_card(export)


@pytest.mark.parametrize("name", ["hf:{}/configs/tiny", "test_resnet"])
def test_an_export_and_the_other_seeds_of_its_run_match(tmp_path, name):
    model, config = Model(name.format(tmp_path)), {"model_type": "resnet"} if name.startswith("hf:") else {}
    runs = [make_run(tmp_path / f"run{seed}", seed=seed, model=model) for seed in (0, 1)]
    export = make_run(tmp_path / "export", seed=0, model=Model(name.replace("{}/configs/", "")))
    write_json(export / "config.json", config)
    record = collect(export, licence="mit", siblings=runs)
    assert [run.seed for run in record.runs] == [0, 1]
    assert record.recipe["model"]["name"] == name.replace("{}/configs/", "")


@pytest.mark.parametrize(
    ("name", "library", "architecture"),
    [
        ("torchvision:mobilenet_v2", "torchvision", "mobilenet_v2"),
        ("torchvision:vit_b_32", "timm", "vit_base_patch32_224"),  # exported as the timm network that is the same
        ("hf:tiny", "transformers", "tiny"),
        ("test_resnet", "timm", "test_resnet"),
    ],
)
def test_a_run_folder_says_what_will_load_its_export(tmp_path, name, library, architecture):
    record = collect(make_run(tmp_path / "run", model=Model(name)), licence="mit")
    assert (record.library, record.architecture) == (library, architecture)
    assert f"Plain {library} loads it" in render(record)


def test_two_noise_levels_and_two_folds_never_merge(tmp_path, monkeypatch):
    rows = [row(80.0 - s, sigma=s) for s in (1, 1.5, 2)] + [row(70.0 + f, dataset_config="", fold=f) for f in (1, 2, 3)]
    run = make_run(tmp_path / "run", values=results(*rows))
    card = render_card(run, licence="mit")
    _, found = model_index_to_eval_results(header(card)["model-index"])
    assert [result.metric_value for result in found] == [79.0, 78.5, 78.0, 71.0, 72.0, 73.0]
    assert len({result.unique_identifier for result in found}) == 6
    assert {result.dataset_config for result in found[:3]} == {"class, sigma 1", "class, sigma 1.5", "class, sigma 2"}
    assert {result.dataset_split for result in found[3:]} == {"test, fold 1", "test, fold 2", "test, fold 3"}
    assert eval_result_files(collect(run, licence="mit")) == {}, "no benchmark of the Hub"
    monkeypatch.setattr(card_metadata, "_BENCHMARKS", BENCHMARKS)
    files = eval_result_files(collect(run, licence="mit"))
    assert len(files) == 6
    assert {entry["dataset"]["task_id"] for text in files.values() for entry in yaml.safe_load(text)} == {"clothes"}
    values = [entry["value"] for text in files.values() for entry in yaml.safe_load(text)]
    assert sorted(values) == [71.0, 72.0, 73.0, 78.0, 78.5, 79.0]


def test_rows_that_cannot_be_told_apart_are_refused(tmp_path):
    run = make_run(tmp_path / "run", values=results(row(80.0), row(81.0)))
    with pytest.raises(RunFolderError, match="two rows are both top1 / fashion_mnist"):
        render_card(run, licence="mit")


@pytest.mark.parametrize("value", ["nine", None, [1], float("nan"), float("inf"), "1e999"])
def test_a_value_that_is_no_number_is_refused(tmp_path, value):
    run = make_run(tmp_path / "run")
    text = json.dumps(results(row(value)))
    (run / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"results\.json"):
        render_card(run, licence="mit")


def test_whole_numbers_become_floats_in_the_metadata(tmp_path):
    run = make_run(tmp_path / "run", values=results(row(81)))
    value = header(render_card(run, licence="mit"))["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert type(value) is float


def test_only_metrics_that_the_hub_registers_are_listed_as_such(tmp_path):
    rows = [row(), row(85.0, metric="probe_top1"), row(0.5, metric="loss", unit="nats", higher_is_better=False)]
    run = make_run(tmp_path / "run", values=results(*rows))
    assert header(render_card(run, licence="mit"))["metrics"] == ["accuracy"]
    write_json(run / "results.json", results(*rows[1:]))
    card = header(render_card(run, licence="mit"))
    assert "metrics" not in card
    assert [one["type"] for one in card["model-index"][0]["results"][0]["metrics"]] == ["probe_top1", "loss"]


@pytest.mark.parametrize(
    ("name", "hub", "named", "identified"),
    [
        ("hf:me/photos", "me/photos", "hf:me/photos", "me/photos"),
        ("hf:data/photos", None, "hf:photos", None),  # a folder: its name looks like an id
        ("hf:me/photos", "not recorded", "hf:me/photos", None),
        ("cifar10", "mteb/cifar10", "cifar10", "mteb/cifar10"),
        ("cifar10", None, "cifar10", "uoft-cs/cifar10"),
        ("folder", None, "folder", None),
    ],
)
def test_a_data_set_has_its_hub_id_where_it_is_that_data(tmp_path, name, hub, named, identified):
    values = results(row(dataset=name), row(70.0, dataset="hf:you/others"))
    values["data"] |= {} if hub == "not recorded" else {"hub": hub}
    card = render_card(make_run(tmp_path / "run", values=values, data=Data(name, image_size=32)), licence="mit")
    found, other = header(card)["model-index"][0]["results"]
    assert header(card).get("datasets") == (None if identified is None else [identified])
    assert found["dataset"]["name"] == named and found["dataset"]["type"] == (identified or slug(named))
    assert other["dataset"]["type"] == slug("hf:you/others"), "nothing says that it was read there"
    assert "data/photos" not in card


def test_the_model_that_training_started_from_is_the_base_model(tmp_path):
    run = make_run(tmp_path / "run", values=results(base_model="timm/test_resnet.r160_in1k"))
    card = header(render_card(run, licence="mit"))
    assert (card["base_model"], card["base_model_relation"]) == ("timm/test_resnet.r160_in1k", "finetune")
    local = make_run(tmp_path / "local", model=Model("test_resnet", pretrained="runs/first"))
    assert "base_model" not in header(render_card(local, licence="mit"))


def test_direction_stands_beside_every_metric(tmp_path):
    rows = [row(), row(0.5, metric="loss", unit="nats", higher_is_better=False)]
    card = render_card(make_run(tmp_path / "run", values=results(*rows)), licence="mit")
    assert re.search(r"\| top1 \(%\) \|.*\| higher \|", card)
    assert re.search(r"\| loss \(nats\) \|.*\| lower \|", card)
    assert "lower is better" in header(card)["model-index"][0]["results"][0]["metrics"][1]["name"]


def test_the_papers_numbers_are_labelled_as_the_papers(tmp_path):
    run = make_run(
        tmp_path / "run",
        model=replace(recipe().model, name="resnet50_vcreg"),
        data=replace(recipe().data, name="imagenet"),
    )
    card = body(render_card(run, licence="mit"))
    section = card.partition("### The paper's numbers")[2].partition("\n## ")[0]
    assert "not measured here" in section
    assert "| Table 1 | linear probe on Cars | 43.6 | 54.1 |" in section


def test_a_video_network_keeps_its_name_and_the_papers_numbers_of_it(tmp_path):
    made = recipe()
    run = make_run(
        tmp_path / "run",
        model=replace(made.model, name="videomae_small"),
        data=replace(made.data, name="hmdb51"),
        video=Video(frames=8),
    )
    card = render_card(run, licence="mit")
    assert header(card)["pipeline_tag"] == "video-classification"
    assert "AutoModelForVideoClassification" in card
    assert "| Table 2 | fine-tuned on HMDB51, mean of 3 splits | 79.9 | 80.6 |" in card
    assert "`frames=8`" in card


@pytest.mark.parametrize(
    ("address", "settings", "expected"),
    [
        ("cifar:long_tail_vcreg", [], "| Table 3 | test accuracy, imbalance 100 | 69.6 | 71.2 |"),
        ("cifar:long_tail", ["data.name=cifar100"], "| Table 3 | test accuracy, imbalance 100 | 37.4 | 40.4 |"),
        (
            "cifar:long_tail",
            ["data.imbalance=10"],
            "The paper reports no number for resnet32\\_cifar trained on cifar10",
        ),
        ("cifar:superclass", [], "| Table 5 | linear probe of the 100 subclasses | 60.7 | 72.9 |"),
        ("cifar:superclass", ["data.labels=class"], "The paper reports no number"),
    ],
)
def test_the_papers_numbers_are_of_the_data_s_tail_and_labels(tmp_path, address, settings, expected):
    run = make_run(tmp_path / "run")
    RunDir(run).write_recipe(override(load_recipe(address), settings))
    section = render_card(run, licence="mit").partition("### The paper's numbers")[2].partition("\n## ")[0]
    assert expected.replace("\\_", "_") in section and section.count("| Table") == expected.count("| Table")


def test_our_own_architecture_says_that_it_needs_this_package(tmp_path):
    made = recipe()
    run = make_run(tmp_path / "run", model=replace(made.model, name="resnet32_cifar_vcreg"))
    card = render_card(run, licence="mit")
    assert "import vcreg_hub  # this architecture is not timm's" in card
    assert "so that package is needed" in card
    assert "import vcreg_hub  # registers this architecture\nfrom transformers import pipeline" in card


def test_the_papers_averages_are_those_of_its_rows():
    for architecture in ("resnet50", "convnext_tiny", "vit_base_patch32_224"):
        rows = paper_numbers(architecture, {"name": "imagenet", "labels": "class"})
        *eight, average = rows
        assert len(eight) == 8
        # The table prints one decimal, so its own averages agree to half of that.
        assert statistics.fmean(r.plain for r in eight) == pytest.approx(average.plain, abs=0.06)
        assert statistics.fmean(r.vcreg for r in eight) == pytest.approx(average.vcreg, abs=0.06)
    assert all(number.vcreg > number.plain for number in PAPER_NUMBERS)


def test_no_folder_of_this_machine_reaches_the_card(tmp_path):
    made = recipe()
    run = make_run(
        tmp_path / "run",
        data=replace(made.data, root="/data/secret"),
        model=replace(made.model, pretrained="/home/somebody/weights.safetensors"),
    )
    card = render_card(run, licence="mit")
    assert "/data" not in card
    assert "/home" not in card
    assert "weights.safetensors" in card


def test_plots_are_shown(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "curve.png").write_bytes(b"png")
    assert "![curve.png](curve.png)" in render_card(run, licence="mit")


def test_a_card_error_leaves_the_folder_as_it_was(tmp_path):
    run = make_run(tmp_path / "run")
    write_card(run, licence="mit")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_json(run / "results.json", {"metrics": [row()], "training": {"seconds": "long"}, "data": {}})
    broken = (run / "results.json").read_bytes()
    with pytest.raises(HubError, match="could not be rendered: ValueError"):
        write_card(run, licence="mit")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == {**before, run / "results.json": broken}


def test_metrics_that_are_gone_leave_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(card_metadata, "_BENCHMARKS", BENCHMARKS)
    run = make_run(tmp_path / "run", values=results(row(), row(70.0, split="val")))
    write_card(run, licence="mit")
    assert len(list((run / ".eval_results").iterdir())) == 2
    write_json(run / "results.json", results(row()))
    write_card(run, licence="mit")
    assert len(list((run / ".eval_results").iterdir())) == 1


def test_the_loading_snippets_run_as_they_are_printed(tmp_path, monkeypatch):
    import torch

    folder = make_loadable(tmp_path / "export")
    snippets = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 4
    monkeypatch.chdir(folder)
    Image.effect_noise((40, 36), 80).convert("RGB").save("picture.png")
    names: dict = {}
    for snippet in snippets[:3]:
        exec(compile(snippet, "card", "exec"), names)
    assert names["logits"].shape == (1, 3) and names["features"].ndim == 4
    torch.testing.assert_close(names["model"].get_classifier()(names["embeddings"]), names["logits"])
    piped: dict = {}
    exec(compile(snippets[3], "card", "exec"), piped)
    # The same weights; another address in memory may take another kernel, so equal to the last bits only.
    assert {one["label"]: one["score"] for one in piped["answers"]} == pytest.approx(names["answers"], rel=1e-4)
    ours = names["model"].state_dict()
    theirs = piped["classify"].model.state_dict()
    assert all(torch.equal(ours[name.removeprefix("timm_model.")], t) for name, t in theirs.items())


def test_a_transformers_snippet_runs_as_it_is_printed(tmp_path, monkeypatch):
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3, num_channels=3
    )
    run = make_run(tmp_path / "run", weights=False)
    ResNetForImageClassification(config).save_pretrained(run)
    write_card(run, licence="mit")
    snippet, features = re.findall(r"```python\n(.*?)\n```", (run / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "AutoModelForImageClassification" in snippet
    monkeypatch.chdir(run)
    names: dict = {}
    for code_ in (snippet, features):
        exec(compile(code_, "card", "exec"), names)
    assert names["logits"].shape == (1, 3) and names["features"].shape[:2] == (1, 8)
    torch.testing.assert_close(names["last"](names["embeddings"]), names["logits"])


# ---- text that anybody may have written ---------------------------------------------------------------------------

NASTY = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [
                *(
                    "\n",
                    "\r",
                    "---",
                    "\n---\n",
                    ": ",
                    "- ",
                    "```",
                    "|",
                    "'",
                    '"',
                    "{{ 7 }}",
                    "{% x %}",
                    "&",
                    "!",
                    "#",
                    "\t",
                ),
                *("license: evil", "model-index:", "\u2028", "\x85", "\x00", "a", "é", "[x](y)", "<script>", "*", "\\"),
            ]
        ),
        max_size=8,
    ).map("".join),
)
ALLOWED = {
    "datasets", "library_name", "license", "metrics", "pipeline_tag", "tags", "model-index",
}  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NASTY, min_size=9, max_size=9))
@example(names=["x\n---\nlicense: evil\n---\n"] * 9)
@example(names=["```\n# Title\n---\nlicense: evil"] * 9)
@example(names=["{{ 1/0 }}{% for %}"] * 9)
@example(names=["null", "yes", "0x10", "1e5", "~", "2026-01-01", "[]", "{}", "*a"])
def test_no_name_can_write_yaml_or_markup_of_its_own(tmp_path, names):
    _, _, data, labels, metric, config, split, class_name, _ = names
    values = results(row(metric=metric, dataset=data, dataset_config=config, split=split, protocol=labels))
    values["data"]["classes"] = [class_name]
    run = _nasty_run(tmp_path / "run", values, names)
    record = collect(run, licence="mit")
    card = render(record)
    top = header(card)
    assert set(top) <= ALLOWED
    assert top["license"] == "mit"
    assert ModelCard(card).data.license == "mit"
    assert len(top["model-index"]) == 1
    (found,) = top["model-index"][0]["results"]
    assert set(found) == {"task", "dataset", "metrics"}
    assert found["dataset"]["name"] == one_line(data)
    lines = body(card).splitlines()
    assert [line for line in lines if line.startswith("#")][1:] == SECTIONS[top["library_name"]]
    assert sum(line.startswith("```") for line in lines) == FENCES[top["library_name"]]
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", body(card))
    assert not eval_result_files(record)


SECTIONS = {
    library: [
        "## What VCReg is", "## How to load", *titles, "## The network", "## VCReg in this model", "## Results",
        "### The paper's numbers", "## Plots", "## Training", "## Data and licence", "## Environment",
        "## Limitations", "## Citation",
    ]
    for library, titles in {
        "timm": ["### One picture", "### Features and embeddings", "### In transformers' pipeline"],
        "transformers": ["### Features and embeddings"],
    }.items()
}  # fmt: skip
FENCES = {"timm": 10, "transformers": 6}


def _nasty_run(folder, values, names):
    made = recipe()
    recipe_name, model, data, labels, *_, device = names
    return make_run(
        folder,
        values=values,
        where_it_ran=env(device=device, commit=labels, packages={labels: device}),
        weights=False,
        # The names that a recipe refuses itself.
        name="r" + "".join(c if c.isprintable() and c not in "/\\" else "|" for c in recipe_name),
        model=replace(made.model, name=_text(model)),
        data=replace(made.data, name=_text(data), labels=_text(labels)),
    )


def _text(text: str) -> str:
    """What a recipe takes of any text."""
    return text.replace("\0", "|").encode("utf-8", "replace").decode()


@given(text=NASTY)
def test_text_is_made_harmless(text):
    assert len(one_line(text).splitlines()) <= 1
    assert len(prose(text).splitlines()) <= 1
    assert "<" not in prose(text)
    assert "`" not in prose(text)
    assert not re.search(r"(?<!\\)[`*\[\]|]", prose(text).replace("\\\\", ""))
    assert code(text).count("`") == 2
    assert re.fullmatch(r"[a-z0-9._-]+", slug(text))


def test_a_pretrained_start_is_named_and_its_hash_where_the_run_noted_it(tmp_path):
    started = Model("test_resnet", pretrained="me/start")
    old = make_run(tmp_path / "old", model=started)
    assert "training started from pretrained weights: `me/start`\n" in render_card(old, licence="mit")
    new = make_run(tmp_path / "new", model=started, values=results(start_sha256="ab" * 32))
    line = f"pretrained weights: `me/start`; SHA-256 of the network as training began: `{'ab' * 32}`\n"
    assert line in render_card(new, licence="mit")
    assert "started from" not in render_card(make_run(tmp_path / "fresh"), licence="mit")


def test_clips_that_were_left_out_are_counted(tmp_path):
    values = results()
    values["data"]["left_out"] = ["a/1.avi", "b/2.avi"]
    assert "left out of training and validation: 2\n" in render_card(make_run(tmp_path, values=values), licence="mit")
