"""What a model card says of a record, passage by passage; card.md.j2 puts them in order."""

from __future__ import annotations

import json
from typing import Any

from ..paper import ARXIV, TITLE, paper_numbers
from .markdown import code, number, one_line, prose
from .scores import Score, scores, twin_scores
from .snippet import load_snippet, transformers_snippet


def passages(record: dict[str, Any]) -> dict[str, Any]:
    """The variables of card.md.j2, each a text or a list of texts in which nothing of the record acts as markdown."""
    twins, rows = twin_scores(record), scores(record)
    architecture, data = record["architecture"], record["recipe"]["data"]["name"]
    vcreg = record["recipe"]["vcreg"]
    classes = [prose(name) for name in record["results"]["data"].get("classes") or []]
    return {
        "title": prose(record["name"]),
        "summary": _summary(record),
        "arxiv": ARXIV,
        "paper_title": TITLE,
        "load_note": _load_note(record),
        "snippet": load_snippet(record),
        "transformers_snippet": transformers_snippet(record),
        "class_count": len(classes),
        "classes": ", ".join(classes) if 0 < len(classes) <= 200 else "",
        "vcreg": _vcreg_rows(vcreg, record["recipe"]["where"]) if vcreg else None,
        "results_note": _results_note(record),
        "results": [_result_row(score, twins.get(score.key), bool(twins)) for score in rows],
        "has_twin": bool(twins),
        "twin_note": _twin_note(record),
        "paper": [
            (row.table, row.measured, f"{row.plain:g}", f"{row.vcreg:g}") for row in paper_numbers(architecture, data)
        ],
        "no_paper": f"The paper reports no number for {prose(architecture)} trained on {prose(data)}.",
        "plots": record["plots"],
        "training": _training(record),
        "again": _again(record),
        "recipe": [
            (name, _settings(section))
            for name in ("model", "data", "video", "optim", "train", "eval")
            if (section := record["recipe"].get(name))
        ]
        + [("evals", _settings(section)) for section in record["recipe"].get("evals") or ()],
        "data": _data(record),
        "environment": _environment(record),
        "limitations": _limitations(record),
    }


def _summary(record: dict[str, Any]) -> str:
    what = "trained with VCReg" if record["recipe"]["vcreg"] else "trained without VCReg (the plain twin)"
    weights = record["weights"]
    size = f" {weights['values'] / 1e6:.2f} million values, {weights['bytes'] / 1e6:.2f} MB." if weights else ""
    return (
        f"{prose(record['architecture'])} for {record['task'].replace('-', ' ')}, {what} on "
        f"{prose(record['recipe']['data']['name'])} by recipe {code(record['recipe']['name'])}.{size}"
    )


def _load_note(record: dict[str, Any]) -> str:
    if record.get("packaged"):
        place = f"<vcreg_hub's folder>/weights/{record['name']}"
        plain = {
            "timm": f" Plain timm loads the same files: `local-dir:{place}`.",
            "transformers": f" Plain transformers loads the same files: `{place}`.",
        }
        return f"The weights ship inside vcreg_hub: no network is needed.{plain.get(record['library'], '')}"
    where = "" if record["repo_id"] else " Run it in the folder that holds this card."
    if record["library"] == "vcreg_hub":
        return f"The architecture is vcreg_hub's own, so that package is needed.{where}"
    return f"Plain {record['library']} loads it; vcreg_hub is not needed.{where}"


def _vcreg_rows(vcreg: dict[str, Any], where: str) -> list[tuple[str, str]]:
    forms = {
        "loss": "the exact gradient of Eqs. 1-6",
        "algorithm1": "Algorithm 1 as printed (delta ignored, covariance term without 1/(n-1))",
    }
    delta = vcreg.get("delta")
    return [
        ("alpha (variance)", code(vcreg["alpha"])),
        ("beta (covariance)", code(vcreg["beta"])),
        ("delta (threshold of Eq. 6)", "none: the plain square of Eq. 2" if delta is None else code(delta)),
        ("eps", code(vcreg["eps"])),
        ("placement", code(where)),
        ("gradient form", f"{code(vcreg['gradient'])}: {forms.get(vcreg['gradient'], '')}"),
        ("statistics", "of the global batch" if vcreg["sync"] else "of each process's own batch"),
    ]


def _results_note(record: dict[str, Any]) -> str:
    own = record["runs"][0]
    split = "" if own.get("fold") is None else f", split {own['fold']}"
    seeds = {run["seed"] for run in record["runs"]}
    spread = "One seed: no spread can be given." if len(seeds) == 1 else "The standard deviation is that of the sample."
    return f"Seed of these weights: {own['seed']}{split}. Behind the means: {_counted(record['runs'])}. {spread}"


def _counted(runs: list[dict[str, Any]]) -> str:
    seeds, folds = sorted({run["seed"] for run in runs}), sorted({run.get("fold") or 0 for run in runs})
    text = f"seeds {', '.join(map(str, seeds))}"
    if len(folds) > 1:
        return f"{text} on splits {', '.join(map(str, folds))} ({len(runs)} runs)"
    return f"{text} (n = {len(runs)})"


def _twin_note(record: dict[str, Any]) -> str:
    if record["recipe"]["vcreg"] is None:
        return "This model is itself the plain twin."
    if not record["twins"]:
        return "The plain twin (the same recipe without VCReg): not yet run."
    return f"The plain twin is the same recipe without VCReg, run here with {_counted(record['twins'])}."


def _result_row(score: Score, twin: Score | None, has_twin: bool) -> list[str]:
    row = [
        prose(f"{score.metric} ({score.unit})" if score.unit else score.metric),
        prose(", ".join(filter(None, [score.dataset, score.config, score.split]))),
        prose(score.protocol or "-"),
        "higher" if score.higher_is_better else "lower",
        number(score.value, score.unit),
        _spread(score),
        "not yet run" if twin is None else _spread(twin),
    ]
    if has_twin:
        row.append("n/a" if twin is None else _signed(score.mean - twin.mean, score.unit))
    return row


def _signed(difference: float, unit: str) -> str:
    size = number(abs(difference), unit)
    return f"{'-' if difference < 0 and float(size) else '+'}{size}"


def _spread(score: Score) -> str:
    std = "" if score.std is None else f" ± {number(score.std, score.unit)}"
    return f"{number(score.mean, score.unit)}{std} (n = {score.n})"


def _settings(section: dict[str, Any]) -> str:
    return ", ".join(code(f"{name}={_json(value)}") for name, value in section.items() if name != "root")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _training(record: dict[str, Any]) -> list[str]:
    training = record["results"]["training"]
    lines = []
    if training.get("epochs") is not None:
        steps = f", {prose(training['steps'])} optimizer steps" if training.get("steps") is not None else ""
        lines.append(f"{prose(training['epochs'])} epochs{steps}")
    if training.get("seconds") is not None:
        lines.append(f"training time: {_duration(float(training['seconds']))}")
    if training.get("selected"):
        lines.append(f"weights kept: {prose(training['selected'])}")
    if undecodable := training.get("undecodable"):
        lines.append(f"training clips that did not decode: {len(undecodable)}")
    if assumed := record["recipe"].get("assumed"):
        lines.append(f"assumed, because what the recipe follows does not confirm it: {', '.join(map(code, assumed))}")
    emitted = training.get("emissions_kg_co2eq")
    by = "not measured (codecarbon does)" if emitted is None else f"{float(emitted):.3g} kg CO2eq, by codecarbon"
    return [*lines, f"emissions: {by}"]


def _again(record: dict[str, Any]) -> str:
    """How to get these numbers."""
    if not record.get("packaged"):
        return "The whole recipe is `recipe.json`; `vcreg train recipe.json` repeats it."
    start = ", from the start that it made" if record["recipe"]["model"]["pretrained"] else ""
    return (
        f"`vcreg reproduce {record.get('experiment') or record['name']}` repeats every number above: it searches alpha "
        f"and beta on held-out training {_samples(record)} and then trains all seeds, with VCReg and plain. "
        f"`vcreg train {record['packaged']}` repeats these weights{start}."
    )


def _samples(record: dict[str, Any]) -> str:
    return "images" if record["recipe"].get("video") is None else "clips"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _data(record: dict[str, Any]) -> list[str]:
    data, licence = record["results"]["data"], record["licence"]
    name = prose(record["recipe"]["data"]["name"])
    counts = ", ".join(f"{prose(data[part])} {part}" for part in ("train", "val", "test") if data.get(part) is not None)
    lines = [
        f"data: {name}, labels {code(record['recipe']['data']['labels'])}"
        + (f"; {_samples(record)}: {counts}" if counts else "")
    ]
    if left_out := data.get("left_out"):
        lines.append(f"clips that do not decode and were left out of training and validation: {len(left_out)}")
    if record["recipe"]["data"].get("train_images"):
        lines.append(f"the training {_samples(record)} were capped at {record['recipe']['data']['train_images']}")
    if record["recipe"]["model"]["pretrained"]:
        start = record["results"]["training"].get("start_sha256")
        named = f"; SHA-256 of the network as training began: {code(start)}" if start else ""
        lines.append(
            f"training started from pretrained weights: {code(record['recipe']['model']['pretrained'])}{named}"
        )
    text = prose(record["licence_name"]) if licence == "other" else code(licence)
    link = f" (<{one_line(record['licence_link']).strip('<>')}>)" if record["licence_link"] else ""
    return [*lines, f"licence of these weights: {text}{link}; the data has its own"]


def _environment(record: dict[str, Any]) -> list[str]:
    env = record["env"]
    others = [run["commit"] for run in (*record["runs"], *record["twins"]) if run["commit"] != env.get("commit")]
    state = {True: ", with uncommitted changes in the tree", False: ", a clean tree"}.get(env.get("dirty"), "")
    packages = env.get("packages") if isinstance(env.get("packages"), dict) else {}
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


def _limitations(record: dict[str, Any]) -> list[str]:
    data = prose(record["recipe"]["data"]["name"])
    made_up = ["Trained on made-up images to try the software out: no number here means anything."]
    lines = [
        *(made_up if str(record["recipe"]["data"]["name"]).startswith("synthetic") else []),
        f"Measured on the data named above only; what the features are worth elsewhere than on {data} is not known.",
        "Not tested for fairness, robustness or safety; it knows its classes and nothing else.",
    ]
    if record["recipe"]["vcreg"]:
        lines.append("The paper gives no value for delta; the one above is this package's choice.")
    if len({run["seed"] for run in record["runs"]}) < 3:
        lines.append("Fewer than three seeds: a difference from another model may be chance.")
    return lines
