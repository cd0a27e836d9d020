"""The machine-readable half of a card: its YAML header with `model-index`, and the `.eval_results/*.yaml` files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .markdown import number, one_line, slug
from .record import is_smoke_test
from .scores import Score, scores

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

# Data sets that have a home on the Hub. Only those can be named in `.eval_results`, whose `id` is a Hub data set.
HUB_DATASETS = {
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "imagenet": "ILSVRC/imagenet-1k",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
METRIC_TYPES = {"top1": "accuracy"}


def hub_dataset(name: str) -> str | None:
    """The Hub id of a data set of ours, or of `hf:<id>`; None where it has none."""
    if name.startswith("hf:"):
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(name[3:])
        except HFValidationError:
            return None
        return name[3:]
    return HUB_DATASETS.get(name)


def card_data(record: dict[str, Any]) -> ModelCardData:
    """The card's YAML header. Every string in it is one line; every figure a float."""
    from huggingface_hub import EvalResult, ModelCardData

    rows = _told_scores(record)
    results = [
        EvalResult(
            task_type=record["task"],
            dataset_type=hub_dataset(score.dataset) or slug(score.dataset),
            dataset_name=one_line(score.dataset),
            # A noise level is part of the config and a fold part of the split: in `dataset_args` they would be merged.
            dataset_config=one_line(score.config) or None,
            dataset_split=one_line(score.split),
            metric_type=METRIC_TYPES.get(score.metric, slug(score.metric)),
            metric_name=_metric_name(score),
            metric_value=float(score.mean if score.value is None else score.value),
        )
        for score in rows
    ]
    trained_on = hub_dataset(record["recipe"]["data"]["name"])
    types = sorted({METRIC_TYPES.get(score.metric, slug(score.metric)) for score in rows})
    extra: dict[str, Any] = {}
    if record["licence"] == "other":
        extra |= {f"license_{part}": one_line(record[f"licence_{part}"]) for part in ("name", "link")}
    emissions = record["results"]["training"].get("emissions_kg_co2eq")
    if emissions is not None:
        extra["co2_eq_emissions"] = {"emissions": 1000 * float(emissions), "source": "codecarbon"}
    return ModelCardData(
        license=record["licence"],
        library_name="pytorch" if record["library"] == "torchvision" else record["library"],
        pipeline_tag=record["task"],
        tags=["vcreg", record["task"], record["library"], "arxiv:2306.13292"],
        datasets=[trained_on] if trained_on else None,
        metrics=types or None,
        model_name=one_line(record["name"]) if results else None,
        eval_results=results or None,
        **extra,
    )


def eval_result_files(record: dict[str, Any]) -> dict[str, str]:
    """`.eval_results/*.yaml` by path: one file for each data set, config and split that has a Hub id."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

    groups: dict[str, list[Any]] = {}
    for score in _told_scores(record):
        dataset = hub_dataset(score.dataset)
        if dataset is None:
            continue
        place = "-".join(slug(part) for part in (dataset, score.config, score.split) if part)
        entry = EvalResultEntry(
            dataset_id=dataset,
            task_id="-".join(slug(part) for part in (score.metric, score.config, score.split) if part),
            value=float(score.mean if score.value is None else score.value),
            date=_date(record),
            notes=_notes(score),
        )
        groups.setdefault(f".eval_results/{place}.yaml", []).append(entry)
    files = {}
    for path, entries in groups.items():
        tasks = [entry.task_id for entry in entries]
        if len(set(tasks)) < len(tasks):
            entries = [_with_protocol(entry, n) for n, entry in enumerate(entries)]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        if parse_eval_result_entries(yaml.safe_load(text)) != entries:
            raise UsageError(f"{path} does not survive its own YAML: check the names in results.json")
        files[path] = text
    return files


def _told_scores(record: dict[str, Any]) -> list[Score]:
    """The metrics that machines may read: none of a smoke test."""
    return [] if is_smoke_test(record["recipe"]) else scores(record)


def _with_protocol(entry: Any, number: int) -> Any:
    """Two protocols of one metric on one split stay two tasks."""
    entry.task_id = f"{entry.task_id}-{number}"
    return entry


def _metric_name(score: Score) -> str:
    direction = "higher is better" if score.higher_is_better else "lower is better"
    return one_line(", ".join(filter(None, [score.metric, score.unit, score.protocol, direction])))


def _notes(score: Score) -> str:
    mean, std = number(score.mean, score.unit), number(score.std, score.unit)
    spread = "one seed" if score.std is None else f"mean {mean}, standard deviation {std} over {score.n} seeds"
    return one_line(f"{_metric_name(score)}; {spread}")


def _date(record: dict[str, Any]) -> str | None:
    date = record["env"].get("date")
    return one_line(date) if isinstance(date, str) else None
