"""Words a record for its model card, section by section; card.md.j2 puts them in order."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..paper import ARXIV, TITLE, paper_numbers
from ..results.tables import Table
from .markdown import code, number, one_line, prose, spread
from .pictures import picture_names
from .record import Document, Record, RunNumbers, Score


def card_context(record: Record) -> dict[str, object]:
    """The variables of card.md.j2, each a text or a list of texts, with the record's markdown signs escaped."""
    snippet, *others = _snippets(record).items()
    architecture, data = record.architecture, record.recipe["data"]["name"]
    vcreg = record.recipe["vcreg"]
    classes = [prose(name) for name in record.results["data"].get("classes") or []]
    return {
        "title": prose(record.name),
        "summary": _summary(record),
        "arxiv": ARXIV,
        "paper_title": TITLE,
        "load_note": _load_note(record),
        "snippet": snippet[1],
        "snippets": others,
        "network": _network(record),
        "class_count": len(classes),
        "classes": ", ".join(classes) if 0 < len(classes) <= 200 else "",
        "vcreg": vcreg_table(vcreg, record.recipe["where"]) if vcreg else None,
        "results_note": _results_note(record),
        "results": results_table(record).markdown(),
        "baseline_note": _baseline_note(record),
        "paper": _paper_table(architecture, record.recipe["data"]),
        "no_paper": f"The paper reports no number for {prose(architecture)} trained on {prose(data)}.",
        "plots": record.plots,
        "unrecorded": [text for kind, text in _UNRECORDED.items() if kind not in picture_names(record)],
        "training": _training(record),
        "again": _again(record),
        "recipe": _recipe_table(record.recipe),
        "data": _data(record),
        "environment": _environment(record),
        "limitations": _limitations(record),
    }


def _snippets(record: Record) -> dict[str, str]:
    """Title -> lines of Python: the first loads the weights, from their repo or from the card's own folder. A test runs
    them as they are printed."""
    from ..models.build import load_snippets
    from ..models.libraries.library import Loader, SnippetSource

    data = record.results["data"]
    video = record.task == "video-classification"
    return load_snippets(
        SnippetSource(
            name=record.name,
            repo_id=record.repo_id,
            loader=Loader(record.library, record.architecture, record.loader, video),
            processor=record.processor,
            packaged=record.packaged is not None,
            in_chans=int(data.get("in_chans") or 3),
            image_size=int(data.get("image_size") or 224),
            stride=int(data.get("stride") or 1),
        )
    )


def _summary(record: Record) -> str:
    what = "trained with VCReg" if record.recipe["vcreg"] else "trained without VCReg (the baseline)"
    return (
        f"{prose(record.architecture)} for {record.task.replace('-', ' ')}, {what} on "
        f"{prose(record.recipe['data']['name'])} by recipe {code(record.recipe['name'])}."
    )


def _network(record: Record) -> list[str]:
    data, size, weights = record.results["data"], record.results.get("network"), record.weights
    shown = [data.get(name) for name in ("in_chans", "image_size")]
    lines = ["input: not recorded"]
    if None not in shown:
        channels, side = map(prose, shown)
        grey = " (grey)" if shown[0] == 1 else ""
        clip = (
            ""
            if data.get("frames") is None
            else f"clips of {prose(data['frames'])} frames, {prose(data['stride'])} apart, "
        )
        what = f"{clip}{channels} channel{'s' * (shown[0] != 1)}{grey}, {side} x {side} pixels"
        normalised = [code(_json(data[name])) for name in ("mean", "std") if data.get(name) is not None]
        of_pixels = (
            f"; pixels in [0, 1] minus {normalised[0]}, divided by {normalised[1]}" if len(normalised) == 2 else ""
        )
        lines = [f"input: {what}{of_pixels}"]
    counted = "not counted yet: `vcreg export` does"
    if size is not None:
        sample = "clip" if record.task.startswith("video") else "image"
        counted = f"{int(size['parameters']):,}; multiply-adds for one {sample}: {int(size['macs']) / 1e9:.4g} GMACs"
        counted += ", in convolutions, matrix products and attention (torch.utils.flop_counter)"
    lines.append(f"parameters: {counted}")
    if weights is not None:
        lines.append(f"weights: {code(weights.file)}, {weights.bytes / 1e6:.2f} MB, SHA-256 {code(weights.sha256)}")
    return lines


_UNRECORDED = {
    "training": "training curve: not recorded",
    "blocks": "features block by block: not recorded",
}


def _load_note(record: Record) -> str:
    if record.packaged:
        place = f"<vcreg_hub's folder>/weights/{record.name}"
        plain = {
            "timm": f" Plain timm loads the same files: `local-dir:{place}`.",
            "transformers": f" Plain transformers loads the same files: `{place}`.",
        }
        return f"The weights ship inside vcreg_hub: no network is needed.{plain.get(record.library, '')}"
    where = "" if record.repo_id else " Run it in the folder that holds this card."
    if record.library == "vcreg_hub":
        return f"The architecture is vcreg_hub's own, so that package is needed.{where}"
    return f"Plain {record.library} loads it; vcreg_hub is not needed.{where}"


def vcreg_table(vcreg: Document, where: str) -> str:
    """The settings of a regularizer and its placement."""
    forms = {
        "loss": "the exact gradient of Eqs. 1-6",
        "algorithm1": "Algorithm 1 as printed (delta ignored, covariance term without 1/(n-1))",
    }
    if vcreg.get("type", "vcreg") != "vcreg":  # a rival: its settings as they are
        rows = [*((name, code(_json(value))) for name, value in vcreg.items()), ("placement", code(where))]
        return Table.of(["setting", "value"], rows).markdown()
    delta = vcreg.get("delta")
    rows = [
        ("alpha (variance)", code(vcreg["alpha"])),
        ("beta (covariance)", code(vcreg["beta"])),
        ("delta (threshold of Eq. 6)", "none: the plain square of Eq. 2" if delta is None else code(delta)),
        ("eps", code(vcreg["eps"])),
        ("placement", code(where)),
        ("gradient form", f"{code(vcreg['gradient'])}: {forms.get(vcreg['gradient'], '')}"),
        ("statistics", "of the global batch" if vcreg["sync"] else "of each process's own batch"),
    ]
    return Table.of(["setting", "value"], rows).markdown()


def _results_note(record: Record) -> str:
    own = record.runs[0]
    split = "" if own.fold is None else f", split {own.fold}"
    seeds = {run.seed for run in record.runs}
    spread = "One seed: no spread can be given." if len(seeds) == 1 else "The standard deviation is that of the sample."
    return f"Seed of these weights: {own.seed}{split}. Behind the means: {_counted(record.runs)}. {spread}"


def _counted(runs: Sequence[RunNumbers]) -> str:
    seeds, folds = sorted({run.seed for run in runs}), sorted({run.fold or 0 for run in runs})
    text = f"seeds {', '.join(map(str, seeds))}"
    if len(folds) > 1:
        return f"{text} on splits {', '.join(map(str, folds))} ({len(runs)} runs)"
    return f"{text} (n = {len(runs)})"


def _baseline_note(record: Record) -> str:
    if record.recipe["vcreg"] is None:
        return "This model is itself the baseline."
    if not record.baselines:
        return "The baseline (the same recipe without VCReg): not yet run."
    return f"The baseline is the same recipe without VCReg, run here with {_counted(record.baselines)}."


def results_table(record: Record) -> Table:
    """The results on a card: a line for each score, its last cell the difference to the baseline, if any."""
    compared = any(run.results for run in record.baselines)
    columns = ["metric", "data", "protocol", "better", "these weights", "mean ± std over seeds"]
    columns += ["baseline, mean ± std", *(["difference"] if compared else [])]
    return Table.of(columns, [_result_row(score, compared) for score in record.scores])


def _result_row(score: Score, compared: bool) -> list[str]:
    of, baseline = score.quantity, score.baseline
    row = [
        prose(f"{of.metric} ({of.unit})" if of.unit else of.metric),
        prose(", ".join(filter(None, [of.dataset, of.full_config, score.split]))),
        prose(of.protocol or "-"),
        "higher" if of.higher_is_better else "lower",
        number(score.value, of.unit),
        f"{spread(score.summary, of.unit)} (n = {score.summary.n})",
        "not yet run" if baseline is None else f"{spread(baseline, of.unit)} (n = {baseline.n})",
    ]
    return [*row, _difference(score)] if compared else row


def _difference(score: Score) -> str:
    """`+0.08 ± 0.05 (n = 3; 95% CI -0.04 to +0.20)`: seed by seed, with the interval of the mean; of other seeds than
    the baseline's, the difference of the means alone."""
    unit, paired, baseline = score.quantity.unit, score.difference, score.baseline
    if paired is None:
        return "n/a" if baseline is None else f"{_signed(score.summary.mean - baseline.mean, unit)} (not paired)"
    interval = "; 95% CI {} to {}".format(*(_signed(end, unit) for end in paired.interval)) if paired.interval else ""
    std = "" if paired.std is None else f" ± {number(paired.std, unit)}"
    return f"{_signed(paired.mean, unit)}{std} (n = {paired.n}{interval})"


def _paper_table(architecture: str, data: Document) -> str:
    """Empty where the paper reports nothing."""
    rows = [(row.table, row.measured, f"{row.plain:g}", f"{row.vcreg:g}") for row in paper_numbers(architecture, data)]
    return Table.of(["source", "measured", "plain (paper)", "VCReg (paper)"], rows).markdown() if rows else ""


def _recipe_table(recipe: Document) -> str:
    parts = ("model", "data", "video", "optim", "train", "eval")
    rows = [(name, _settings(section)) for name in parts if (section := recipe.get(name))]
    rows += [("evals", _settings(section)) for section in recipe.get("evals") or ()]
    return Table.of(["part", "settings"], rows).markdown()


def _signed(difference: float, unit: str) -> str:
    size = number(abs(difference), unit)
    return f"{'-' if difference < 0 and float(size) else '+'}{size}"


def _settings(section: Document) -> str:
    return ", ".join(code(f"{name}={_json(value)}") for name, value in section.items() if name != "root")


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _training(record: Record) -> list[str]:
    training = record.results["training"]
    lines = []
    if training.get("epochs") is not None:
        steps = f", {prose(training['steps'])} optimizer steps" if training.get("steps") is not None else ""
        lines.append(f"{prose(training['epochs'])} epochs{steps}")
    if training.get("seconds") is not None:
        lines.append(f"training time: {_duration(float(training['seconds']))}")
    if training.get("selected"):
        lines.append(f"weights kept: {prose(training['selected'])}")
    if undecodable := training.get("undecodable"):
        lines.append(f"training {_samples(record)} that did not decode: {len(undecodable)}")
    if assumed := record.recipe.get("assumed"):
        lines.append(f"assumed, because what the recipe follows does not confirm it: {', '.join(map(code, assumed))}")
    emitted = training.get("emissions_kg_co2eq")
    by = "not measured (codecarbon does)" if emitted is None else f"{float(emitted):.3g} kg CO2eq, by codecarbon"
    return [*lines, f"emissions: {by}"]


def _again(record: Record) -> str:
    """How to get these numbers."""
    if not record.packaged:
        return "The whole recipe is `recipe.json`; `vcreg train recipe.json` repeats it."
    start = ", from the start that it made" if record.recipe["model"]["pretrained"] else ""
    return (
        f"`vcreg reproduce {record.experiment or record.name}` repeats every number above: it searches alpha "
        f"and beta on held-out training {_samples(record)} and then trains all seeds, with VCReg and plain. "
        f"`vcreg train {record.packaged}` repeats these weights{start}."
    )


def _samples(record: Record) -> str:
    return "images" if record.recipe.get("video") is None else "clips"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _data(record: Record) -> list[str]:
    data, licence = record.results["data"], record.licence
    name = prose(record.recipe["data"]["name"])
    counts = ", ".join(f"{prose(data[part])} {part}" for part in ("train", "val", "test") if data.get(part) is not None)
    lines = [
        f"data: {name}, labels {code(record.recipe['data']['labels'])}"
        + (f"; {_samples(record)}: {counts}" if counts else "")
    ]
    if left_out := data.get("left_out"):
        lines.append(f"clips that do not decode and were left out of training and validation: {len(left_out)}")
    if record.recipe["data"].get("train_images"):
        lines.append(f"the training {_samples(record)} were capped at {record.recipe['data']['train_images']}")
    if record.recipe["model"]["pretrained"]:
        start = record.results["training"].get("start_sha256")
        named = f"; SHA-256 of the network as training began: {code(start)}" if start else ""
        lines.append(f"training started from pretrained weights: {code(record.recipe['model']['pretrained'])}{named}")
    text = prose(record.licence_name) if licence == "other" else code(licence)
    link = f" (<{one_line(record.licence_link).strip('<>')}>)" if record.licence_link else ""
    return [*lines, f"licence of these weights: {text}{link}; the data has its own"]


def _environment(record: Record) -> list[str]:
    env = record.env
    others = [run.commit for run in (*record.runs, *record.baselines) if run.commit != env.get("commit")]
    states = {True: ", with uncommitted changes in the tree", False: ", a clean tree", None: ""}
    state = states.get(env.get("dirty"), "")
    packages = env.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    facts = {
        "commit": f"{code(env['commit'])}{state}" if env.get("commit") else "not recorded",
        "commits of the other seeds and twins": ", ".join(code(commit) for commit in dict.fromkeys(others)),
        "date": prose(env["date"]) if env.get("date") else None,
        "device": f"{prose(env['device'])}, {prose(env.get('processes', 1))} process(es)"
        if env.get("device")
        else None,
        "python": prose(env["python"]) if env.get("python") else None,
        "packages": ", ".join(f"{prose(name)} {prose(version)}" for name, version in packages.items()) or None,
    }
    return [f"{name}: {text}" for name, text in facts.items() if text]


def _limitations(record: Record) -> list[str]:
    data = prose(record.recipe["data"]["name"])
    made_up = ["Trained on made-up images to try the software out: no number here means anything."]
    lines = [
        *(made_up if str(record.recipe["data"]["name"]).startswith("synthetic") else []),
        f"Measured on the data named above only; what the features are worth elsewhere than on {data} is not known.",
        "Not tested for fairness, robustness or safety; it knows its classes and nothing else.",
    ]
    if record.recipe["vcreg"]:
        lines.append("The paper gives no value for delta; the one above is this package's choice.")
    if len({run.seed for run in record.runs}) < 3:
        lines.append("Fewer than three seeds: a difference from another model may be chance.")
    return lines
