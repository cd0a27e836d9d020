"""transformers' classifiers: built from a configuration, loaded strictly, and never with code from a repo."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.fetch import Part
from ..checkpoints.find import hub_folder
from ..checkpoints.limits import guarded
from ..checkpoints.load import PICKLES, refuse_pickle
from ..errors import ConfigError, UsageError, WeightsNotFoundError, first_line, unknown_name

_logger = logging.getLogger("vcreg_hub")


def load_config(source: str) -> Any:
    """The configuration of a Hub id (`owner/name`, with `@revision` if need be), a folder or a config.json.

    Errors: WeightsNotFoundError when there is none, ConfigError for a model that needs code of its own repo.
    """
    from transformers import AutoConfig

    place = local_copy(source, "config")
    if place.endswith(".json") and not Path(place).is_file():
        raise WeightsNotFoundError(f"there is no file {place}")
    try:
        with guarded():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(f"{source} needs Python code from its repo, which is never run") from None
        raise WeightsNotFoundError(f"transformers finds no configuration at {source}: {first_line(error)}") from None
    # owner/name there is a kernel of the Hub, which transformers would download and run.
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise ConfigError(f"{source} needs code from {config._attn_implementation}, which is never run")
    return config


def change_config(config: Any, changes: Mapping[str, Any]) -> None:
    """Set fields of a configuration. Errors: UnknownNameError for one it lacks, ConfigError for a value it refuses."""
    from huggingface_hub.errors import StrictDataclassError

    for name, value in changes.items():
        if not hasattr(config, name):
            raise unknown_name("field", name, config.to_dict())
        try:
            setattr(config, name, value)
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise ConfigError(f"{name}={value!r} does not fit a {config.model_type}: {error}") from None


def build_classifier(auto_class: Any, config: Any, source: str) -> nn.Module:
    """The native class with random weights.

    Errors: ConfigError for a model type without such a classifier, or a configuration that cannot be built.
    """
    try:
        return auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as error:
        if "Unrecognized configuration class" in str(error):
            raise _no_classifier(auto_class, config, source) from None
        raise ConfigError(f"{source} cannot be built like this: {error}") from error


def load_classifier(auto_class: Any, source: str, config: Any) -> nn.Module:
    """The native class with the weights of `source` (a folder or Hub id), and a fresh head if theirs does not fit.

    config: what to build; its class count may differ from the weights'. Anything but the head that does not match is a
    UsageError that names the tensors; pickled weights are refused; WeightsNotFoundError for a source without weights. A
    fresh head is said in one line, in place of transformers' report where that is all there is to report.
    """
    _refuse_pickled_folder(source)
    place = local_copy(source, "weights")
    try:
        with guarded(), _reports_held() as held:
            model, report = auto_class.from_pretrained(
                place,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # for the head alone: what else it let through is refused below
                output_loading_info=True,
            )
            _refuse_mismatches(model, report, source)
            if (fresh := _fresh_heads(model, report)) and not report.get("unexpected_keys"):
                held.clear()
    except ValueError as error:
        if "Unrecognized configuration class" in str(error):
            raise _no_classifier(auto_class, config, source) from None
        raise
    except OSError as error:
        raise WeightsNotFoundError(
            f"transformers finds no safetensors weights at {source}: {first_line(error)}"
        ) from None
    if fresh:
        _logger.warning(
            "the head (%s) starts fresh, for %d classes: %s has no weights of that shape for it",
            ", ".join(fresh),
            config.num_labels,
            source,
        )
    return model


def _head_names(model: nn.Module) -> list[str]:
    """Names of the top-level modules outside the backbone that hold the classifier, such as ["classifier"]."""
    backbone = getattr(model, "base_model_prefix", "")
    return [
        name for name, child in model.named_children() if name != backbone and any(True for _ in child.parameters())
    ]


def local_copy(source: str, part: Part) -> str:
    """The folder of a Hub id (`owner/name`, with `@revision` if need be) in the cache, compared with the Hub's own
    hashes; an existing path, and what is no Hub id, as it is.

    part: "weights", or "config" for all but those. Errors: those of `checkpoints.find.hub_folder`.
    """
    source = source.removeprefix("hf-hub:")
    path = Path(source).expanduser()
    if path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")) or path.suffix == ".json":
        return str(path)
    return str(hub_folder(source, part))


def set_classes(config: Any, num_classes: int, names: Iterable[str] | None = None) -> None:
    """Give a configuration `num_classes` classes, and their names if there are as many."""
    names = list(names or [])
    if len(names) != num_classes:
        names = [f"LABEL_{i}" for i in range(num_classes)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}


def _refuse_mismatches(model: nn.Module, report: dict[str, Any], source: str) -> None:
    heads = tuple(f"{name}." for name in _head_names(model))
    lines = []
    for kind in ("missing_keys", "mismatched_keys"):
        keys = [_name(key) for key in report.get(kind, ())]
        if wrong := sorted(key for key in keys if not key.startswith(heads)):
            lines.append(f"{len(wrong)} {kind.removesuffix('_keys')} ({', '.join(wrong[:4])})")
    if extra := sorted(key for key in map(_name, report.get("unexpected_keys", ())) if _of_backbone(key, model)):
        lines.append(f"{len(extra)} unexpected ({', '.join(extra[:4])})")
    if lines:
        raise UsageError(f"the weights of {source} do not fit {type(model).__name__}: {'; '.join(lines)}")


def _fresh_heads(model: nn.Module, report: dict[str, Any]) -> list[str]:
    """Names of the heads of which a tensor came from no file."""
    drawn = [_name(key) for kind in ("missing_keys", "mismatched_keys") for key in report.get(kind, ())]
    return [head for head in _head_names(model) if any(name.startswith(f"{head}.") for name in drawn)]


@contextmanager
def _reports_held() -> Iterator[list[logging.LogRecord]]:
    """Keeps back what transformers reports of a loading until the block ends, or fails; a record taken out of the list
    is never shown."""
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" not in record.getMessage():
            return True
        held.append(record)
        return False

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(hold)
    try:
        yield held
    finally:
        logger.removeFilter(hold)
        for record in held:
            logger.handle(record)


def _of_backbone(key: str, model: nn.Module) -> bool:
    """Whether a tensor the model has no place for belongs to its backbone: not to another task's head or a pooler."""
    prefix = getattr(model, "base_model_prefix", "")
    inside = key.removeprefix(f"{prefix}.")
    backbone = getattr(model, prefix, None)
    children = {name for name, _ in backbone.named_children()} if isinstance(backbone, nn.Module) else set()
    return "pooler" not in key.split(".") and (inside != key or inside.partition(".")[0] in children)


def _name(key: Any) -> str:
    return key if isinstance(key, str) else str(key[0])


def _refuse_pickled_folder(source: str) -> None:
    folder = Path(source).expanduser()
    if not folder.is_dir() or any(folder.glob("*.safetensors*")):
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLES:
            refuse_pickle(path)


def _no_classifier(auto_class: Any, config: Any, source: str) -> ConfigError:
    return ConfigError(f"{source} is a {config.model_type!r}, which {auto_class.__name__} has no class for")
