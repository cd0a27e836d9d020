"""The machine-readable half of a card: its YAML header with `model-index`, and the `.eval_results/*.yaml` files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .markdown import number, one_line, slug
from .record import Record, Score, is_smoke_test

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

# Where the Hub holds a data set of ours. Their sizes are checked as they are read, so a local copy is the same data.
_HUB_DATASETS = {
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "imagenet": "ILSVRC/imagenet-1k",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
# The metrics that are registered on the Hub, by our names.
_METRIC_TYPES = {"top1": "accuracy"}
# Hub id of a data set -> metric -> task id in that repo's eval.yaml, of the data sets the Hub lists as benchmarks
# (`list_datasets(benchmark=True)`). In 2026-11 none of them classifies images or clips by our protocols.
_BENCHMARKS: Mapping[str, Mapping[str, str]] = {}


def card_data(record: Record) -> ModelCardData:
    """The card's YAML header. Every string in it is one line; every figure a float."""
    from huggingface_hub import EvalResult, ModelCardData

    rows = _told_scores(record)
    results = [
        EvalResult(
            task_type=record.task,
            dataset_type=_hub_dataset(record, score.quantity.dataset) or slug(score.quantity.dataset),
            dataset_name=one_line(score.quantity.dataset),
            # A noise level is part of the config and a fold part of the split: in `dataset_args` they would be merged.
            dataset_config=one_line(score.quantity.full_config) or None,
            dataset_split=one_line(score.split),
            metric_type=_metric_type(score),
            metric_name=_metric_name(score),
            metric_value=score.value,
        )
        for score in rows
    ]
    trained_on = _hub_dataset(record, record.recipe["data"]["name"])
    types = sorted({_METRIC_TYPES[name] for score in rows if (name := score.quantity.metric) in _METRIC_TYPES})
    extra: dict[str, Any] = {}
    base = record.results["training"].get("base_model")
    if isinstance(base, str) and _is_repo_id(base):
        extra |= {"base_model": base, "base_model_relation": "finetune"}
    if record.licence == "other":
        extra |= {f"license_{part}": one_line(getattr(record, f"licence_{part}")) for part in ("name", "link")}
    emissions = record.results["training"].get("emissions_kg_co2eq")
    if emissions is not None:
        extra["co2_eq_emissions"] = {"emissions": 1000 * float(emissions), "source": "codecarbon"}
    return ModelCardData(
        license=record.licence,
        library_name="pytorch" if record.library == "torchvision" else record.library,
        pipeline_tag=record.task,
        tags=["vcreg", record.task, record.library, "arxiv:2306.13292"],
        datasets=[trained_on] if trained_on else None,
        metrics=types or None,
        model_name=one_line(record.name) if results else None,
        eval_results=results or None,
        **extra,
    )


def eval_result_files(record: Record) -> dict[str, str]:
    """`.eval_results/*.yaml` by path: one file for each data set, config and split of a benchmark of the Hub."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

    groups: dict[str, list[Any]] = {}
    for score in _told_scores(record):
        dataset = _hub_dataset(record, score.quantity.dataset)
        task = _BENCHMARKS.get(dataset or "", {}).get(score.quantity.metric)
        if dataset is None or task is None:
            continue
        where = (score.quantity.full_config, score.split)
        place = "-".join(slug(part) for part in (dataset, *where) if part)
        entry = EvalResultEntry(
            dataset_id=dataset,
            task_id=task,
            value=score.value,
            date=_date(record),
            notes=_notes(score),
        )
        groups.setdefault(f".eval_results/{place}.yaml", []).append(entry)
    files = {}
    for path, entries in groups.items():
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        if parse_eval_result_entries(yaml.safe_load(text)) != entries:
            raise UsageError(f"{path} does not survive its own YAML: check the names in results.json")
        files[path] = text
    return files


def _told_scores(record: Record) -> list[Score]:
    """The numbers that machines may read: of these weights and no other's, and none of a smoke test."""
    return [] if is_smoke_test(record.recipe) else [score for score in record.scores if score.value is not None]


def _hub_dataset(record: Record, name: str) -> str | None:
    """The Hub id of a data set: where the run read it there, as its results say, or where it is known to be there."""
    read = record.results["data"].get("hub")
    if name == record.recipe["data"]["name"] and isinstance(read, str) and _is_repo_id(read):
        return read
    return _HUB_DATASETS.get(name)


def _is_repo_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def _metric_type(score: Score) -> str:
    return _METRIC_TYPES.get(score.quantity.metric, slug(score.quantity.metric))


def _metric_name(score: Score) -> str:
    of = score.quantity
    direction = "higher is better" if of.higher_is_better else "lower is better"
    return one_line(", ".join(filter(None, [of.metric, of.unit, of.protocol, direction])))


def _notes(score: Score) -> str:
    over, unit = score.summary, score.quantity.unit
    several = f"mean {number(over.mean, unit)}, standard deviation {number(over.std, unit)} over {over.n} seeds"
    return one_line(f"{_metric_name(score)}; {'one seed' if over.std is None else several}")


def _date(record: Record) -> str | None:
    date = record.env.get("date")
    return one_line(date) if isinstance(date, str) else None
